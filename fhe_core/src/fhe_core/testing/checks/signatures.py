"""A NumPy function takes and returns what ONNX says, at every version that it serves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fhe_core.registry import OpSpec
from fhe_core.registry.conformity import mismatch
from fhe_core.registry.schema import OpSchema, history, newest_opset
from fhe_core.registry.signature import function_name
from fhe_core.testing.calls import calls_of, is_known
from fhe_core.testing.checks import Check, CheckFailed
from fhe_core.testing.subject import Subject


def served_versions(subject: Subject) -> tuple[tuple[OpSchema, OpSpec], ...]:
    """Every living version of the op that the pack's functions serve, with the row that does."""
    newest = subject.rows[-1]
    schemas = history(newest.domain, newest.op_type)
    ends = [later.since_version - 1 for later in schemas[1:]]
    ends.append(newest_opset(newest.domain) or newest.since_version)
    return tuple(
        (schema, row)
        for schema, end in zip(schemas, ends, strict=bool(schemas))
        for row in subject.rows
        if not schema.deprecated
        and row.impl_pack == subject.pack.name
        and row.serves(min(end, max(schema.since_version, row.since_version)))
    )


def _versions(subject: Subject) -> Sequence[str]:
    return tuple(dict.fromkeys(str(s.since_version) for s, _ in served_versions(subject)))


def _signature(subject: Subject, case: str) -> None:
    for schema, row in served_versions(subject):
        if str(schema.since_version) != case or row.signature is None or row.impl is None:
            continue
        found = mismatch(row.signature, schema)
        if found:
            raise CheckFailed(
                f"{function_name(row.impl)}{row.signature} contradicts {schema} of ONNX",
                expected=found[0],
                got=found[1],
                fix=f"declare it as `{schema.as_signature()}`",
            )
    newest = served_versions(subject)[-1][0]
    if str(newest.since_version) == case:
        _require_outputs(subject, newest)


def _require_outputs(subject: Subject, schema: OpSchema) -> None:
    """The function returns as many results as the schema has outputs, or fewer optional ones."""
    if any(output.kind == "variadic" for output in schema.outputs):
        return
    most = len(schema.outputs)
    least = sum(output.kind == "required" for output in schema.outputs)
    for call in calls_of(subject):
        if call.schema != schema:
            continue
        step = call.step(subject.registry)
        if step.bodies:
            continue  # a subgraph reaches the function through the runner alone
        with np.errstate(all="ignore"):
            result = step.impl(*call.inputs, **step.arguments)
        count = len(result) if isinstance(result, tuple) else 1
        if not least <= count <= most:
            names = ", ".join(output.name for output in schema.outputs)
            raise CheckFailed(
                f"{function_name(step.impl)} returns a wrong number of results",
                expected=f"{least if least == most else f'{least} to {most}'}: {names}",
                got=f"a tuple of {count}" if isinstance(result, tuple) else "one array",
                fix="return one array for a single output, a tuple for several",
            )


SIGNATURE = Check(
    "signature",
    "the NumPy function's inputs, attributes, defaults and number of results are ONNX's.",
    _signature,
    applies=lambda subject: subject.has_impl and is_known(subject),
    cases=_versions,
)

CHECKS = (SIGNATURE,)
