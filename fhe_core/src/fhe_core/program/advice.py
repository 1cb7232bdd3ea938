"""What to write instead of a NumPy function that encrypted values do not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fhe_core.errors import CompilationError, Where
from fhe_core.program.nodes import Call, current_origin

_NEW = "numpy.where with a constant mask, numpy.concatenate, or numpy.zeros_like"
_PLACES = "numpy.where or a product with a comparison, which keep the shape"
_PRODUCTS = (
    "numpy.transpose, numpy.reshape and @, with the constant's axes in the order of a matrix"
)
_PAIRS = "fhe_core.primitives.maximum and minimum, pair by pair"
_SQUARES = "numpy.sum(x * x, axis=...), and the rest in float: .astype(float) on that sum"
_LINEAR = "x @ matrix, with the matrix of this linear function in integers"
_ONE = "a constant for one of the two, or a function of one integer that both are summed into"
_CLIENT = "the float model's function after the last integer, where the client computes it"

#: By NumPy's name.
_INSTEAD = {
    **dict.fromkeys(
        (
            "sort",
            "argsort",
            "partition",
            "argpartition",
            "median",
            "percentile",
            "quantile",
            "lexsort",
        ),
        _PAIRS,
    ),
    **dict.fromkeys(("argmax", "argmin"), f"comparisons with numpy.max or numpy.min; or {_CLIENT}"),
    "ptp": "numpy.max - numpy.min",
    **dict.fromkeys(("var", "std", "linalg.norm", "cov", "corrcoef"), _SQUARES),
    **dict.fromkeys(
        (
            "einsum",
            "tensordot",
            "outer",
            "kron",
            "vdot",
            "vecdot",
            "dot",
            "inner",
            "cross",
            "trace",
        ),
        _PRODUCTS,
    ),
    **dict.fromkeys(("convolve", "correlate"), "fhe_core.primitives.conv"),
    **dict.fromkeys(("gradient", "ediff1d", "average", "interp", "trapz", "trapezoid"), _LINEAR),
    **dict.fromkeys(
        ("prod", "cumprod", "multiply.reduce", "multiply.accumulate", "linalg.matrix_power"),
        "fhe_core.primitives.multiply, pair by pair",
    ),
    "add.accumulate": "numpy.cumsum",
    **dict.fromkeys(
        ("divide", "true_divide", "floor_divide", "remainder", "mod", "fmod", "divmod", "power"),
        _ONE,
    ),
    **dict.fromkeys(
        ("arctan2", "hypot", "copysign", "left_shift", "right_shift", "gcd", "lcm"), _ONE
    ),
    **dict.fromkeys(
        (
            "nonzero",
            "argwhere",
            "flatnonzero",
            "unique",
            "extract",
            "trim_zeros",
            "ndarray.nonzero",
        ),
        _PLACES,
    ),
    **dict.fromkeys(("bincount", "histogram", "searchsorted"), "a sum of comparisons"),
    **dict.fromkeys(
        ("put", "place", "copyto", "put_along_axis", "fill_diagonal", "putmask", "empty_like"), _NEW
    ),
    **dict.fromkeys(("ndarray.fill", "ndarray.put", "ndarray.sort", "ndarray.resize"), _NEW),
    **dict.fromkeys(
        ("vectorize", "apply_along_axis", "apply_over_axes", "piecewise", "select", "choose"),
        "fhe_core.primitives.lookup for a function of one integer, numpy.where for a choice",
    ),
    "sum(where=)": "numpy.sum of a product with the mask",
    "mean(where=)": "numpy.sum of a product with the mask, divided by its sum",
    **dict.fromkeys(
        ("max(where=)", "min(where=)", "any(where=)", "all(where=)"), "numpy.where before it"
    ),
    "diff(prepend=, append=)": "numpy.concatenate before numpy.diff",
}
_OTHERWISE = (
    "+, -, @ and numpy.sum of integers, NumPy's functions that move elements, and functions of each "
    "element; or fhe_core.primitives"
)

#: Methods of arrays that change them.
IN_PLACE = frozenset({"fill", "itemset", "partition", "put", "resize", "setfield", "sort"})
#: What returns arrays whose shapes depend on values, or writes into them.
WITHOUT_SHAPE = frozenset(
    getattr(np, name)
    for name in (
        *(
            "argwhere",
            "bincount",
            "copyto",
            "empty_like",
            "extract",
            "fill_diagonal",
            "flatnonzero",
        ),
        *(
            "histogram",
            "nonzero",
            "place",
            "put",
            "put_along_axis",
            "putmask",
            "trim_zeros",
            "unique",
        ),
    )
)


def unavailable(function: Callable[..., Any] | str, where: Where | None = None) -> CompilationError:
    """The error about a NumPy function, given by itself or by name."""
    name = function if isinstance(function, str) else numpy_name(function) or str(function)
    origin = current_origin()
    return CompilationError(
        f"np.{name} is not available on encrypted values",
        where=where or (origin.where if origin else None),
        fix=f"use {_INSTEAD.get(name, _OTHERWISE)}",
    )


def is_unavailable(function: Any) -> bool:
    """Whether a function is one of NumPy's that need another."""
    return numpy_name(function) in _INSTEAD


def numpy_name(function: Any) -> str | None:
    """What NumPy calls a function of its own: ``sort``, ``linalg.norm``; None for others'."""
    name = getattr(function, "__name__", "")
    for prefix, place in (("", np), ("linalg.", np.linalg), ("fft.", np.fft)):
        if name and getattr(place, name, None) is function:
            return prefix + name
    return None


def not_elementwise(call: Call, problem: str, **details: Any) -> CompilationError:
    """The error about a call that no look-up can compute, with the advice that fits who wrote it.

    Args:
        problem: what is wrong, where ``call`` is no function of NumPy's in a ``q_impl``.
    """
    origin = call.origin
    if origin is not None and origin.computes and numpy_name(call.function):
        return unavailable(call.function, call.where)
    if origin is None or not origin.computes:
        fix = "return False from can_fuse, and give the op a q_impl on integers"
    elif origin.fused:
        fix = "return False from can_fuse here, and compute on the qvalues of prepared inputs in q_impl"
    else:
        fix = f"compute it in q_impl from the qvalues of prepared inputs: use {_OTHERWISE}"
    return CompilationError(problem, where=call.where, fix=fix, **details)
