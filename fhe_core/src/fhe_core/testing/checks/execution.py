"""Running a quantized operator: in the clear, simulated, in batches, encrypted."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import WrapAroundWarning
from fhe_core.program import nodes
from fhe_core.quantization.module import QuantizedModule
from fhe_core.testing.attempts import attempts, cases, net_of
from fhe_core.testing.checks import Check, CheckFailed, CheckSkipped
from fhe_core.testing.checks.accuracy import is_quantized
from fhe_core.testing.nets import Net
from fhe_core.testing.subject import Subject

Array = NDArray[Any]

_BITS, _ENCRYPTED_BITS = 4, 3
_SAMPLES = 5


def outputs(results: Any) -> tuple[Any, ...]:
    """What a module gives, one output or several, as a tuple."""
    return results if isinstance(results, tuple) else (results,)


def rows(net: Net, which: slice | Array) -> dict[str, Any]:
    """Some samples of a net's data."""
    return {name: array[which] for name, array in net.data.items()}


def require_equal(got: Any, expected: Any, problem: str, fix: str) -> None:
    """Raises CheckFailed unless two results of a module are the same."""
    for number, (one, other) in enumerate(zip(outputs(got), outputs(expected), strict=True)):
        if one.shape != other.shape:
            raise CheckFailed(
                f"{problem}: output {number} has another shape",
                expected=str(other.shape),
                got=str(one.shape),
                fix=fix,
            )
        if not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            differing = one != other
            raise CheckFailed(
                f"{problem}: output {number} differs in {np.count_nonzero(differing)} of {one.size}",
                expected=str(other[differing].reshape(-1)[0]),
                got=str(one[differing].reshape(-1)[0]),
                fix=fix,
            )


def _shapes(subject: Subject, case: str) -> None:
    net = net_of(subject, case)
    module = net.module(_BITS)
    for count in (1, _SAMPLES):
        data = rows(net, slice(count))
        got, wanted = outputs(module.forward(**data)), outputs(net.session.net(**data))
        for number, (one, other) in enumerate(zip(got, wanted, strict=True)):
            if np.shape(one) != np.shape(other):
                raise CheckFailed(
                    f"output {number} of {count} samples has another shape than in float",
                    expected=str(np.shape(other)),
                    got=str(np.shape(one)),
                    fix="make q_impl return what the NumPy implementation returns",
                )


def _determinism(subject: Subject, case: str) -> None:
    net = net_of(subject, case)
    first, second = net.quantized(_BITS), net.on(net.data, "again").quantized(_BITS)
    if first.plan.to_json() != second.plan.to_json():
        raise CheckFailed(
            "two quantizations of one model on the same data have different plans",
            fix="seed what q_impl draws at random, and keep no state between calls",
        )
    require_equal(
        second.forward(**net.data),
        first.forward(**net.data),
        "two quantizations of one model on the same data",
        "seed what q_impl draws at random, and keep no state between calls",
    )


def _simulate(subject: Subject, case: str) -> None:
    net = net_of(subject, case)
    for rounding in (None, _BITS):
        module = net.module(_BITS, rounding)
        with warnings.catch_warnings():
            # Roundings this coarse may move sums of them beyond their width: in both alike.
            warnings.simplefilter("ignore", WrapAroundWarning)
            require_equal(
                module.forward(**net.data, fhe="simulate"),
                module.forward(**net.data),
                "simulated, with exact rounding",
                "report it to fhe-core, with the op: both read one integer program",
            )


def _batch(subject: Subject, case: str) -> None:
    net = net_of(subject, case)
    module = net.quantized(_BITS)
    recorded = net.session.recorded
    assert recorded is not None  # noqa: S101  # `quantized` has just recorded it
    axes = [value.shape.index(nodes.BATCH) for value in recorded.outputs.values()]
    whole = outputs(module.forward(**net.data))
    for i in range(min(_SAMPLES, _count(net))):
        require_equal(
            module.forward(**rows(net, slice(i, i + 1))),
            tuple(np.take(x, [i], axis) for x, axis in zip(whole, axes, strict=True)),
            f"sample {i} by itself",
            "compute each sample from itself alone: not from the others of its batch",
        )
    order = np.random.default_rng(0).permutation(_count(net))
    require_equal(
        module.forward(**rows(net, order)),
        tuple(np.take(x, order, axis) for x, axis in zip(whole, axes, strict=True)),
        "the samples in another order",
        "compute each sample from itself alone: not from the others of its batch",
    )


def _count(net: Net) -> int:
    return len(next(iter(net.data.values())))


def _encrypted(subject: Subject, case: str) -> None:
    if importlib.util.find_spec("concrete") is None:
        raise CheckSkipped("concrete-python is not installed: pip install 'fhe-core[concrete]'")
    from fhe_core.compiler.artifact import load
    from fhe_core.compiler.concrete_backend import compile_program

    net = net_of(subject, case)
    one = rows(net, slice(1))
    module = net.quantized(_ENCRYPTED_BITS, _ENCRYPTED_BITS + 1, results=_ENCRYPTED_BITS)
    module.circuit = compile_program(module.program, module.p_error)

    def require_clear(circuit: QuantizedModule, what: str) -> None:
        require_equal(
            circuit.forward(**one, fhe="execute"),
            module.forward(**one),
            what,
            "report it to fhe-core, with the op: the circuit is made from its integer program",
        )

    require_clear(module, "encrypted")
    if subject.saved:
        with tempfile.TemporaryDirectory() as folder:
            module.save(Path(folder) / "model")
            require_clear(load(Path(folder) / "model"), "loaded")


def _takes_part(subject: Subject) -> bool:
    return subject.encrypted and subject.has_quantized


def _smallest(subject: Subject) -> tuple[str, ...]:
    """The attempt on the server with the fewest values, on integers if it ever works on them: keys for a large
    one take minutes."""
    nets = [attempt.net for attempt in attempts(subject) if attempt.net and attempt.net.held]
    order = {
        net.name: (net.placed.fused, sum(x[0].size for x in net.data.values()), net.name)
        for net in nets
    }
    return tuple(sorted(order, key=lambda name: order[name])[:1])


SHAPES = Check(
    "shapes", "quantized results have the shapes of the float ones.", _shapes, is_quantized, cases
)
DETERMINISM = Check(
    "determinism",
    "quantizing the same model on the same data gives the same plan and results.",
    _determinism,
    is_quantized,
    cases,
)
SIMULATE = Check(
    "simulate",
    "with exact rounding, simulation gives what the clear run gives.",
    _simulate,
    is_quantized,
    cases,
)
BATCH = Check(
    "batch",
    "a batch gives what its samples give one by one, in their order.",
    _batch,
    is_quantized,
    cases,
)
ENCRYPTED = Check(
    "encrypted",
    "encrypted, a sample gives what it gives in the clear; so it does loaded from where it was saved.",
    _encrypted,
    _takes_part,
    _smallest,
    encrypts=True,
)

CHECKS = (SHAPES, DETERMINISM, SIMULATE, BATCH, ENCRYPTED)
