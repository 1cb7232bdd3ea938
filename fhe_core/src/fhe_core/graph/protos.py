"""One walk over all messages of a protobuf model, wherever they stand.

What may hold a tensor, or a name, is read off the message types and not listed here: a place that a
later ONNX adds is walked too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from onnx import AttributeProto, TensorProto

from fhe_core.errors import ModelError

_Field = tuple[str, bool]  # name, repeated


def messages(root: Any) -> Iterator[Any]:
    """A message and all messages in it, each before those in it."""
    pending = [root]
    while pending:
        message = pending.pop()
        yield message
        nested, _ = _fields(message.DESCRIPTOR)
        found: list[Any] = []
        for name, repeated in nested:
            if repeated:
                found += getattr(message, name)
            elif message.HasField(name):
                found.append(getattr(message, name))
        pending += reversed(found)


def tensors(root: Any) -> Iterator[Any]:
    """Every TensorProto in a message."""
    return (message for message in messages(root) if isinstance(message, TensorProto))


def check_text(root: Any, label: str) -> None:
    """Refuse text that is not UTF-8, which protobuf hands out as bytes.

    Raises:
        ModelError: a name, or other text, is not UTF-8.
    """
    for message in messages(root):
        for name, repeated in _fields(message.DESCRIPTOR)[1]:
            value = getattr(message, name)
            for text in value if repeated else (value,):
                if isinstance(text, bytes):
                    raise ModelError(
                        f"{label} is damaged: the {name.replace('_', ' ')} of a "
                        f"{message.DESCRIPTOR.name} is not UTF-8",
                        expected="text",
                        got=repr(text[:40]),
                        fix="export or copy the file again",
                    )


@cache
def _fields(descriptor: Any) -> tuple[tuple[_Field, ...], tuple[_Field, ...]]:
    """The fields of a type that hold messages, and those that hold text."""

    def of(kind: int) -> tuple[_Field, ...]:
        return tuple((f.name, _repeated(f)) for f in descriptor.fields if f.type == kind)

    return of(_MESSAGE), of(_TEXT)


def _repeated(field: Any) -> bool:
    # protobuf 6 has deprecated `label` for `is_repeated`, which older ones lack.
    found = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if found is None else found)


_ATTRIBUTE = AttributeProto.DESCRIPTOR.fields_by_name
_MESSAGE, _TEXT = _ATTRIBUTE["t"].type, _ATTRIBUTE["name"].type
