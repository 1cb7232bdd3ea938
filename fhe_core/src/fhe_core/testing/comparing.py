"""Results against what was expected of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fhe_core.testing.checks import CheckFailed


def require_same(
    got: Sequence[Any],
    expected: Sequence[Any],
    *,
    rtol: float,
    atol: float,
    of: str,
    by: str,
) -> None:
    """Raises CheckFailed at the first output that differs in number, dtype, shape or value.

    Args:
        expected: None in it stands for an output that nobody asked for.
        rtol, atol: for floats, as in `numpy.isclose`; everything else has to be equal.
        of: what was run, for the message.
        by: who says what is right.
    """
    wanted = [value for value in expected if value is not None]
    if len(got) != len(wanted):
        raise CheckFailed(
            f"{of}: the number of outputs is wrong",
            expected=f"{len(wanted)}, says {by}",
            got=str(len(got)),
            fix="return a tuple with one array for each output of the op",
        )
    for position, (one, other) in enumerate(zip(got, wanted, strict=True)):
        place = f"{of}: output {position}" if len(wanted) > 1 else f"{of}: the result"
        _require_type(one, other, place, by)
        _require_values(one, other, rtol, atol, place, by)


def described(value: Any) -> str:
    """``float32[2, 3]``."""
    array = np.asarray(value)
    name = "string" if array.dtype.kind in "OUS" else array.dtype.name
    return f"{name}[{', '.join(map(str, array.shape))}]"


def _require_type(got: Any, expected: Any, place: str, by: str) -> None:
    if described(got) == described(expected):
        return
    same_shape = np.shape(got) == np.shape(expected)
    raise CheckFailed(
        f"{place} has the wrong {'dtype' if same_shape else 'shape'}",
        expected=f"{described(expected)}, says {by}",
        got=described(got),
        fix="keep the input's dtype: bring constants to it, as in `x.dtype.type(0.5)`"
        if same_shape
        else "see the op's page for the shape of this output",
    )


def _require_values(got: Any, expected: Any, rtol: float, atol: float, place: str, by: str) -> None:
    one, other = np.asarray(got), np.asarray(expected)
    floating = other.dtype.kind in "fcV"  # "V": the narrow types that NumPy does not have
    if floating:
        # Compared in float64, where the tolerance of float16 does not underflow; bfloat16 has fewer
        # digits than any tolerance, and ONNX's own runner allows it 2⁻⁶.
        rtol = max(rtol, 2**-6) if other.dtype.name == "bfloat16" else rtol
        one, other = one.astype(np.float64), other.astype(np.float64)
        with np.errstate(invalid="ignore"):
            wrong = ~np.isclose(one, other, rtol=rtol, atol=atol, equal_nan=True)
    else:
        wrong = np.asarray(one != other)
    if not wrong.any():
        return
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    tolerance = f" (rtol={rtol:g}, atol={atol:g})" if floating else ""
    at = f" at {list(index)}" if index else ""
    raise CheckFailed(
        f"{place} is wrong in {int(wrong.sum())} of {wrong.size} elements",
        expected=f"{other[index]!s}{at}, says {by}{tolerance}",
        got=str(one[index]),
        fix="compare the function with the op's page",
    )
