"""An implementation may be a class: constructed with a node's attributes once, called with inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest
from fhe_core.registry.stateful import as_function

import fhe_core
from fhe_core import ModelError, NumpyModule, OpSignature, QuantizedOp, SignatureError


def _model(attributes: str) -> Any:
    nodes = f"agraph (float[N, 3] x) => (float[N, 3] y) {{y = own.Lookup <{attributes}> (x)}}"
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["own": 1]> {nodes}')


class Lookup:
    """What each of ``keys`` is replaced by; others stay."""

    made = 0

    def __init__(self, *, keys: Any, values: Any, scale: float = 1.0) -> None:
        type(self).made += 1
        if len(keys) != len(values):
            raise ModelError("as many keys as values, please")
        self.pairs = list(zip(keys, values, strict=True))
        self.scale = scale

    def __call__(self, x: Any, /, offset: Any = None) -> Any:
        y = x
        for key, value in self.pairs:
            y = np.where(x == key, np.float32(value), y)
        return y * np.float32(self.scale)


class QuantizedLookup(QuantizedOp):
    _impl_for_op_named = "Lookup"


OWN = {"domain": "own"}
MODEL = _model("keys = [1.0, 2.0], values = [5.0, 6.0]")
X = np.array([[1, 2, 3]], np.float32)


def test_its_signature_is_that_of_both_methods() -> None:
    signature = OpSignature.from_callable(as_function(Lookup))
    assert str(
        signature
    ) == "(x, /, offset=None, *, keys=REQUIRED, values=REQUIRED, scale=1.0)".replace(
        "=REQUIRED", ""
    )


def test_the_attributes_of_a_node_are_read_once_for_all_calls() -> None:
    Lookup.made = 0
    with fhe_core.registered(impls=[("Lookup", Lookup, OWN)]):
        net = NumpyModule(MODEL)
        results = [net(X) for _ in range(3)] + [net.run({"x": X}, fetch=["y"])["y"]]
    assert all(result.tolist() == [[5, 6, 3]] for result in results)
    assert Lookup.made == 1


def test_what_the_constructor_raises_names_the_node_at_the_call() -> None:
    with fhe_core.registered(impls=[("Lookup", Lookup, OWN)]):
        net = NumpyModule(_model("keys = [1.0], values = [5.0, 6.0]"))
        with pytest.raises(ModelError, match="as many keys") as caught:
            net(X)
    assert caught.value.where.op == "Lookup"


def test_its_quantized_form_runs_as_that_of_a_function() -> None:
    x = np.random.default_rng(0).integers(0, 4, (50, 3)).astype(np.float32)
    with fhe_core.registered(impls=[("Lookup", Lookup, OWN)], quantized=[(QuantizedLookup, OWN)]):
        exact = NumpyModule(MODEL)(x)
        np.testing.assert_allclose(
            fhe_core.quantize(MODEL, x, n_bits=6).forward(x), exact, atol=0.1
        )


def test_a_quantized_form_may_have_one_of_its_own() -> None:
    class Own(QuantizedLookup):
        impl = Lookup

    with fhe_core.registered(quantized=[(Own, OWN)]) as registry:
        assert registry.resolve("Lookup", "own", opset=1).impl == as_function(Lookup)
        assert NumpyModule(MODEL)(X).tolist() == [[5, 6, 3]]


class Silent:
    def __init__(self, *, keys: Any) -> None: ...


class Swapped:
    def __init__(self, keys: Any) -> None: ...
    def __call__(self, x: Any, /) -> Any: ...


class Late:
    def __call__(self, x: Any, /, *, keys: Any) -> Any: ...


@pytest.mark.parametrize(
    ("cls", "named"),
    [
        (Silent, "Silent cannot be called"),
        (Swapped, "'keys' of .*__init__"),
        (Late, "'keys' of .*__call__"),
    ],
)
def test_inputs_and_attributes_in_the_wrong_method_are_named(cls: type, named: str) -> None:
    with (
        pytest.raises(SignatureError, match=named),
        fhe_core.registered(impls=[("Lookup", cls, OWN)]),
    ):
        pass
