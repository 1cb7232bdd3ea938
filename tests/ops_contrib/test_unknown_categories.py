"""A category that calibration did not see is never the nearest known one, where the client encodes it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

import fhe_core
from fhe_core import CompilationError, InputError

RNG = np.random.default_rng(0)
SEEN = RNG.integers(0, 3, (200, 1))
ANY = np.arange(-2, 9)[:, None]
WEIGHTS = "float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}, int64[2] s = {-1, 4}"


def parsed(nodes: str, inputs: str = "int64[N, 1] x", constants: str = WEIGHTS) -> Any:
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>'
        f"agraph ({inputs}) => (float[N, 2] y) <{constants}> {{ {nodes} }}"
    )


def agrees(model: Any, seen: Any, given: Any, share: float = 0.01) -> Any:
    """The module, after comparing it with the float model where inputs are as ``given``, without a warning."""
    module = fhe_core.quantize(model, seen, n_bits=8, overflow="guaranteed")
    exact = fhe_core.NumpyModule(model)(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = module.forward(given)
    np.testing.assert_allclose(got, exact, atol=share * np.abs(exact).max())
    return module


ENCODERS = {
    "one-hot": "h = ai.onnx.ml.OneHotEncoder <cats_int64s = [0, 1, 2, 3]> (x) r = Reshape(h, s)",
    "one-hot of onnx": "h = OneHot(x, d, v) r = Reshape(h, s)",
    "labels": "l = ai.onnx.ml.LabelEncoder <keys_int64s = [0, 1, 2, 5], values_floats = "
    "[0.5, 1.5, -2.5, 4.0], default_float = -1.0> (x) r = Mul(l, k)",
    "equality": "e = Equal(x, n) r = Cast <to = 1> (e)",
    "bins": "e = Greater(x, n) r = Cast <to = 1> (e)",
    "after arithmetic": "m = Mod(x, four) e = Equal(m, n) r = Cast <to = 1> (e)",
    "a choice": "e = Equal(x, n) r = Where(e, up, down)",
    "remainders": "m = Mod(x, n4) r = Cast <to = 1> (m)",
}
CONSTANTS = (
    WEIGHTS + ", int64[1] d = {4}, float[2] v = {0, 1}, float[4] k = {1, 2, 3, 4}, "
    "int64[4] n = {0, 1, 2, 3}, int64[4] n4 = {2, 3, 4, 5}, int64 four = {4}, "
    "float up = {2}, float down = {-1}"
)


@pytest.mark.parametrize("nodes", ENCODERS.values(), ids=ENCODERS)
def test_unknown_integers_are_unknown(nodes: str) -> None:
    module = agrees(parsed(f"{nodes} y = MatMul(r, w)", constants=CONSTANTS), SEEN, ANY)
    assert module.input_ranges == {}


def test_so_are_categories_that_floats_hold() -> None:
    nodes = f"x = Cast <to = 7> (given) {ENCODERS['one-hot']} y = MatMul(r, w)"
    model = parsed(nodes, "float[N, 1] given")
    agrees(model, SEEN.astype(np.float32), ANY.astype(np.float32))


MIXED = """
    a = ai.onnx.ml.ArrayFeatureExtractor(x, first)
    h = ai.onnx.ml.OneHotEncoder <cats_int64s = [0, 1, 2, 3]> (a)
    r = Reshape(h, s)
    b = ai.onnx.ml.ArrayFeatureExtractor(x, second)
    c = ai.onnx.ml.Scaler <offset = [1.0], scale = [2.0]> (b)
    d = Concat <axis = 1> (r, c)
    y = MatMul(d, w)
"""
MIXED_CONSTANTS = (
    "float[5, 2] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, int64[2] s = {-1, 4}, "
    "int64[1] first = {0}, int64[1] second = {1}"
)


def mixed(categories: Any, seed: int) -> Any:
    numbers = np.random.default_rng(seed).uniform(-2, 2, (len(categories), 1))
    return np.concatenate([categories, numbers], axis=1).astype(np.float32)


def test_of_an_input_with_categories_and_numbers_only_the_numbers_are_confined(
    tmp_path: Path,
) -> None:
    model = parsed(MIXED, "float[N, 2] x", MIXED_CONSTANTS)
    seen, given = mixed(SEEN, 0), mixed(ANY, 1) * 0.9
    given[:, 0] = ANY[:, 0]
    module = agrees(model, seen, given)
    low, high = module.input_ranges["x"]
    assert (low, high) == (seen[:, 1].min(), seen[:, 1].max())
    given[3, 1] = 7
    with pytest.raises(InputError, match=r"4\.55%"):
        module.forward(given, out_of_range="raise")
    # What is saved knows it too.
    module.save(tmp_path / "model")
    loaded = fhe_core.load(tmp_path / "model")
    with pytest.warns(UserWarning, match="saturate"):
        first, again = module.forward(given), loaded.forward(given)
    np.testing.assert_array_equal(first, again)


EMBEDDING = "h = Gather <axis = 0> (t, x) r = Reshape(h, s) y = MatMul(r, w)"
TABLE = "float[6, 4] t = {" + ", ".join(map(str, range(24))) + "}, " + WEIGHTS


@pytest.mark.parametrize("client_side", ["any", "minimal"])
def test_an_embedding_is_looked_up_by_the_client_or_encrypted(client_side: str) -> None:
    model = parsed(EMBEDDING, constants=TABLE)
    seen = SEEN if client_side == "any" else RNG.integers(-6, 6, (200, 1))
    module = fhe_core.quantize(
        model, seen, n_bits=8, client_side=client_side, overflow="guaranteed"
    )
    given = np.arange(-6, 6)[:, None]
    exact = fhe_core.NumpyModule(model)(given)
    np.testing.assert_allclose(module.forward(given), exact, atol=0.01 * exact.max())
    assert (len(module.program.lookups) == 0) == (client_side == "any")


def test_an_index_beyond_the_table_is_refused() -> None:
    module = fhe_core.quantize(parsed(EMBEDDING, constants=TABLE), SEEN, n_bits=8)
    with pytest.raises(InputError, match="index beyond its table"):
        module.forward(np.array([[6]]))


def test_numbers_that_are_measured_too_are_confined() -> None:
    """An input that something compares and something else measures saturates as a whole."""
    nodes = (
        f"{ENCODERS['equality']} f = Cast <to = 1> (x) g = Mul(f, k) b = Add(r, g) y = MatMul(b, w)"
    )
    module = fhe_core.quantize(parsed(nodes, constants=CONSTANTS), SEEN, n_bits=8)
    with pytest.warns(UserWarning, match="saturate"):
        module.forward(ANY)


def test_an_input_of_text_is_named_as_such_with_the_encoder_that_numbers_it() -> None:
    model = parsed(
        'h = ai.onnx.ml.OneHotEncoder <cats_strings = ["a", "b", "c", "d"]> (x) r = Reshape(h, s) '
        "y = MatMul(r, w)",
        "string[N, 1] x",
    )
    (problem,) = fhe_core.check(model).problems
    assert "'x' is text[N, 1]" in problem.reason
    assert "'h' (OneHotEncoder)" in (problem.fix or "")
    with pytest.raises(CompilationError, match="umber the categories"):
        fhe_core.quantize(model, np.array([["a"], ["b"]], object))
