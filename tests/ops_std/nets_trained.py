"""A residual net that was trained for integers, in the two forms in which such nets are written.

All scales are powers of two and all sums stay below 2^24 of their steps, so that floats hold every number
of it exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.core.quantization.building import model

QONNX = "qonnx.custom_op.general"
#: Step and zero point of each quantized activation, the two that the addition joins among them. The points are
#: even: QONNX adds them before it rounds, ONNX after it, and both round ties to even.
STEPS = {"x": (1 / 8, 4), "r": (1 / 4, 0), "c": (1 / 8, -6), "s": (1 / 2, 0)}
WEIGHT_STEPS = {"k1": 1 / 8, "k2": 1 / 16, "w": 1 / 8}
SHAPES = {"k1": (3, 2, 2, 2), "k2": (3, 3, 1, 1), "w": (27, 3)}

BODY = """
    c1 = Conv({xq}, {k1q})
    r = Relu(c1)
    c = Conv({rq}, {k2q})
    a = Add({cq}, {rq})
    s = Relu(a)
    f = Flatten({sq})
    y = MatMul(f, {wq})
"""


def integers(name: str) -> Any:
    """The seeded weights, as integers of four bits."""
    seed = list(SHAPES).index(name)
    return np.random.default_rng(seed).integers(-7, 8, SHAPES[name]).astype(np.int8)


def qdq(opset: int) -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear around activations, DequantizeLinear on weights."""
    before = {name: f"{name}q = DequantizeLinear({name}, {name}_step)" for name in SHAPES}
    constants: dict[str, Any] = {}
    for name, (step, zero) in STEPS.items():
        constants |= {f"{name}_step": np.float32(step), f"{name}_zero": np.int8(zero)}
        before[name] = (
            f"{name}i = QuantizeLinear({name}, {name}_step, {name}_zero)\n"
            f"{name}q = DequantizeLinear({name}i, {name}_step, {name}_zero)"
        )
    for name, step in WEIGHT_STEPS.items():
        constants |= {f"{name}_step": np.float32(step), name: integers(name)}
    return model(_nodes(before), {"x": ("N", 2, 4, 4)}, "y", constants, opset=opset)


def quant(opset: int) -> onnx.ModelProto:
    """``Quant`` nodes of QONNX, which take and give real numbers."""
    constants: dict[str, Any] = {
        "none": np.float32(0),
        "eight": np.float32(8),
        "four": np.float32(4),
    }
    before = {}
    for name, (step, zero) in STEPS.items():
        constants |= {f"{name}_step": np.float32(step), f"{name}_zero": np.float32(zero)}
        before[name] = f"{name}q = {QONNX}.Quant({name}, {name}_step, {name}_zero, eight)"
    for name, step in WEIGHT_STEPS.items():
        real = (integers(name) * step).astype(np.float32)
        constants |= {f"{name}_step": np.float32(step), name: real}
        before[name] = f"{name}q = {QONNX}.Quant({name}, {name}_step, none, four)"
    nodes = _nodes(before)
    domains = {QONNX: 1}
    inputs = {"x": ("N", 2, 4, 4)}
    return model(nodes, inputs, "y", constants, opset=opset, domains=domains)


def _nodes(before: dict[str, str]) -> str:
    """The body, each quantization in front of its first use."""
    lines = []
    for line in BODY.strip().splitlines():
        first = [name for name in before if f"{{{name}q}}" in line]
        lines += [before.pop(name) for name in first]
        lines.append(line.replace("{", "").replace("}", ""))
    return "\n".join(lines)
