"""Nets over sequences: attention, and recurrent cells unrolled over three steps.

They multiply encrypted values by encrypted ones: queries by keys, gates by states.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.core.quantization.building import model, normal

STEPS, FEATURES, STATE = 3, 4, 4
WORDS, WIDTH = 4, 6


def matrix(*shape: int, seed: int) -> Any:
    """Of the size that keeps the variance of what it is multiplied by."""
    return normal(*shape, seed=seed) / np.float32(np.sqrt(shape[0]))


def attention(opset: int, *, weighing: str = "Softmax") -> onnx.ModelProto:
    """One head over four words, the residual path around it, a layer normalization, a wide layer.

    Args:
        weighing: what makes weights of the scores: Softmax over the words, or Sigmoid of each.
    """
    axis = "<axis = -1>" if weighing == "Softmax" else ""
    nodes = f"""
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        kt = Transpose <perm = [0, 2, 1]> (k)
        products = MatMul(q, kt)
        scores = Mul(products, root)
        shares = {weighing} {axis} (scores)
        heads = MatMul(shares, v)
        mixed = MatMul(heads, wo)
        sum = Add(x, mixed)
        normed = LayerNormalization(sum, gain, offset)
        wide = MatMul(normed, w1)
        active = Relu(wide)
        y = MatMul(active, w2)
    """
    constants = {
        **{f"w{name}": matrix(WIDTH, WIDTH, seed=i) for i, name in enumerate("qkvo", 1)},
        "root": np.float32(1 / np.sqrt(WIDTH)),
        "gain": np.linspace(0.5, 1.5, WIDTH, dtype=np.float32),
        "offset": normal(WIDTH, seed=5) / 4,
        "w1": matrix(WIDTH, 8, seed=6),
        "w2": matrix(8, 3, seed=7),
    }
    return model(nodes, {"x": ("N", WORDS, WIDTH)}, "y", constants, opset=opset)


def split(names: str, source: str, axis: int, opset: int) -> str:
    """A Split into equal parts, as each opset spells it."""
    count, size = len(names.split(",")), STATE if axis == 1 and source != "x" else 1
    if opset < 13:
        return f"{names} = Split <axis = {axis}, split = {[size] * count}> ({source})"
    if opset < 18:
        return f"{names} = Split <axis = {axis}> ({source})"
    return f"{names} = Split <axis = {axis}, num_outputs = {count}> ({source})"


def steps(opset: int) -> list[str]:
    """Nodes that take the sequence x apart: x0, x1, ..., (N, features) each."""
    squeeze = "<axes = [1]> ({})" if opset < 13 else "({}, one)"
    parts = ", ".join(f"s{t}" for t in range(STEPS))
    return [
        split(parts, "x", 1, opset),
        *(f"x{t} = Squeeze {squeeze.format(f's{t}')}" for t in range(STEPS)),
    ]


def recurrent_model(nodes: list[str], states: str, gates: int, opset: int, **more: Any) -> Any:
    constants = {
        "w": matrix(FEATURES, gates * STATE, seed=1),
        "r": matrix(STATE, gates * STATE, seed=2),
        "b": normal(gates * STATE, seed=3) / 4,
        **({"one": np.array([1])} if opset >= 13 else {}),
        **more,
    }
    inputs = {"x": ("N", STEPS, FEATURES), **{f"{name}0": ("N", STATE) for name in states}}
    outputs = " ".join(f"{name}{STEPS}" for name in states)
    return model("\n".join(nodes), inputs, outputs, constants, opset=opset)


def lstm(opset: int) -> onnx.ModelProto:
    """An LSTM cell from the states h0 and c0 to h3 and c3 (Hochreiter and Schmidhuber, 1997)."""
    nodes = steps(opset)
    for t in range(STEPS):
        nodes += f"""
            a{t} = MatMul(x{t}, w)
            p{t} = MatMul(h{t}, r)
            q{t} = Add(a{t}, p{t})
            g{t} = Add(q{t}, b)
            {split(f"gi{t}, gf{t}, go{t}, gc{t}", f"g{t}", 1, opset)}
            i{t} = Sigmoid(gi{t})
            f{t} = Sigmoid(gf{t})
            o{t} = Sigmoid(go{t})
            n{t} = Tanh(gc{t})
            kept{t} = Mul(f{t}, c{t})
            new{t} = Mul(i{t}, n{t})
            c{t + 1} = Add(kept{t}, new{t})
            seen{t} = Tanh(c{t + 1})
            h{t + 1} = Mul(o{t}, seen{t})
        """.splitlines()
    return recurrent_model(nodes, "hc", 4, opset)


def gru(opset: int) -> onnx.ModelProto:
    """A GRU cell from the state h0 to h3 (Cho et al., 2014), its reset gate before the product."""
    nodes = steps(opset)
    for t in range(STEPS):
        nodes += f"""
            a{t} = MatMul(x{t}, w)
            e{t} = Add(a{t}, b)
            {split(f"xz{t}, xr{t}, xn{t}", f"e{t}", 1, opset)}
            pz{t} = MatMul(h{t}, rz)
            pr{t} = MatMul(h{t}, rr)
            gz{t} = Add(xz{t}, pz{t})
            gr{t} = Add(xr{t}, pr{t})
            z{t} = Sigmoid(gz{t})
            k{t} = Sigmoid(gr{t})
            kh{t} = Mul(k{t}, h{t})
            pn{t} = MatMul(kh{t}, rn)
            gn{t} = Add(xn{t}, pn{t})
            n{t} = Tanh(gn{t})
            d{t} = Sub(h{t}, n{t})
            zd{t} = Mul(z{t}, d{t})
            h{t + 1} = Add(n{t}, zd{t})
        """.splitlines()
    blocks = {f"r{name}": matrix(STATE, STATE, seed=i) for i, name in enumerate("zrn", 4)}
    return recurrent_model(nodes, "h", 3, opset, **blocks)
