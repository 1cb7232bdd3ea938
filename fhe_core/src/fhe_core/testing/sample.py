"""Inputs to try an operator with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class Sample:
    """One way to call an operator.

    Args:
        inputs: arrays in the order of the op's inputs, None for one that is left out. The first axis
            of those that are not ``constants`` is the batch.
        constants: positions of the inputs that are constants of the model, such as weights.
        attributes: those of the node that are not left to their defaults.
        expected: the results in float, an array or a tuple of them; None where ONNX is the judge.
        name: a word for ids and messages; its number by default.
        opset: the opset of the model; the newest that the pack serves by default.
        outputs: how many outputs the node has.

    Example:
        >>> import numpy as np
        >>> Sample(np.array([[-1.0, 2.0]], np.float32), expected=np.array([[0.0, 2.0]], np.float32))
        <Sample of float32[1,2]>
    """

    def __init__(
        self,
        *inputs: Any,
        constants: Iterable[int] = (),
        attributes: Mapping[str, Any] | None = None,
        expected: Any = None,
        name: str = "",
        opset: int | None = None,
        outputs: int = 1,
    ) -> None:
        self.inputs: tuple[Any, ...] = inputs
        self.constants = frozenset(constants)
        self.attributes = dict(attributes or {})
        self.expected: tuple[Any, ...] | None = (
            expected if expected is None or isinstance(expected, tuple) else (expected,)
        )
        self.name = name
        self.opset = opset
        self.outputs = outputs if self.expected is None else len(self.expected)

    def __repr__(self) -> str:
        described = ", ".join(_described(value) for value in self.inputs)
        return f"<Sample {self.name + ' ' if self.name else ''}of {described or 'no inputs'}>"


def _described(value: Any) -> str:
    if value is None:
        return "None"
    shape = ",".join(map(str, getattr(value, "shape", ("?",))))
    return f"{getattr(value, 'dtype', type(value).__name__)}[{shape}]"
