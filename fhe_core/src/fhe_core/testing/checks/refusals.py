"""What an operator must refuse, with an error of this package that names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import helper

from fhe_core.errors import FheError
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.validity import OLDEST_OPSET
from fhe_core.registry import Registry
from fhe_core.testing.calls import Call, calls_of
from fhe_core.testing.checks import Check, CheckFailed, CheckSkipped
from fhe_core.testing.subject import Subject

# A value that is certainly of another type.
_OTHER_TYPE: tuple[tuple[tuple[type, ...], Any], ...] = (
    ((bytes, str), 3),
    ((int, float, list, tuple), "text"),
)


def _unknown_attribute(subject: Subject, call: Call) -> Iterator[tuple[str, Call]]:
    node = _with_attribute(call.node, "no_such_attribute", 1)
    yield "an attribute that the op does not have", replace(call, node=node)


def _attribute_type(subject: Subject, call: Call) -> Iterator[tuple[str, Call]]:
    signature = subject.rows[-1].signature
    given: Mapping[str, Any] = signature.attributes if signature else {}
    for name, value in {**given, **call.attributes}.items():
        other = next((wrong for types, wrong in _OTHER_TYPE if isinstance(value, types)), None)
        if other is not None:
            node = _with_attribute(call.node, name, other)
            yield f"{name}={other!r}, which is of another type", replace(call, node=node)


def _too_many_inputs(subject: Subject, call: Call) -> Iterator[tuple[str, Call]]:
    signature = subject.rows[-1].signature
    if signature is None or signature.variadic:
        return
    missing = len(signature.input_names) + 1 - len(call.inputs)
    names = [f"extra{i}" for i in range(missing)]
    node = _with_inputs(call.node, [*call.node.input, *names])
    extra = [np.zeros(1, np.float32)] * missing
    yield f"{missing} inputs too many", replace(call, node=node, inputs=(*call.inputs, *extra))


def _missing_input(subject: Subject, call: Call) -> Iterator[tuple[str, Call]]:
    signature = subject.rows[-1].signature
    if signature is None or not signature.inputs:
        return
    position = len(signature.inputs) - 1
    names = [*call.node.input]
    names[position] = ""
    inputs = [*call.inputs]
    inputs[position] = None
    yield (
        f"its input {signature.inputs[-1]} left out",
        replace(call, node=_with_inputs(call.node, names), inputs=tuple(inputs)),
    )


_REFUSALS: Mapping[str, Callable[[Subject, Call], Iterator[tuple[str, Call]]]] = {
    "unknown-attribute": _unknown_attribute,
    "attribute-type": _attribute_type,
    "too-many-inputs": _too_many_inputs,
    "missing-input": _missing_input,
}
_OPSET = "opset-before-the-first"


def _cases(subject: Subject) -> Sequence[str]:
    """Those ways in which the op can be called wrongly."""
    right = calls_of(subject)[0]
    cases = [case for case, wrong in _REFUSALS.items() if any(True for _ in wrong(subject, right))]
    first = subject.rows[0]
    oldest = 1 if first.domain else OLDEST_OPSET
    return (*cases, *([_OPSET] if first.since_version > oldest else []))


def _refusals(subject: Subject, case: str) -> None:
    if case == _OPSET:
        _require_refused_opset(subject)
        return
    right = calls_of(subject)[0]
    for what, call in _REFUSALS[case](subject, right):
        model = _with_call(right.model(), call)
        _require_refused(subject, what, partial(_run, model, call, subject.registry))


def _run(model: onnx.ModelProto, call: Call, registry: Registry) -> None:
    NumpyModule(model, registry=registry).run(call.fed)


def _with_call(model: onnx.ModelProto, call: Call) -> onnx.ModelProto:
    """A right model with a wrong node: ONNX's inference, which made it, crashes on some of those."""
    del model.graph.node[:]
    model.graph.node.append(call.node)
    del model.graph.input[:]
    model.graph.input.extend(call.declared())
    return model


def _require_refused_opset(subject: Subject) -> None:
    first = subject.rows[0]
    before = first.since_version - 1

    def resolve() -> None:
        spec = subject.registry.resolve(first.op_type, first.domain, opset=before)
        if subject.pack.name not in (spec.impl_pack, spec.quantized_pack):
            raise CheckSkipped(f"pack {spec.impl_pack!r} serves opset {before}")

    _require_refused(subject, f"opset {before}, before its first version", resolve)


def _require_refused(subject: Subject, what: str, run: Callable[[], object]) -> None:
    op_type = subject.rows[-1].op_type
    try:
        run()
    except CheckSkipped:
        raise
    except FheError as error:
        if op_type in str(error):
            return
        got = f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - that is what this looks for
        got = f"{type(error).__name__}: {error}"
    else:
        got = "no error"
    raise CheckFailed(
        f"{op_type} was given {what}",
        expected=f"an error of fhe_core.errors that names {op_type}",
        got=got,
        fix="give attributes a default of their type, or check them in the function and raise "
        "fhe_core.ModelError",
    )


def _with_attribute(node: onnx.NodeProto, name: str, value: Any) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    kept = [entry for entry in copy.attribute if entry.name != name]
    del copy.attribute[:]
    copy.attribute.extend([*kept, helper.make_attribute(name, value)])
    return copy


def _with_inputs(node: onnx.NodeProto, names: Sequence[str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.input[:]
    copy.input.extend(names)
    return copy


REFUSALS = Check(
    "refusals",
    "a call that the op does not allow ends in an error of fhe_core.errors that names the op.",
    _refusals,
    applies=lambda subject: subject.has_impl and bool(calls_of(subject)),
    cases=_cases,
)

CHECKS = (REFUSALS,)
