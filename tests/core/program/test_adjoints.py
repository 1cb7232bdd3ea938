"""Every operation of integer programs has its adjoint: <f(x) - f(0), g> = <x, f*(g)>, exactly on integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from fhe_core.program.adjoints import WEIGHTED, operand_gradients, weight_gradient
from fhe_core.program.nodes import BATCH
from fhe_core.program.rules import RULES

Case = tuple[str, Sequence[tuple[int, ...]], Mapping[str, Any]]

N = 3


def integers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).integers(-5, 6, shape).astype(np.float64)


def conv(*weights: int, strides: Any = (1, 1), dilations: Any = (1, 1), group: int = 1) -> Any:
    kernel = integers(*weights)
    return {"weights": kernel, "strides": strides, "dilations": dilations, "group": group}


CASES: dict[str, Case] = {
    "add": ("add", [(N, 4, 5), (N, 1, 5)], {}),
    "add, one without batch": ("add", [(N, 4), (1, 4)], {}),
    "subtract": ("subtract", [(N, 4, 5), (N, 4, 1)], {}),
    "negative": ("negative", [(N, 4)], {}),
    "shift": ("shift", [(N, 4)], {"offset": integers(4)}),
    "shift that stretches": ("shift", [(N, 1)], {"offset": integers(1, 4)}),
    "scale": ("scale", [(N, 4)], {"factor": integers(4)}),
    "matmul": ("matmul", [(N, 4)], {"weights": integers(4, 5), "left": False}),
    "matmul of rows": ("matmul", [(N, 2, 4)], {"weights": integers(4, 5), "left": False}),
    "matmul batched": ("matmul", [(N, 2, 3, 4)], {"weights": integers(2, 4, 5), "left": False}),
    "matmul, vector": ("matmul", [(N, 2, 4)], {"weights": integers(4), "left": False}),
    "matmul from the left": ("matmul", [(N, 4, 5)], {"weights": integers(2, 4), "left": True}),
    "vector from the left": ("matmul", [(N, 4, 5)], {"weights": integers(4), "left": True}),
    "conv": ("conv", [(N, 4, 6, 7)], conv(3, 4, 3, 2)),
    "conv, strides and dilations": (
        "conv",
        [(N, 4, 9, 8)],
        conv(3, 4, 2, 3, strides=(3, 2), dilations=(2, 1)),
    ),
    "conv, groups": ("conv", [(N, 4, 5, 5)], conv(6, 2, 3, 3, group=2)),
    "conv, depthwise": ("conv", [(N, 4, 5, 5)], conv(8, 1, 3, 3, group=4, strides=(2, 2))),
    "sum": ("sum", [(N, 4, 5)], {"axes": (1,), "keepdims": False}),
    "sum, kept": ("sum", [(N, 4, 5)], {"axes": (1, 2), "keepdims": True}),
    "reshape": ("reshape", [(N, 4, 5)], {"target": (BATCH, 20)}),
    "transpose": ("transpose", [(N, 4, 5)], {"axes": (0, 2, 1)}),
    "broadcast": ("broadcast", [(N, 1, 5)], {"target": (BATCH, 4, 5)}),
    "index": ("index", [(N, 4, 5)], {"key": (slice(None), slice(3, None, -2), 1)}),
    "index, repeated": ("index", [(N, 4)], {"key": (slice(None), np.array([1, 1, 3]))}),
    "take": ("take", [(N, 4, 5)], {"indices": np.array([[2, 0], [2, 2]]), "axis": 1}),
    "take from the end": ("take", [(N, 4)], {"indices": np.array([2, 2]), "axis": -1}),
    "concatenate": ("concatenate", [(N, 4), (N, 2), (N, 3)], {"axis": 1}),
    "pad": (
        "pad",
        [(N, 4, 5)],
        {"widths": ((0, 0), (1, 2), (0, 3)), "value": np.asarray(7.0)},
    ),
}


def test_no_operation_is_left_out() -> None:
    assert {op for op, _, _ in CASES.values()} == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_the_adjoint_carries_gradients_to_the_operands(name: str) -> None:
    op, shapes, attributes = CASES[name]
    operands = [integers(*shape, seed=i + 1) for i, shape in enumerate(shapes)]
    evaluate = RULES[op].evaluate
    constant = evaluate([np.zeros_like(x) for x in operands], attributes, N)
    linear = evaluate(operands, attributes, N) - constant
    gradient = integers(*linear.shape, seed=99)
    back = operand_gradients(op, gradient, operands, attributes)
    assert [part.shape for part in back] == [x.shape for x in operands]
    inner = sum(float((x * part).sum()) for x, part in zip(operands, back, strict=True))
    assert inner == float((linear * gradient).sum())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[0] in WEIGHTED])
def test_products_have_an_adjoint_for_their_weights_too(name: str) -> None:
    op, (shape,), attributes = CASES[name]
    operand, other = integers(*shape, seed=1), integers(*attributes["weights"].shape, seed=5)
    result = RULES[op].evaluate([operand], {**attributes, "weights": other}, N)
    gradient = integers(*result.shape, seed=99)
    found = weight_gradient(op, gradient, operand, attributes)
    assert found.shape == other.shape
    assert float((found * other).sum()) == float((gradient * result).sum())
