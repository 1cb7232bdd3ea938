"""Windows that slide along spatial axes: the geometry that convolution and pooling share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import ModelError

Array = NDArray[Any]


@dataclass(frozen=True)
class Window:
    """A window on one axis: ``kernel`` taps, ``dilation`` apart, that moves by ``stride``.

    ``before`` and ``after`` count the padded elements around the ``length`` real ones, ``steps``
    the places where the window stops, which is the length of the output.
    """

    length: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    steps: int

    @property
    def reach(self) -> int:
        """Where the last window ends, counted from the first padded element."""
        return (self.steps - 1) * self.stride + (self.kernel - 1) * self.dilation + 1

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the window begins at each step (< 0 in the padding), and its taps from there."""
        begins = np.arange(self.steps, dtype=np.int64) * self.stride - self.before
        return begins, np.arange(self.kernel, dtype=np.int64) * self.dilation

    def inside(self, k: int) -> tuple[slice, slice]:
        """The steps at which tap ``k`` sees a real element, and the elements that it sees there."""
        shift = k * self.dilation - self.before
        first = max(-(shift // self.stride), 0)
        last = min((self.length - 1 - shift) // self.stride, self.steps - 1)
        if last < first:
            return slice(0), slice(0)
        seen = slice(first * self.stride + shift, last * self.stride + shift + 1, self.stride)
        return slice(first, last + 1), seen


def windows(
    lengths: Sequence[int],
    kernel_shape: Sequence[int],
    *,
    auto_pad: str,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
    ceil_mode: int = 0,
) -> tuple[Window, ...]:
    """One window for each spatial axis, from the attributes of an ONNX Conv or pooling node."""
    rank = len(lengths)
    dilations = dilations or (1,) * rank
    pads = pads or (0,) * (2 * rank)
    strides = strides or (1,) * rank
    for name, values, count, least in (
        ("kernel_shape", kernel_shape, rank, 1),
        ("dilations", dilations, rank, 1),
        ("strides", strides, rank, 1),
        ("pads", pads, 2 * rank, 0),
    ):
        if any(value < least for value in values):
            raise ModelError(
                f"{name} has a value below {least}",
                expected=f"{least} or more",
                got=str(tuple(values)),
                fix=f"export the model again with other values in {name}",
            )
        if len(values) != count:
            raise ModelError(
                f"{name} does not fit an input of {rank} spatial axes",
                expected=f"{count} values",
                got=str(tuple(values)),
                fix=f"export the model again with {count} values in {name}",
            )
    return tuple(
        _window(length, kernel, stride, dilation, before, after, auto_pad, ceil_mode)
        for length, kernel, stride, dilation, before, after in zip(
            lengths, kernel_shape, strides, dilations, pads[:rank], pads[rank:], strict=True
        )
    )


def _window(
    length: int,
    kernel: int,
    stride: int,
    dilation: int,
    before: int,
    after: int,
    auto_pad: str,
    ceil_mode: int,
) -> Window:
    span = (kernel - 1) * dilation + 1
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        steps = -(-length // stride)
        total = max((steps - 1) * stride + span - length, 0)
        half, rest = total // 2, total - total // 2
        before, after = (half, rest) if auto_pad == "SAME_UPPER" else (rest, half)
        return Window(length, kernel, stride, dilation, before, after, steps)
    if auto_pad == "VALID":
        # ONNX's formula for VALID gives the same with and without ceil_mode.
        before, after, ceil_mode = 0, 0, 0
    elif auto_pad != "NOTSET":
        raise ModelError(
            "auto_pad is not one that ONNX knows",
            expected="NOTSET, SAME_UPPER, SAME_LOWER or VALID",
            got=auto_pad,
            fix="set explicit pads and leave auto_pad out",
        )
    room = before + length + after - span
    if room < 0:
        raise ModelError(
            "the window is larger than the padded input",
            expected=f"at least {span} elements on the axis",
            got=f"{length} with {before} + {after} of padding",
            fix="feed a larger input or export the model with a smaller kernel",
        )
    steps = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (steps - 1) * stride >= length + before:
        steps -= 1  # a window that would start in the padding at the end is left out
    return Window(length, kernel, stride, dilation, before, after, steps)


def steps_of(
    x: Array, sliding: tuple[Window, ...], first: int, steps: int
) -> tuple[Array, tuple[Window, ...]]:
    """The rows of x: (..., *spatial) that ``steps`` steps of the first window see, from ``first`` on,
    and the windows there."""
    if steps == sliding[0].steps:
        return x, sliding
    head = replace(sliding[0], steps=steps)
    begin = first * head.stride - head.before
    rows = slice(max(begin, 0), max(begin + head.reach, 0))
    others: Any = (slice(None),) * (len(sliding) - 1)
    seen = x[(..., rows, *others)]
    head = replace(head, length=seen.shape[-len(sliding)], before=max(-begin, 0))
    return seen, (head, *sliding[1:])


def padded(x: Array, sliding: tuple[Window, ...]) -> Array:
    """x: (..., *spatial) with zeros for every tap outside of it; x itself where there is none."""
    ends = [max(window.reach - window.before - window.length, 0) for window in sliding]
    if not any(ends) and not any(window.before for window in sliding):
        return x
    sizes = (window.before + window.length + end for window, end in zip(sliding, ends, strict=True))
    y = np.zeros((*x.shape[: -len(sliding)], *sizes), dtype=x.dtype)
    inside = (slice(window.before, window.before + window.length) for window in sliding)
    y[(..., *inside)] = x
    return y
