"""Class labels: which ones a classifier has, and the one of the best class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fhe_ops_contrib._checks import Array, misfit


def class_labels(
    ints: Sequence[int] | None, strings: Sequence[str] | None, *, op: str, ints_name: str
) -> tuple[Array, str]:
    """The labels, int64 or text, and the name of the attribute that has them.

    Args:
        ints_name: what ``op`` calls its integer labels.

    Raises:
        ModelError: there are none, or of both kinds.
    """
    if bool(ints) == bool(strings):
        raise misfit(
            op,
            "the class labels are not in one attribute",
            expected=f"either {ints_name!r} or 'classlabels_strings'",
            got="both" if ints else "neither",
            fix="set one and leave the other out",
        )
    if ints:
        return np.asarray(ints, np.int64), ints_name
    return np.asarray(strings, np.str_), "classlabels_strings"


def named_in(attributes: Mapping[str, Any], ints_name: str) -> list[Any] | None:
    """The labels that a classifier's attributes name, None where they name none or contradict each other."""
    ints, strings = attributes[ints_name], attributes["classlabels_strings"]
    if bool(ints) == bool(strings):
        return None
    return list(ints or strings)


def chosen(labels: Array, best: Array) -> Array:
    """labels[best], of best's shape; text as objects, as ONNX's string tensors are here.

    One ``where`` a label, and not ``take``, where the places are computed from encrypted scores.
    """
    text = labels.dtype.kind in "UO"
    if isinstance(best, np.ndarray):
        found = labels.take(best, mode="clip")
        return found.astype(object) if text else found
    labels = labels.astype(np.str_) if text else labels
    names = np.where(np.equal(best, 0), labels[:1], labels[-1:])
    for place in range(1, len(labels) - 1):
        names = np.where(np.equal(best, place), labels[place : place + 1], names)
    return names.astype(object) if text else names
