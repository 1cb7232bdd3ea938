"""The work that a model takes grows with its nodes, not with their square."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fhe_core

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def _unary(i: int) -> Any:
    op = ("Relu", "Sigmoid", "Tanh", "Neg")[i % 4]
    return helper.make_node(op, [f"t{i}"], [f"t{i + 1}"])


def _layers(i: int) -> Any:
    if i % 2:
        return helper.make_node("MatMul", [f"t{i}", "w"], [f"t{i + 1}"])
    return helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"])


def _residual(i: int) -> Any:
    if i % 2:
        return helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"])
    return helper.make_node("Add", [f"t{i}", "t0"], [f"t{i + 1}"])


def _constant(i: int) -> Any:
    return helper.make_node("Add", [f"t{i}" if i else "b", "b"], [f"t{i + 1}"])


def model_of(node: Callable[[int], Any], nodes: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [*map(node, range(nodes)), helper.make_node("Add", ["t0", f"t{nodes}"], ["y"])],
        "net",
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT, ("N", 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 4))],
        [
            numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"),
            numpy_helper.from_array(np.ones(4, np.float32), "b"),
        ],
    )
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def calls(act: Callable[[], Any]) -> int:
    """How many Python functions it calls: unlike its time, the same on each machine."""
    profile = cProfile.Profile()
    profile.runcall(act)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


@pytest.mark.parametrize("node", [_unary, _layers, _residual, _constant])
def test_four_times_the_nodes_are_four_times_the_work(node: Callable[[int], Any]) -> None:
    few, many = model_of(node, 30), model_of(node, 120)
    for act in (
        lambda model: fhe_core.NumpyModule(model)(X),
        fhe_core.check,
        lambda model: fhe_core.quantize(model, X),
    ):
        act(few)  # what is loaded or cached once is not counted
        assert calls(lambda act=act: act(many)) < 4.5 * calls(lambda act=act: act(few))
