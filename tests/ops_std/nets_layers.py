"""Nets of layers: multilayer and convolutional ones, straight, residual and branched.

Weights are seeded, of the size that keeps a signal's size from layer to layer (He et al., "Delving deep
into rectifiers", 2015). Names of tensors say what they are: tests look them up in plans.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.core.quantization.building import model, normal

IMAGE = ("N", 2, 6, 6)


def weights(*shape: int, seed: int) -> Any:
    """He-normal: a matrix (inputs, outputs) or filters (outputs, inputs, ...)."""
    terms = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
    return normal(*shape, seed=seed) * np.float32(np.sqrt(2 / terms))


def statistics(name: str, channels: int, *, seed: int) -> dict[str, Any]:
    """Scale, offset, mean and variance of a BatchNormalization, as a trained one has them."""
    rng = np.random.default_rng(seed)
    drawn = {
        "scale": rng.uniform(0.5, 1.5, channels),
        "offset": rng.uniform(-0.5, 0.5, channels),
        "mean": rng.uniform(-0.5, 0.5, channels),
        "variance": rng.uniform(0.5, 2.0, channels),
    }
    return {f"{name}_{part}": values.astype(np.float32) for part, values in drawn.items()}


def mlp(opset: int) -> onnx.ModelProto:
    """Three layers, and two outputs: scores, and their softmax."""
    nodes = """
        h = Gemm(x, w1, b1)
        a = Tanh(h)
        g = MatMul(a, w2)
        i = Add(g, b2)
        r = Relu(i)
        scores = Gemm <transB = 1> (r, w3, b3)
        y = Softmax <axis = 1> (scores)
    """
    constants = {
        "w1": weights(8, 12, seed=1),
        "b1": normal(12, seed=2) / 4,
        "w2": weights(12, 10, seed=3),
        "b2": normal(10, seed=4) / 4,
        "w3": weights(10, 3, seed=5).T.copy(),
        "b3": normal(3, seed=6) / 4,
    }
    return model(nodes, {"x": ("N", 8)}, "y scores", constants, opset=opset)


def cnn(opset: int) -> onnx.ModelProto:
    """Two convolutions with batch normalization, a pooling after each."""
    nodes = """
        c = Conv <pads = [1, 1, 1, 1]> (x, k1)
        n = BatchNormalization(c, n_scale, n_offset, n_mean, n_variance)
        r = Relu(n)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        d = Conv(p, k2, b2)
        m = BatchNormalization(d, m_scale, m_offset, m_mean, m_variance)
        s = Relu(m)
        q = GlobalAveragePool(s)
        f = Flatten(q)
        y = Gemm(f, w, b)
    """
    constants = {
        "k1": weights(4, 2, 3, 3, seed=1),
        "k2": weights(6, 4, 2, 2, seed=2),
        "b2": normal(6, seed=3) / 4,
        "w": weights(6, 3, seed=4),
        "b": normal(3, seed=5) / 4,
        **statistics("n", 4, seed=6),
        **statistics("m", 6, seed=7),
    }
    return model(nodes, {"x": IMAGE}, "y", constants, opset=opset)


def separable(opset: int) -> onnx.ModelProto:
    """A convolution of points, one of each channel by itself, one of points again: each up to 6."""
    limits = "<min = 0.0, max = 6.0> ({0})" if opset < 11 else "({0}, zero, six)"
    mean = "<axes = [2, 3], keepdims = 0> (t)" if opset < 18 else "<keepdims = 0> (t, places)"
    nodes = f"""
        c = Conv(x, k1)
        n = BatchNormalization(c, n_scale, n_offset, n_mean, n_variance)
        r = Clip {limits.format("n")}
        d = Conv <group = 6, pads = [1, 1, 1, 1], strides = [2, 2]> (r, k2)
        m = BatchNormalization(d, m_scale, m_offset, m_mean, m_variance)
        s = Clip {limits.format("m")}
        e = Conv(s, k3, b3)
        t = Clip {limits.format("e")}
        q = ReduceMean {mean}
        y = MatMul(q, w)
    """
    constants = {
        "k1": weights(6, 2, 1, 1, seed=1),
        "k2": weights(6, 1, 3, 3, seed=2),
        "k3": weights(8, 6, 1, 1, seed=3),
        "b3": normal(8, seed=4) / 4,
        "w": weights(8, 3, seed=5),
        "zero": np.float32(0),
        "six": np.float32(6),
        "places": np.array([2, 3]),
        **statistics("n", 6, seed=6),
        **statistics("m", 6, seed=7),
    }
    return model(nodes, {"x": IMAGE}, "y", constants, opset=opset)


def residual(opset: int) -> onnx.ModelProto:
    """Two blocks around which the signal goes: as it is, and through a convolution of its own."""
    nodes = """
        stem = Conv <pads = [1, 1, 1, 1]> (x, k0, b0)
        r0 = Relu(stem)
        c1 = Conv <pads = [1, 1, 1, 1]> (r0, k1, b1)
        r1 = Relu(c1)
        c2 = Conv <pads = [1, 1, 1, 1]> (r1, k2)
        n2 = BatchNormalization(c2, n_scale, n_offset, n_mean, n_variance)
        a2 = Add(n2, r0)
        r2 = Relu(a2)
        c3 = Conv <strides = [2, 2]> (r2, k3, b3)
        c4 = Conv <strides = [2, 2]> (r2, k4)
        a4 = Add(c3, c4)
        r4 = Relu(a4)
        f = Flatten(r4)
        y = MatMul(f, w)
    """
    constants = {
        "k0": weights(4, 2, 3, 3, seed=1),
        "b0": normal(4, seed=2) / 4,
        "k1": weights(4, 4, 3, 3, seed=3),
        "b1": normal(4, seed=4) / 4,
        "k2": weights(4, 4, 3, 3, seed=5),
        "k3": weights(4, 4, 2, 2, seed=6),
        "b3": normal(4, seed=7) / 4,
        "k4": weights(4, 4, 1, 1, seed=8),
        "w": weights(36, 3, seed=9),
        **statistics("n", 4, seed=10),
    }
    return model(nodes, {"x": IMAGE}, "y", constants, opset=opset)


def branches(opset: int) -> onnx.ModelProto:
    """Two convolutions of different reach, joined along their channels, as Inception has them."""
    nodes = """
        c = Conv <pads = [1, 1, 1, 1]> (x, k1, b1)
        r = Relu(c)
        d = Conv(x, k2)
        s = Sigmoid(d)
        j = Concat <axis = 1> (r, s)
        e = Conv <strides = [2, 2]> (j, k3, b3)
        t = LeakyRelu <alpha = 0.1> (e)
        f = Flatten(t)
        y = MatMul(f, w)
    """
    constants = {
        "k1": weights(3, 2, 3, 3, seed=1),
        "b1": normal(3, seed=2) / 4,
        "k2": weights(3, 2, 1, 1, seed=3),
        "k3": weights(4, 6, 2, 2, seed=4),
        "b3": normal(4, seed=5) / 4,
        "w": weights(36, 3, seed=6),
    }
    return model(nodes, {"x": IMAGE}, "y", constants, opset=opset)
