"""Throughput in the clear and simulated, and Concrete's own simulation of the same circuit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from fhe_core.compiler.concrete_backend import compile_program, concrete
from nets import Array, Net
from printing import console, heading, note, show
from results import at_least, keep

import fhe_core

DIGITS = 20_000
CLEAR_RATE = 20_000
SIMULATION_RATIO = 50
ROUNDS = 5


@dataclass(frozen=True)
class Pace:
    """How fast one way is.

    Attributes:
        digits: in one run.
        seconds: of each run.
        accuracy: on the test set.
        noise: mean distance of its outputs from those of the integers in the clear.
    """

    digits: int
    seconds: tuple[float, ...]
    accuracy: float
    noise: float

    @property
    def rate(self) -> float:
        """Digits a second, in the best run."""
        return self.digits / min(self.seconds)


def main() -> None:
    net = Net.load("mlp_digits")
    qm = fhe_core.compile(net.model, net.x_calib, labels=net.y_calib, progress=True)
    circuit = simulating_circuit(qm)
    samples = net.x_test
    many = np.resize(samples, (DIGITS, *samples.shape[1:]))
    integers = _samples_as_integers(qm, samples)

    def concrete_one_by_one() -> Array:
        return _decoded(qm, [circuit.simulate(*sample) for sample in integers])

    def ours_one_by_one() -> Array:
        return np.concatenate(
            [qm.forward(samples[i : i + 1], fhe="simulate", seed=i) for i in range(len(samples))]
        )

    ways: dict[str, tuple[int, Callable[[], Array]]] = {
        "disable, batch": (DIGITS, lambda: qm.forward(many, fhe="disable")),
        "simulate, batch": (DIGITS, lambda: qm.forward(many, fhe="simulate")),
        "simulate, one by one": (len(samples), ours_one_by_one),
        "Concrete's, one by one": (len(samples), concrete_one_by_one),
    }
    paces = _measure(ways, net, clear=qm.forward(samples, fhe="disable"))

    heading("Digits a second, mlp_digits")
    show(
        ("way", "digits", "best", "median", "accuracy", "noise"),
        [
            (
                name,
                f"{pace.digits:,}",
                f"{pace.rate:,.0f}/s",
                f"{pace.digits / np.median(pace.seconds):,.0f}/s",
                f"{pace.accuracy:.4f}",
                f"{pace.noise:.3f}",
            )
            for name, pace in paces.items()
        ],
    )
    clear, batched, single, theirs = paces.values()
    console.print(
        f"simulate is {batched.rate / theirs.rate:,.0f} times as fast as Concrete's simulation; "
        f"{single.rate / theirs.rate:.1f} times, one by one",
        soft_wrap=True,
    )
    note(
        f"Best and median of {ROUNDS} runs, in turn. Ours are from floats to floats; Concrete's "
        "is without the encoding of inputs. Accuracy: on the test set. Noise: mean distance of "
        "the outputs from those of fhe='disable'."
    )

    targets = [
        at_least("disable, digits a second", clear.rate, CLEAR_RATE, "{:,.0f}/s"),
        at_least(
            "simulate, over Concrete's",
            batched.rate / theirs.rate,
            SIMULATION_RATIO,
            "{:,.0f}x",
        ),
    ]
    figures = {
        name: {
            "digits": pace.digits,
            "digits_per_second": pace.rate,
            "seconds": pace.seconds,
            "accuracy": pace.accuracy,
            "noise": pace.noise,
        }
        for name, pace in paces.items()
    }
    keep("speed", targets, figures)


def simulating_circuit(qm: fhe_core.QuantizedModule) -> Any:
    """Concrete's simulation of the very circuit that the backend compiles, parameters and all.

    The backend keeps only what it needs for encryption, so the circuit is caught on its way there.
    """
    compiler = concrete().Compiler
    compiled, circuits = compiler.compile, []

    def catching(*arguments: Any, **named: Any) -> Any:
        circuits.append(compiled(*arguments, **named))
        return circuits[-1]

    with mock.patch.object(compiler, "compile", catching):
        compile_program(qm.program, qm.p_error)
    (circuit,) = circuits
    circuit.enable_fhe_simulation()
    return circuit


def _samples_as_integers(qm: fhe_core.QuantizedModule, samples: Array) -> list[tuple[Array, ...]]:
    """What a client would encrypt, a tuple of arrays with a batch of one for each sample."""
    encoded = qm.encode(samples)
    columns = [encoded[node.name] for node in qm.program.inputs]
    return [tuple(column[i : i + 1] for column in columns) for i in range(len(samples))]


def _decoded(qm: fhe_core.QuantizedModule, results: list[Array]) -> Array:
    (offset,) = qm.program.offsets
    decoded: Array = qm.decode([np.concatenate(results) - offset])
    return decoded


def _measure(
    ways: dict[str, tuple[int, Callable[[], Array]]], net: Net, clear: Array
) -> dict[str, Pace]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    outputs: dict[str, Array] = {}
    # In turn, so that what else the machine does falls on all of them. The first round warms up.
    for turn in range(ROUNDS + 1):
        for name, (_, run) in ways.items():
            start = time.perf_counter()
            outputs[name] = run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    firsts = {name: found[: len(clear)] for name, found in outputs.items()}
    return {
        name: Pace(
            digits,
            tuple(seconds[name]),
            net.score(firsts[name]),
            float(np.mean(np.abs(firsts[name] - clear))),
        )
        for name, (digits, _) in ways.items()
    }


if __name__ == "__main__":
    main()
