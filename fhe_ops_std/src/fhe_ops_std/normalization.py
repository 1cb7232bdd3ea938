"""Normalizations: shift and scale by statistics, given or measured on the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fhe_core import UnsupportedOpError, Where
from fhe_ops_std._domains import Flag

from ._axes import counted
from ._precision import precise, rounded

Array = NDArray[Any]


def batch_normalization_6(
    x: Array,
    scale: Array,
    b: Array,
    mean: Array,
    var: Array,
    /,
    *,
    epsilon: float = 1e-5,
    is_test: Flag = 0,
    momentum: float = 0.9,
    spatial: Flag = 1,
) -> Array:
    """scale·(x - mean)/√(var + epsilon) + b for each channel of x: (N, C, ...), or each element
    of a sample unless ``spatial``. Inference (``is_test=1``) only."""
    if not is_test:
        raise UnsupportedOpError(
            "batch normalization in training mode changes its own statistics",
            where=Where(op="BatchNormalization", opset=6),
            expected="is_test=1",
            got="is_test=0",
            fix="export the model for inference",
        )
    return batch_normalization_7(x, scale, b, mean, var, epsilon=epsilon, spatial=spatial)


def batch_normalization_7(
    x: Array,
    scale: Array,
    b: Array,
    mean: Array,
    var: Array,
    /,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: Flag = 1,
) -> Array:
    """scale·(x - mean)/√(var + epsilon) + b for each channel of x: (N, C, ...), or each element
    of a sample unless ``spatial``."""
    if spatial:
        scale, b, mean, var = (_per_channel(v, x.ndim) for v in (scale, b, mean, var))
    return _standardized(x, mean, 1 / np.sqrt(var + epsilon), scale, b)


def batch_normalization_9(
    x: Array,
    scale: Array,
    b: Array,
    mean: Array,
    var: Array,
    /,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
) -> Array:
    """scale·(x - mean)/√(var + epsilon) + b for each channel of x: (N, C, ...)."""
    return batch_normalization_7(x, scale, b, mean, var, epsilon=epsilon)


def batch_normalization_14(
    x: Array,
    scale: Array,
    b: Array,
    input_mean: Array,
    input_var: Array,
    /,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: Flag = 0,
) -> Array | tuple[Array, Array, Array]:
    """scale·(x - mean)/√(var + epsilon) + b for each channel of x: (N, C, ...).

    In ``training_mode`` with the batch's own mean and variance, and the running ones, moved towards
    them by 1 - momentum, as second and third output.
    """
    if not training_mode:
        return batch_normalization_7(x, scale, b, input_mean, input_var, epsilon=epsilon)
    axes = (0, *range(2, x.ndim))
    precise = x.astype(np.promote_types(x.dtype, input_mean.dtype), copy=False)
    mean, var = precise.mean(axes), precise.var(axes)
    y = batch_normalization_7(x, scale, b, mean, var, epsilon=epsilon)
    running = (
        (momentum * old + (1 - momentum) * new).astype(old.dtype, copy=False)
        for old, new in ((input_mean, mean), (input_var, var))
    )
    return (y, *running)


def instance_normalization(
    input: Array,
    scale: Array,
    b: Array,
    /,
    *,
    epsilon: float = 1e-5,
) -> Array:
    """scale·(input - mean)/√(variance + epsilon) + b with the statistics of each sample's channel;
    input: (N, C, ...), scale and b: (C,)."""
    axes = tuple(range(2, input.ndim))
    mean, inverse = _statistics(input, axes, epsilon)
    scale, b = (_per_channel(v, input.ndim) for v in (scale, b))
    return _standardized(input, mean, inverse, scale, b)


def layer_normalization(
    x: Array,
    scale: Array,
    /,
    b: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[Array, Array, Array]:
    """scale·(x - mean)/√(variance + epsilon) + b over the axes from ``axis`` on; then the mean and
    1/√(variance + epsilon), with those axes kept as 1.

    The statistics, and the standardization, are in single precision (``stash_type`` 1), whatever
    the type of x; scale and b apply in x's own.
    """
    if stash_type != 1:
        raise UnsupportedOpError(
            "NumPy has no type for these statistics",
            where=Where(op="LayerNormalization"),
            expected="stash_type=1 (float)",
            got=f"stash_type={stash_type}",
            fix="export the model with stash_type=1",
        )
    stash = x.astype(np.float32, copy=False)
    mean, inverse = _statistics(stash, tuple(range(counted(axis, x.ndim), x.ndim)), epsilon)
    y = stash - mean
    y *= inverse
    y = y.astype(x.dtype, copy=False)
    y *= scale
    if b is not None:
        y += b
    return y, mean, inverse


def group_normalization(
    x: Array,
    scale: Array,
    bias: Array,
    /,
    *,
    epsilon: float = 1e-5,
    num_groups: int,
    stash_type: int = 1,
) -> Array:
    """scale·(x - mean)/√(variance + epsilon) + bias with the statistics of each sample's groups of
    channels; x: (N, C, ...), scale and bias: (C,).

    The first stage is in the precision that ``stash_type`` names, the second in x's own.
    """
    if x.ndim < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise ValueError(f"the channels of x: {x.shape} do not split into {num_groups} groups")
    groups = _stashed(x, stash_type).reshape(len(x), num_groups, -1)
    mean, inverse = _statistics(groups, (2,), epsilon)
    y = groups - mean
    y *= inverse
    y = precise(rounded(y.reshape(x.shape), x.dtype))
    y *= _per_channel(precise(scale), x.ndim)
    y += _per_channel(precise(bias), x.ndim)
    return rounded(y, x.dtype)


def rms_normalization(
    x: Array,
    scale: Array,
    /,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Array:
    """scale·x/√(mean of x² + epsilon) over the axes from ``axis`` on, in the scale's type.

    The root and the quotient are in the precision that ``stash_type`` names.
    """
    stash = _stashed(x, stash_type)
    axes = tuple(range(counted(axis, x.ndim), x.ndim))
    root = np.mean(np.square(stash), axis=axes, keepdims=True)
    root += epsilon
    y = precise(rounded(stash / np.sqrt(root, out=root), x.dtype))
    return rounded(y * precise(scale), scale.dtype)


def mean_variance_normalization(x: Array, /, *, axes: Sequence[int] = (0, 2, 3)) -> Array:
    """(x - mean)/(deviation + 1e-9) with the statistics over ``axes``; the term is that of the
    function in ONNX's schema, and makes a constant 0."""
    wide, over = precise(x), tuple(counted(axis, x.ndim) for axis in axes)
    y = wide - np.mean(wide, axis=over, keepdims=True)
    y /= np.std(wide, axis=over, keepdims=True) + 1e-9
    return rounded(y, x.dtype)


def lrn(
    x: Array,
    /,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    bias: float = 1.0,
    size: int,
) -> Array:
    """x / (bias + alpha/size · sum of the squares of ``size`` neighbouring channels)^beta;
    x: (N, C, ...)."""
    channels = x.shape[1]
    squares = np.square(x)
    total = np.zeros_like(squares)
    for shift in range(-((size - 1) // 2), size // 2 + 1):
        if abs(shift) < channels:
            total[:, max(-shift, 0) : channels - max(shift, 0)] += squares[
                :, max(shift, 0) : channels + min(shift, 0)
            ]
    total *= alpha / size
    total += bias
    return np.divide(x, np.power(total, beta, out=total), out=total)


def lp_normalization(input: Array, /, *, axis: int = -1, p: Literal[1, 2] = 2) -> Array:
    """input / its 1- or 2-norm along ``axis``, and 0 where that norm is 0."""
    if p == 1:
        norm = np.sum(np.abs(input), axis=axis, keepdims=True)
    else:
        norm = np.sqrt(np.sum(np.square(input), axis=axis, keepdims=True))
    some = norm != 0
    zero, one = input.dtype.type(0), norm.dtype.type(1)
    return np.where(some, input, zero) / np.where(some, norm, one)


def _per_channel(values: Array, ndim: int) -> Array:
    """The vector ``values``: (C,) shaped to broadcast along axis 1 of ``ndim`` axes."""
    return values.reshape(-1, *(1,) * (ndim - 2))


def _stashed(x: Array, stash_type: int) -> Array:
    """x in the precision of the type that TensorProto.DataType numbers: 1 (float) or 11 (double)."""
    if stash_type not in (1, 11):
        raise NotImplementedError(f"NumPy has no type for statistics of stash_type {stash_type}")
    return x.astype(np.float32 if stash_type == 1 else np.float64, copy=False)


def _statistics(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array]:
    """The mean and 1/√(variance + epsilon) over ``axes``, which stay as 1."""
    mean = np.mean(x, axis=axes, keepdims=True)
    inverse = np.var(x, axis=axes, keepdims=True)
    inverse += epsilon
    np.sqrt(inverse, out=inverse)
    return mean, np.reciprocal(inverse, out=inverse)


def _standardized(x: Array, mean: Array, inverse: Array, scale: Array, b: Array) -> Array:
    """scale·(x - mean)·inverse + b, in x's type.

    Not folded into one factor and one offset: that loses digits where |mean| ≫ deviation.
    """
    y = x - mean
    y *= inverse * scale
    y += b
    return y.astype(x.dtype, copy=False)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("BatchNormalization", 6, batch_normalization_6),
    ("BatchNormalization", 7, batch_normalization_7),
    ("BatchNormalization", 9, batch_normalization_9),
    ("BatchNormalization", 14, batch_normalization_14),
    ("InstanceNormalization", 6, instance_normalization),
    ("LayerNormalization", 17, layer_normalization),
    ("GroupNormalization", 21, group_normalization),
    ("RMSNormalization", 23, rms_normalization),
    ("MeanVarianceNormalization", 9, mean_variance_normalization),
    ("LRN", 1, lrn),
    ("LpNormalization", 1, lp_normalization),
)
