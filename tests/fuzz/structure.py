"""Models damaged in their structure: fields cleared, swapped, doubled, moved or of another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message

from tests.fuzz.models import bases, drawn, drive, mutable, sent

SHARE = 4

_TEXTS = ("", "x", "y", "w", "ai.onnx", "ai.onnx.ml", "Loop", "If", "Relu", "Foo", "a" * 300, "\0/")
_NUMBERS = (0, 1, -1, 2, 7, 17, 127, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, -(2**62))
_FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-45)


def prepare() -> None:
    """What is loaded once, before processes part."""
    bases()


def case(rng: np.random.Generator, folder: Path) -> None:
    """A model with one to four faults in its messages."""
    model = mutable(drawn(rng))
    for _ in range(rng.integers(1, 5)):
        _damage(model, rng)
    drive(sent(model, folder, rng), rng)


def _damage(model: Any, rng: np.random.Generator) -> None:
    messages = list(_messages(model))
    message = messages[rng.integers(len(messages))]
    fields = message.DESCRIPTOR.fields
    present = [field for field, _ in message.ListFields()]
    # What is there is damaged more often than what is not is made up.
    pool = present if present and rng.random() < 0.7 else fields
    if not pool:
        return
    field = pool[rng.integers(len(pool))]
    if _is_repeated(field):
        _damage_list(getattr(message, field.name), field, messages, rng)
    elif rng.random() < 0.3:
        message.ClearField(field.name)
    elif field.message_type is not None:
        _graft(getattr(message, field.name), messages, rng)
    else:
        _assign(lambda value: setattr(message, field.name, value), field, rng)


def _damage_list(items: Any, field: Any, messages: list[Any], rng: np.random.Generator) -> None:
    act = rng.integers(5)
    size = len(items)
    if act == 0 and size:
        del items[rng.integers(size)]
    elif act == 1 and size > 1:
        first, second = rng.integers(size, size=2)
        kept = [_copied(item) for item in items]
        kept[first], kept[second] = kept[second], kept[first]
        del items[:]
        items.extend(kept)
    elif act == 2 and size:
        items.extend([_copied(items[rng.integers(size)])])
    elif field.message_type is not None:
        _graft(items.add(), messages, rng)
    else:
        _assign(lambda value: items.append(value), field, rng)
        if size and rng.random() < 0.7:  # in the place of another
            last = items.pop()
            items[rng.integers(size)] = last


def _graft(target: Any, messages: list[Any], rng: np.random.Generator) -> None:
    """Another message of the same type, of this model or another, or an empty one."""
    if rng.random() < 0.5:
        messages = list(_messages(mutable(drawn(rng))))
    same = [one for one in messages if one.DESCRIPTOR is target.DESCRIPTOR]
    if same and rng.random() < 0.9:
        # Through bytes: a message may not be copied into its own part.
        data = same[rng.integers(len(same))].SerializePartialToString()
        target.ParseFromString(data)
    else:
        target.SetInParent()


def _assign(assign: Any, field: Any, rng: np.random.Generator) -> None:
    kind = field.cpp_type
    values: tuple[Any, ...]
    if kind == field.CPPTYPE_STRING:
        text = _TEXTS[rng.integers(len(_TEXTS))]
        values = (text.encode() if field.type == field.TYPE_BYTES else text,)
    elif kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        values = _FLOATS
    elif kind == field.CPPTYPE_ENUM:
        values = tuple(value.number for value in field.enum_type.values)
    else:
        values = _NUMBERS
    try:
        assign(values[rng.integers(len(values))])
    except (ValueError, TypeError):
        assign(values[0] if kind == field.CPPTYPE_ENUM else 1)


def _copied(item: Any) -> Any:
    if not isinstance(item, Message):
        return item
    copy = type(item)()
    copy.CopyFrom(item)
    return copy


def _is_repeated(field: Any) -> bool:
    found = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if found is None else found)


def _messages(root: Message) -> list[Any]:
    found, pending = [], [root]
    while pending:
        message = pending.pop()
        found.append(message)
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending += list(value) if _is_repeated(field) else [value]
    return found
