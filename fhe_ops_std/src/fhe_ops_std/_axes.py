"""Axes, which ONNX counts from the front, or from the back if they are negative."""

from __future__ import annotations


def counted(axis: int, ndim: int) -> int:
    """``axis`` of ``ndim``, from the front.

    Not ``axis % ndim``: that takes any number for some axis.

    Raises:
        ValueError: there is no such axis.
    """
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis {axis} is out of bounds: there are {ndim}")
    return axis + ndim * (axis < 0)
