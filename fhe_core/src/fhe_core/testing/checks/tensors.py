"""Tensors of every dtype and shape that ONNX allows: also empty ones, and those without axes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fhe_core.registry import OpSpec
from fhe_core.testing.calls import Call, NotJudged, calls_of, is_known
from fhe_core.testing.checks import Check, CheckFailed, CheckSkipped
from fhe_core.testing.comparing import require_same
from fhe_core.testing.subject import Subject

_DTYPES = ("float16", "float32", "float64", "int32", "int64")
_ONNX_NAMES = {"float32": "float", "float64": "double"}

# ONNX's page on broadcasting: https://onnx.ai/onnx/repo-docs/Broadcasting.html
_BROADCASTS = "multidirectional"
_SHAPES = (
    ((2, 3, 4), (4,)),
    ((4,), (2, 3, 4)),
    ((2, 3, 4), (3, 1)),
    ((2, 1, 4), (3, 1)),
    ((1, 3, 1), (2, 1, 4)),
    ((2, 3, 4), ()),
    ((), (2, 3, 4)),
)


def _result_types(subject: Subject, case: str) -> None:
    """Every call whose floats can be of this dtype, made so, against ONNX's inference."""
    dtype = np.dtype(case)
    judged = 0
    for call in calls_of(subject):
        if not any(value.dtype.kind == "f" for value in call.given.values()):
            continue
        cast = call.on(*(_as_type(value, dtype) for value in call.inputs))
        try:
            inferred = cast.inferred()
        except NotJudged:
            continue
        judged += 1
        for position, (got, (wanted, shape)) in enumerate(
            zip(cast.run(subject.registry), inferred, strict=True)
        ):
            of = f"{call.node.op_type} called as in {call.name}, on {case}: output {position}"
            if wanted is not None and got.dtype.kind not in "OUS" and got.dtype != wanted:
                raise CheckFailed(
                    f"{of} has the wrong dtype",
                    expected=f"{wanted}, says ONNX's inference",
                    got=str(got.dtype),
                    fix="bring constants to the input's dtype, as in `x.dtype.type(0.5)`, and "
                    "results too, as in `y.astype(x.dtype)`",
                )
            if shape is not None and not _agree(got.shape, shape):
                raise CheckFailed(
                    f"{of} has the wrong shape",
                    expected=f"{list(shape)}, says ONNX's inference",
                    got=str(list(got.shape)),
                    fix="see the op's page for the shape of this output",
                )
    if not judged:
        raise CheckSkipped(f"ONNX refuses every call of the op with {case} in place of its floats")


def _dtypes(subject: Subject) -> Sequence[str]:
    """Those that the op's schema allows where one of its calls has floats."""
    import onnx.defs

    spec = subject.rows[-1]
    schema = onnx.defs.get_schema(spec.op_type, subject.opset, spec.domain)
    positions = {
        min(position, len(schema.inputs) - 1)  # the last may be variadic
        for call in calls_of(subject)
        for position, value in enumerate(call.inputs)
        if value is not None and value.dtype.kind == "f"
    }
    allowed = {kind for position in positions for kind in schema.inputs[position].types}
    return tuple(
        dtype for dtype in _DTYPES if f"tensor({_ONNX_NAMES.get(dtype, dtype)})" in allowed
    )


def _as_type(value: Any, dtype: np.dtype[Any]) -> Any:
    if value is None or value.dtype.kind != "f":
        return value
    with np.errstate(all="ignore"):
        return value.astype(dtype)


def _agree(shape: tuple[int, ...], inferred: tuple[int | None, ...]) -> bool:
    return len(shape) == len(inferred) and all(
        other is None or one == other for one, other in zip(shape, inferred, strict=True)
    )


def _broadcasts(subject: Subject) -> bool:
    if not (subject.has_impl and is_known(subject)):
        return False
    return _BROADCASTS in _page(subject.rows[-1])


def _page(spec: OpSpec) -> str:
    import onnx.defs

    try:
        return str(onnx.defs.get_schema(spec.op_type, domain=spec.domain).doc)
    except onnx.defs.SchemaError:
        return ""


def _broadcasting(subject: Subject, case: str) -> None:
    first, second = _SHAPES[int(case)]
    shapes = (first, second)

    def shaped(call: Call) -> Call | None:
        if len(call.given) < 2:
            return None
        # Further inputs take the shapes in turn; the values stay those that the op is made for.
        return call.on(
            *(
                None if value is None else np.resize(value, shapes[position % 2])
                for position, value in enumerate(call.inputs)
            )
        )

    _judge(subject, _variants(subject, shaped), f"inputs of shapes {first} and {second}")


def _broadcast_cases(subject: Subject) -> Sequence[str]:
    return tuple(str(number) for number in range(len(_SHAPES)))


def _empty(subject: Subject, case: str) -> None:
    _judge(subject, _variants(subject, _emptied), "an empty batch")


def _emptied(call: Call) -> Call | None:
    """The call without a row in its first input, and in those with as many; None if that is unclear."""
    first = next(iter(call.given.values()), None)
    if first is None or first.ndim < 2:
        return None  # the one axis is what the op is about
    others = [value for value in call.given.values() if value.shape != first.shape]
    if others and first.shape.count(len(first)) > 1:
        return None  # whose length another input has cannot be told

    def shares(value: np.ndarray) -> bool:
        if value.shape == first.shape:
            return True
        # Weights of one row are not a batch of one.
        return value.ndim > 0 and len(value) == len(first) > 1

    return call.on(
        *(value[:0] if value is not None and shares(value) else value for value in call.inputs)
    )


def _zero_dimensional(subject: Subject, case: str) -> None:
    def pointed(call: Call) -> Call | None:
        arrays = list(call.given.values())
        if not arrays or any(value.ndim and value.shape != arrays[0].shape for value in arrays):
            return None
        return call.on(*(_point(value) for value in call.inputs))

    _judge(subject, _variants(subject, pointed), "tensors without axes")


def _point(value: Any) -> Any:
    return value if value is None or not value.size else value.reshape(-1)[:1].reshape(())


def _has_axis(spec: OpSpec) -> bool:
    """Whether the op works along an axis: there is none that a tensor without axes could have."""
    signature = spec.signature
    return signature is not None and "axis" in (*signature.attributes, *signature.input_names)


def _variants(
    subject: Subject, change: Callable[[Call], Call | None]
) -> Iterator[tuple[Call, tuple[Any, ...]]]:
    """The changed calls that ONNX takes, each with its results in ``onnx.reference``."""
    for call in calls_of(subject):
        changed = change(call)
        if changed is None:
            continue
        try:
            inferred = changed.inferred()
            expected = changed.reference()
        except NotJudged:
            continue
        # What ONNX's inference does not confirm may be nonsense that the reference lets pass; and
        # where the reference has no number, there is nothing to compare with.
        if all(
            value.dtype == dtype and shape is not None and _agree(value.shape, shape)
            for value, (dtype, shape) in zip(expected, inferred, strict=True)
        ) and not any(value.dtype.kind == "f" and np.isnan(value).any() for value in expected):
            yield changed, expected


def _judge(subject: Subject, judged: Iterator[tuple[Call, tuple[Any, ...]]], what: str) -> None:
    count = 0
    for count, (call, expected) in enumerate(judged, 1):  # noqa: B007 - counted below
        of = f"{call.node.op_type} called as in {call.name}, but on {what}"
        try:
            with warnings.catch_warnings():
                # The mean of no row is one of the divisions by zero of which the runner is silent.
                warnings.simplefilter("ignore", RuntimeWarning)
                got = call.run(subject.registry)
        except Exception as error:
            raise CheckFailed(
                f"{of}: it raised {type(error).__name__}: {error}",
                expected="a result, as onnx.reference has one",
                fix="let the function take such tensors",
            ) from error
        require_same(got, expected, rtol=call.rtol, atol=call.atol, of=of, by="onnx.reference")
    if not count:
        raise CheckSkipped(f"onnx.reference has no answer to the op on {what}")


def _of_onnx(subject: Subject) -> bool:
    return subject.has_impl and is_known(subject) and bool(calls_of(subject))


RESULT_TYPES = Check(
    "result-types",
    "results have the dtype and shape that ONNX infers, for every float that ONNX allows.",
    _result_types,
    applies=_of_onnx,
    cases=_dtypes,
)
BROADCASTING = Check(
    "broadcasting",
    "inputs of different shapes broadcast as NumPy's do, where the op's page says so.",
    _broadcasting,
    applies=_broadcasts,
    cases=_broadcast_cases,
)
EMPTY = Check("empty", "an empty batch gives what onnx.reference gives.", _empty, applies=_of_onnx)
ZERO_DIMENSIONAL = Check(
    "zero-dimensional",
    "tensors without axes give what onnx.reference gives.",
    _zero_dimensional,
    applies=lambda subject: _of_onnx(subject) and not _has_axis(subject.rows[-1]),
)

CHECKS = (RESULT_TYPES, BROADCASTING, EMPTY, ZERO_DIMENSIONAL)
