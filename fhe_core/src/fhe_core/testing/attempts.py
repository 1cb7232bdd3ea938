"""The samples of a quantized operator in their nets: which work, and why the others do not."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhe_core.errors import CompilationError, FheError
from fhe_core.registry import Registry
from fhe_core.testing.checks import CheckSkipped
from fhe_core.testing.nets import Net, net_around, with_hold
from fhe_core.testing.onnx_cases import NodeCase, cases_of
from fhe_core.testing.sample import Sample
from fhe_core.testing.subject import Subject

#: What is taken from ONNX's own cases: the smallest few, with this many rows.
_CASES, _ROWS, _LARGEST_ROW = 3, 24, 512
#: The width at which is seen whether an op works in a net at all.
_TRIED_BITS = 4


@dataclass(frozen=True)
class Attempt:
    """A sample in a net, or why there is none.

    Attributes:
        net: in which the op works, on the server if it does there.
        server: the net on the server, whether the op works there or not; None if it cannot be placed.
        refusal: what the server's net was refused with.
    """

    name: str
    net: Net | None
    server: Net | None
    refusal: Exception | None

    @property
    def claims_to_fuse(self) -> bool:
        """Whether ``can_fuse`` is True where the op cannot be recorded."""
        fused = self.server is not None and self.server.placed.fused
        return fused and isinstance(self.refusal, CompilationError)

    @property
    def is_fault(self) -> bool:
        """Whether it was refused as nothing should be refused."""
        return self.net is None and not isinstance(self.refusal, FheError)


def cases(subject: Subject) -> tuple[str, ...]:
    """The names of the attempts."""
    return tuple(attempt.name for attempt in attempts(subject))


def attempt_of(subject: Subject, case: str) -> Attempt:
    """The attempt of this name."""
    return next(attempt for attempt in attempts(subject) if attempt.name == case)


def net_of(subject: Subject, case: str) -> Net:
    """The net of an attempt.

    Raises:
        CheckSkipped: it has none, which is for the checks ``accuracy`` and ``can-fuse`` to report.
    """
    attempt = attempt_of(subject, case)
    if attempt.net is None:
        raise CheckSkipped(f"the sample cannot be quantized: {attempt.refusal}")
    return attempt.net


_attempts: weakref.WeakKeyDictionary[Registry, dict[Any, tuple[Attempt, ...]]] = (
    weakref.WeakKeyDictionary()
)


def attempts(subject: Subject) -> tuple[Attempt, ...]:
    """Every way in which the samples of an op are tried.

    The author's samples; else ONNX's own cases, of which those that are refused are left out. Where a
    sample has several encrypted inputs of one shape, also with one tensor for all of them.
    """
    kept = _attempts.setdefault(subject.registry, {})
    key = subject.pack.name, subject.op, subject.samples
    if key not in kept:
        kept[key] = tuple(_own(subject) if subject.samples else _derived(subject))
    return kept[key]


def _own(subject: Subject) -> Iterator[Attempt]:
    for sample in filter(_is_encryptable, subject.samples):
        yield _attempt(sample, subject)
        yield from _with_one_tensor(sample, subject)


def _is_encryptable(sample: Sample) -> bool:
    """Whether what varies is finite numbers; samples of something else are for the float checks."""
    varying = [np.asarray(x) for i, x in enumerate(sample.inputs) if i not in sample.constants]
    numbers = [x for x in varying if x.dtype != np.dtype(object)]
    return bool(numbers) and all(
        x.dtype.kind in "fiub" and x.ndim and x.size and np.isfinite(x).all() for x in numbers
    )


def _derived(subject: Subject) -> Iterator[Attempt]:
    """From ONNX's cases, the first float input encrypted; and the first two, where they go together."""
    assert subject.spec is not None  # noqa: S101  # asked for operators alone
    cases = cases_of(subject.spec.op_type, subject.spec.domain)
    taken = 0
    for case in sorted(cases, key=lambda case: sum(np.size(x) for x in case.inputs)):
        places = _float_inputs(case)
        if not places or taken == _CASES:
            continue
        found = [_attempt(_sample(case, places[:1]), subject)]
        if len(places) > 1:
            found.append(_attempt(_sample(case, places[:2]), subject))
            found += _with_one_tensor(_sample(case, places[:2]), subject)
        useful = [t for t in found if t.net or t.claims_to_fuse or t.is_fault]
        taken += bool(useful)
        yield from useful


def _float_inputs(case: NodeCase) -> list[int]:
    """Where a case has floats that can be encrypted, batch first."""
    arrays = {i: x for i, x in enumerate(case.inputs) if isinstance(x, np.ndarray)}
    places = [
        i for i, x in arrays.items() if x.dtype.name in ("float32", "float64") and x.ndim and x.size
    ]
    first = arrays[places[0]] if places else None
    if first is None or first[0].size > _LARGEST_ROW or not np.isfinite(first).any():
        return []
    return [i for i in places if arrays[i].shape == first.shape]


def _sample(case: NodeCase, encrypted: Sequence[int]) -> Sample:
    """More rows than the case has, of its own values in another order: all that it is defined on."""
    rng = np.random.default_rng(len(case.name))
    inputs = list(case.inputs)
    for index in encrypted:
        values = inputs[index][np.isfinite(inputs[index])]
        inputs[index] = rng.choice(values, (_ROWS, *inputs[index].shape[1:]))
    name = case.name.removeprefix("test_")
    return Sample(
        *inputs,
        constants=[i for i, x in enumerate(inputs) if x is not None and i not in encrypted],
        attributes=case.attributes,
        name=name if len(encrypted) == 1 else f"{name}-both",
        opset=case.opset,
        outputs=len(case.node.output),
    )


def _with_one_tensor(sample: Sample, subject: Subject) -> Iterator[Attempt]:
    """The sample with its first encrypted input for all of them: there ops with two may fuse."""
    encrypted = [x for i, x in enumerate(sample.inputs) if i not in sample.constants]
    shapes = {np.shape(x) for x in encrypted if x is not None}
    if len(encrypted) > 1 and len(shapes) == 1:
        attempt = _attempt(sample, subject, shared=True)
        if attempt.net or attempt.claims_to_fuse:
            yield attempt


def _attempt(sample: Sample, subject: Subject, *, shared: bool = False) -> Attempt:
    assert subject.spec is not None  # noqa: S101  # asked for operators alone
    registry = with_hold(subject.registry)
    refusals: list[Exception] = []
    server = None
    for held in (True, False):
        net = net_around(sample, subject.spec, registry, held=held, shared=shared)
        try:
            if net.placed and held:
                server = net
            net.module(_TRIED_BITS)
        except Exception as error:  # noqa: BLE001  # of any pack; reported by a check
            refusals.append(error)
            if server is not None and server.placed.fused:
                break  # where it says that it fuses, it has to
        else:
            return Attempt(net.name, net, server, next(iter(refusals), None))
    return Attempt(net.name, None, server, refusals[0])
