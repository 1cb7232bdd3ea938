"""Whatever is given for an argument, the answer is a result or a typed error of one line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fhe_core
from fhe_core import (
    ArtifactError,
    CalibrationError,
    FheError,
    InputError,
    NumpyModule,
    PackError,
    PlanError,
    UnsupportedOpError,
)

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
MASKED = np.ma.masked_array(X, mask=True)
ODD = (
    None,
    True,
    -1,
    5,
    2**70,
    1.5,
    np.nan,
    "",
    "a\0b",
    b"x",
    (),
    [],
    [1],
    {},
    {1: 2},
    object(),
    len,
    X,
    MASKED,
    np.array(5),
)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 4))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def refuse(act: Callable[[], Any], kind: type[FheError]) -> None:
    with pytest.raises(kind) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("seed", [-1, 1.5, "7", None, True, X])
def test_a_seed_is_a_whole_number_from_0(seed: Any, model: Any) -> None:
    refuse(lambda: fhe_core.quantize(model, X, seed=seed), PlanError)
    module = fhe_core.quantize(model, X, n_bits=3)
    refuse(lambda: module.forward(X, seed=seed), InputError)
    refuse(lambda: module.forward(X, fhe="simulate", seed=seed), InputError)


def test_a_seed_may_be_numpys(model: Any) -> None:
    fhe_core.quantize(model, X, seed=np.int64(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [True, 5, b"x", [1], "nobody", []])
def test_encrypted_names_inputs(given: Any, model: Any) -> None:
    refuse(lambda: fhe_core.quantize(model, X, encrypted=given), InputError)


@pytest.mark.parametrize("given", [5, "std", len, fhe_core.get_registry])
def test_a_registry_is_a_registry(given: Any, model: Any) -> None:
    refuse(lambda: fhe_core.quantize(model, X, registry=given), PackError)
    refuse(lambda: fhe_core.check(model, registry=given), PackError)
    refuse(lambda: NumpyModule(model, registry=given), PackError)


@pytest.mark.parametrize("given", [5, X, "x" * 3, None, [1]])
def test_a_choice_is_one_of_its_words(given: Any, model: Any) -> None:
    refuse(lambda: fhe_core.quantize(model, X, client_side=given), PlanError)
    module = fhe_core.quantize(model, X, n_bits=3)
    refuse(lambda: module.forward(X, fhe=given), InputError)
    refuse(lambda: module.forward(X, out_of_range=given), InputError)


def test_run_takes_a_dict_and_names(model: Any) -> None:
    net = NumpyModule(model)
    for feeds in (X, 5, [X], None, {1: X}):
        refuse(lambda feeds=feeds: net.run(feeds), InputError)
    for fetch in (5, [1], {"x": 1, 2: 3}, [X], "nobody"):
        refuse(lambda fetch=fetch: net.run({"x": X}, fetch=fetch), InputError)
    assert list(net.run({"x": X}, fetch="x")) == ["x"]


def test_masked_values_are_not_computed_with(model: Any) -> None:
    """What lies beneath a mask is not data."""
    module = fhe_core.quantize(model, X, n_bits=3)
    some = np.ma.masked_array(X, mask=X > 0)
    for masked in (MASKED, some, [some[0], some[1]], np.ma.masked_array(X)):
        refuse(lambda x=masked: NumpyModule(model)(x), InputError)
        refuse(lambda x=masked: module.forward(x), InputError)
        refuse(lambda x=masked: fhe_core.quantize(model, x), CalibrationError)
        refuse(lambda x=masked: fhe_core.quantize(model, {"x": x}), CalibrationError)
    NumpyModule(model)(some.filled(0))


@pytest.mark.parametrize("path", [5, None, "a\0b", b"x", ["x"], X])
def test_a_path_is_a_path(path: Any, model: Any) -> None:
    module = fhe_core.quantize(model, X, n_bits=3)
    for act in (module.save, fhe_core.load, fhe_core.load_client, fhe_core.load_server):
        refuse(lambda act=act: act(path), ArtifactError)


def test_a_name_that_is_too_long_for_a_folder_is_told(model: Any, tmp_path: Path) -> None:
    module = fhe_core.quantize(model, X, n_bits=3)
    refuse(lambda: module.save(tmp_path / ("x" * 300)), ArtifactError)


@pytest.mark.parametrize("prefer", [5, "std", ["Conv"], {"Conv": 5}, {5: "std"}])
def test_a_preference_maps_names_to_names(prefer: Any) -> None:
    refuse(lambda: fhe_core.get_registry(prefer=prefer), PackError)


@pytest.mark.parametrize("odd", [5, None, X, [], {}], ids=type)
def test_a_registry_is_asked_by_names(odd: Any) -> None:
    registry = fhe_core.get_registry()
    refuse(lambda: registry.resolve(odd, opset=17), UnsupportedOpError)
    refuse(lambda: registry.resolve("Relu", odd, opset=17), UnsupportedOpError)
    refuse(lambda: registry.resolve("Relu", opset=str(odd)), UnsupportedOpError)  # type: ignore[arg-type]
    if odd is not None:
        refuse(lambda: registry.ops(odd), PackError)
        refuse(lambda: registry.ops(pack=odd), PackError)
    assert registry.resolve("Relu", opset=np.int64(17)).op_type == "Relu"  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", ODD, ids=[f"{number}" for number in range(len(ODD))])
def test_nothing_else_is_raised_whatever_is_given(
    odd: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("encrypted", "client_side", "seed", "registry", "n_bits", "rounding", "p_error")
    names += ("rounding_method", "ranges", "savings", "overflow", "max_bytes")
    acts: list[Callable[[], Any]] = [
        *(lambda name=name: fhe_core.quantize(model, X, **{name: odd}) for name in names),
        lambda: fhe_core.quantize(model, odd),
        lambda: fhe_core.quantize(odd, X),
        lambda: fhe_core.check(odd),
        lambda: NumpyModule(odd),
        lambda: NumpyModule(model)(odd),
        lambda: NumpyModule(model)(x=odd),
    ]  # fmt: skip
    for act in acts:
        with contextlib.suppress(FheError):
            act()
