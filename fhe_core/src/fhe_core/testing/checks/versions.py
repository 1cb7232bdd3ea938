"""Older opsets, and whatever else only ``onnx.reference`` can judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx
from onnx import helper

from fhe_core.graph.validity import OLDEST_OPSET
from fhe_core.registry.schema import Attribute, OpSchema, schema_at
from fhe_core.testing.calls import Call, NotJudged, calls_of, is_known, sample_calls
from fhe_core.testing.checks import Check, CheckFailed, CheckSkipped
from fhe_core.testing.checks.signatures import served_versions
from fhe_core.testing.comparing import require_same
from fhe_core.testing.subject import Subject

_PREFIX = "opset-"
_NUMBERS: Mapping[str, type] = {"int": int, "float": float, "ints": int, "floats": float}


def _cases(subject: Subject) -> Sequence[str]:
    """The older versions that the pack serves, and the samples without a result of their own."""
    older = [f"{_PREFIX}{opset}" for opset in _older_opsets(subject)] if calls_of(subject) else []
    return (*older, *(call.name for call in sample_calls(subject) if call.expected is None))


def _older_opsets(subject: Subject) -> tuple[int, ...]:
    """The first opset of each older version that a model can have and the pack serves."""
    domain, op_type = subject.rows[-1].domain, subject.rows[-1].op_type
    newest = schema_at(domain, op_type, subject.opset)
    opsets = {
        max(schema.since_version, row.since_version, 1 if domain else OLDEST_OPSET)
        for schema, row in served_versions(subject)
        if schema != newest
    }
    return tuple(
        opset
        for opset in sorted(opsets)
        if schema_at(domain, op_type, opset) != newest
        and any(row.serves(opset) and row.impl_pack == subject.pack.name for row in subject.rows)
    )


def _reference(subject: Subject, case: str) -> None:
    if case.startswith(_PREFIX):
        opset = int(case.removeprefix(_PREFIX))
        calls = [call for call in calls_of(subject) if call.opset > opset]
    else:
        calls = [call for call in sample_calls(subject) if call.name == case]
        opset = calls[0].opset
    unjudged: Counter[str] = Counter()
    for call in calls:
        try:
            older = call if call.opset == opset else _in_older_words(call, opset)
            older.inferred()
            expected = older.reference()
        except NotJudged as reason:
            unjudged[str(reason)] += 1
            continue
        _require_expected(subject, older, expected)
    if unjudged.total() == len(calls):
        reasons = "; ".join(f"{reason} ({count})" for reason, count in unjudged.most_common(3))
        raise CheckSkipped(f"none of {len(calls)} calls can be judged: {reasons or 'no call'}")


def _require_expected(subject: Subject, call: Call, expected: Sequence[Any]) -> None:
    of = f"{call.node.op_type} at opset {call.opset}, called as in {call.name}"
    try:
        got = call.run(subject.registry)
    except Exception as error:
        raise CheckFailed(
            f"{of}: it raised {type(error).__name__}: {error}",
            expected="a result, as onnx.reference has one",
            fix="implement what this version of the op asks for, or end `until` before it",
        ) from error
    require_same(got, expected, rtol=call.rtol, atol=call.atol, of=of, by="onnx.reference")


def _in_older_words(call: Call, opset: int) -> Call:
    """The same call in the words of an older version of the op.

    An input that the older version has as an attribute of the same name is handed over as that:
    the axes of a reduction, the sizes of a split.

    Raises:
        NotJudged: the older version cannot say it.
    """
    newer, older = call.schema, schema_at(call.node.domain, call.node.op_type, opset)
    if newer is None or older is None:
        raise NotJudged("ONNX does not know the op")
    unknown = sorted(call.attributes.keys() - older.attributes.keys())
    if unknown:
        raise NotJudged(f"{older} has no {', '.join(unknown)}")
    node = onnx.NodeProto()
    node.CopyFrom(call.node)
    names, inputs = list(node.input), list(call.inputs)
    while len(inputs) > len(older.inputs) and not _is_variadic(older):
        name, value = newer.inputs[len(inputs) - 1].name, inputs.pop()
        names.pop()
        if value is not None:
            node.attribute.append(_attribute(name, value, older))
    del node.input[:]
    node.input.extend(names)
    return replace(call, node=node, opset=opset, inputs=tuple(inputs), expected=None)


def _is_variadic(schema: OpSchema) -> bool:
    return bool(schema.inputs) and schema.inputs[-1].kind == "variadic"


def _attribute(name: str, value: Any, schema: OpSchema) -> onnx.AttributeProto:
    known: Attribute | None = schema.attributes.get(name)
    number = _NUMBERS.get(known.type) if known else None
    if known is None or number is None or value.size == 0:
        raise NotJudged(f"{schema} has no input {name}")
    numbers = [number(one) for one in value.ravel()]
    return helper.make_attribute(name, numbers if known.type.endswith("s") else numbers[0])


REFERENCE = Check(
    "reference",
    "at older opsets, and on samples without results, the NumPy function agrees with onnx.reference.",
    _reference,
    applies=lambda subject: subject.has_impl and is_known(subject),
    cases=_cases,
    judges="impl",
)

CHECKS = (REFERENCE,)
