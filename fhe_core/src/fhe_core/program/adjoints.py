"""The adjoint of each operation of integer programs: gradients, for tuning weights.

Every operation of `rules.RULES` is affine in its integers. Its adjoint f* carries the gradient of a loss
from the result to the operands: <f(x) - f(0), g> = <x, f*(g)> for all x and g. That of a matrix product
and of a convolution is known for the weights, too (Rumelhart, Hinton, Williams, 1986).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.nodes import with_batch
from fhe_core.program.rules import Attributes, convolution_windows

Array = NDArray[Any]
Adjoint = Callable[[Array, Sequence[Array], Attributes], Sequence[Array]]

#: The operations that have weights, in the attribute ``weights``.
WEIGHTED = ("matmul", "conv")


def operand_gradients(
    op: str, gradient: Array, operands: Sequence[Array], attributes: Attributes
) -> Sequence[Array]:
    """The loss's gradients for the operands, each of its operand's shape.

    Args:
        op: a key of ``RULES``.
        gradient: for the result, of its shape.
        operands: the values that the operation was evaluated on.
    """
    return _ADJOINTS[op](gradient, operands, attributes)


def weight_gradient(op: str, gradient: Array, operand: Array, attributes: Attributes) -> Array:
    """The loss's gradient for the weights of an operation in `WEIGHTED`, of their shape."""
    weights = attributes["weights"]
    if op == "conv":
        return _conv_weights(gradient, operand, attributes)
    left, right = (gradient, operand) if attributes["left"] else (operand, gradient)
    # A product with a vector has no axis for it: with one of length 1 it is a product of matrices.
    if attributes["left"]:
        if weights.ndim == 1:
            product = _outer_sum(gradient[..., None, :], operand)
            return product.reshape(weights.shape)
        return reduced(left @ np.swapaxes(right, -1, -2), weights.shape)
    if weights.ndim == 1:
        return np.tensordot(gradient, operand, axes=gradient.ndim)
    return reduced(np.swapaxes(left, -1, -2) @ right, weights.shape)


def _outer_sum(gradient: Array, operand: Array) -> Array:
    """The sum over all samples of gradient (..., 1, N) times the transpose of operand (..., K, N)."""
    product = gradient @ np.swapaxes(operand, -1, -2)
    return product.reshape(-1, product.shape[-1]).sum(axis=0)


def reduced(array: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes along which ``shape`` was broadcast."""
    array = array.sum(axis=tuple(range(array.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and array.shape[i] != 1)
    return array.sum(axis=stretched, keepdims=True) if stretched else array


def _elementwise(*signs: int) -> Adjoint:
    def adjoint(gradient: Array, operands: Sequence[Array], attributes: Attributes) -> list[Array]:
        return [
            reduced(gradient if sign > 0 else -gradient, operand.shape)
            for sign, operand in zip(signs, operands, strict=True)
        ]

    return adjoint


def _scaled(gradient: Array, operands: Sequence[Array], attributes: Attributes) -> list[Array]:
    factor = attributes["factor"].astype(gradient.dtype)
    return [reduced(gradient * factor, operands[0].shape)]


def _matmul(gradient: Array, operands: Sequence[Array], attributes: Attributes) -> list[Array]:
    weights = attributes["weights"].astype(gradient.dtype, copy=False)
    if weights.ndim == 1:
        spread = gradient[..., None, :] if attributes["left"] else gradient[..., None]
        along = weights[:, None] if attributes["left"] else weights
        return [reduced(spread * along, operands[0].shape)]
    turned = np.swapaxes(weights, -1, -2)
    back = turned @ gradient if attributes["left"] else gradient @ turned
    return [reduced(back, operands[0].shape)]


def _conv(gradient: Array, operands: Sequence[Array], attributes: Attributes) -> list[Array]:
    (x,) = operands
    weights = attributes["weights"].astype(gradient.dtype, copy=False)
    group = attributes["group"]
    count, features, height, width = gradient.shape
    depth = weights.shape[1]
    result = np.zeros(x.shape, gradient.dtype)
    grouped = gradient.reshape(count, group, features // group, height * width)
    for i, j in np.ndindex(*weights.shape[2:]):
        tap = weights[:, :, i, j].reshape(group, features // group, depth)
        back = np.swapaxes(tap, -1, -2) @ grouped
        result[_seen(attributes, (i, j), (height, width))] += back.reshape(
            count, group * depth, height, width
        )
    return [result]


def _seen(
    attributes: Attributes, tap: tuple[int, int], steps: tuple[int, int]
) -> tuple[slice, ...]:
    """The elements of the input that one tap of the kernel sees at all steps."""
    spatial = (
        slice(k * dilation, k * dilation + (count - 1) * stride + 1, stride)
        for k, dilation, stride, count in zip(
            tap, attributes["dilations"], attributes["strides"], steps, strict=True
        )
    )
    return (slice(None), slice(None), *spatial)


def _conv_weights(gradient: Array, x: Array, attributes: Attributes) -> Array:
    weights, group = attributes["weights"], attributes["group"]
    columns = convolution_windows(
        x, weights.shape, attributes["strides"], attributes["dilations"], group
    )
    count, features, height, width = gradient.shape
    rows = gradient.reshape(count, group, features // group, height * width)
    rows = rows.transpose(1, 2, 0, 3).reshape(group, features // group, -1)
    return (rows @ columns).reshape(weights.shape)


def _sum(gradient: Array, operands: Sequence[Array], attributes: Attributes) -> list[Array]:
    if not attributes["keepdims"]:
        gradient = np.expand_dims(gradient, attributes["axes"])
    return [np.broadcast_to(gradient, operands[0].shape)]


def _reshape(gradient: Array, operands: Sequence[Array], attributes: Attributes) -> list[Array]:
    return [gradient.reshape(operands[0].shape)]


def _transpose(gradient: Array, operands: Sequence[Array], attributes: Attributes) -> list[Array]:
    return [gradient.transpose(np.argsort(attributes["axes"]))]


def _index(gradient: Array, operands: Sequence[Array], attributes: Attributes) -> list[Array]:
    result = np.zeros(operands[0].shape, gradient.dtype)
    # An element may have been read more than once.
    np.add.at(result, with_batch(attributes["key"], len(operands[0])), gradient)
    return [result]


def _take(gradient: Array, operands: Sequence[Array], attributes: Attributes) -> list[Array]:
    result = np.zeros(operands[0].shape, gradient.dtype)
    axis = attributes["axis"] % result.ndim
    np.add.at(result, (slice(None),) * axis + (attributes["indices"],), gradient)
    return [result]


def _concatenate(gradient: Array, operands: Sequence[Array], attributes: Attributes) -> list[Array]:
    axis = attributes["axis"]
    ends = np.cumsum([operand.shape[axis] for operand in operands])
    return np.split(gradient, ends[:-1], axis)


def _pad(gradient: Array, operands: Sequence[Array], attributes: Attributes) -> list[Array]:
    inside = (
        slice(before, before + length)
        for length, (before, _) in zip(operands[0].shape, attributes["widths"], strict=True)
    )
    return [gradient[tuple(inside)]]


_ADJOINTS: dict[str, Adjoint] = {
    "add": _elementwise(1, 1),
    "subtract": _elementwise(1, -1),
    "negative": _elementwise(-1),
    "shift": _elementwise(1),
    "scale": _scaled,
    "matmul": _matmul,
    "conv": _conv,
    "sum": _sum,
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast": _elementwise(1),
    "index": _index,
    "take": _take,
    "concatenate": _concatenate,
    "pad": _pad,
}
