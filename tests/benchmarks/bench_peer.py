"""Scores and costs of the trained nets, and Concrete ML's cheapest setting that is as close to float.

Exits with 1 if a net cannot be compiled, after the others are measured.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from fhe_core.quantization.module import Cost
from nets import CLOSE, Net, cheapest_of_peer
from printing import console, heading, note, show
from results import Target, at_most, keep

import fhe_core

NETS = ("mlp_digits", "cnn_digits", "resmlp_digits", "mlp_diabetes")
FLOAT_DIFFERENCE = 1e-5
SEEDS = 10


@dataclass(frozen=True)
class Measured:
    """One net.

    Attributes:
        difference: largest one between our float outputs and the reference.
        clear_score: of the integers without noise.
        scores: of the simulation, by seed.
        compile_seconds: with the search.
        peer: the cheapest setting that is close, if there is one.
    """

    name: str
    difference: float
    float_score: float
    clear_score: float
    scores: tuple[float, ...]
    cost: Cost
    compile_seconds: float
    peer: dict[str, Any] | None

    @property
    def score(self) -> float:
        return float(np.mean(self.scores))

    @property
    def spread(self) -> float:
        return float(np.std(self.scores, ddof=1))

    @property
    def wanted(self) -> float:
        return self.float_score - CLOSE

    @property
    def peer_complexity(self) -> float:
        return float(self.peer["complexity"]) if self.peer else float("inf")

    @property
    def missed(self) -> str:
        """By how much; empty if the net is as close as wanted, and no dearer than the peer's."""
        parts = []
        if self.score < self.wanted:
            parts.append(f"score -{self.wanted - self.score:.4f}")
        if self.cost.complexity > self.peer_complexity:
            parts.append(f"cost {self.cost.complexity / self.peer_complexity:.2f}x")
        return ", ".join(parts)

    def target(self) -> Target:
        return Target(
            self.name,
            f"≥ {self.wanted:.4f} at ≤ {giga(self.peer_complexity)}",
            f"{self.score:.4f} at {giga(self.cost.complexity)}",
            self.missed,
        )


def main() -> int:
    results = {name: _attempt(name) for name in NETS}
    measured = [found for found in results.values() if isinstance(found, Measured)]
    failed = {name: str(found) for name, found in results.items() if isinstance(found, Exception)}
    _show_ours(measured)
    _show_peer(measured)
    for name, message in failed.items():
        heading(f"{name} failed")
        console.print(message, markup=False)

    targets = [
        at_most("float results, difference", row.difference, FLOAT_DIFFERENCE, "{:.1e}")
        for row in sorted(measured, key=lambda row: -row.difference)[:1]
    ]
    targets += [row.target() for row in measured]
    targets += [Target(name, "compiles", "failed", "failed") for name in failed]
    figures = {row.name: _figures(row) for row in measured}
    keep("peer", targets, {**figures, **{name: {"error": text} for name, text in failed.items()}})
    return 1 if failed else 0


def _attempt(name: str) -> Measured | fhe_core.FheError:
    try:
        return _measure(Net.load(name))
    except fhe_core.FheError as error:
        return error


def _measure(net: Net) -> Measured:
    outputs = fhe_core.NumpyModule(net.model)(net.x_test)
    float_score = net.score(outputs)
    start = time.perf_counter()
    qm = fhe_core.compile(net.model, net.x_calib, labels=net.y_calib, progress=True)
    seconds = time.perf_counter() - start
    simulated = [qm.forward(net.x_test, fhe="simulate", seed=seed) for seed in range(SEEDS)]
    return Measured(
        name=net.name,
        difference=float(np.max(np.abs(outputs - net.y_ref))),
        float_score=float_score,
        clear_score=net.score(qm.forward(net.x_test, fhe="disable")),
        scores=tuple(net.score(result) for result in simulated),
        cost=qm.cost,
        compile_seconds=seconds,
        peer=cheapest_of_peer(net.name, float_score - CLOSE),
    )


def giga(complexity: float) -> str:
    return f"{complexity / 1e9:.2f} G"


def _show_ours(measured: list[Measured]) -> None:
    heading('Trained nets, compiled with labels and n_bits="auto"')
    show(
        ("net", "|Δ ref|", "float", "score", "spread", "complexity", "look-ups", "compile"),
        [
            (
                row.name,
                f"{row.difference:.1e}",
                f"{row.float_score:.4f}",
                f"{row.score:.4f}",
                f"{row.spread:.4f}",
                giga(row.cost.complexity),
                f"{row.cost.pbs_count}",
                f"{row.compile_seconds:.1f} s",
            )
            for row in measured
        ],
    )
    note(
        "|Δ ref|: largest difference between float outputs here and in onnxruntime. "
        f"Score: accuracy or R² on the test set, simulated with noise, mean of {SEEDS} seeds; "
        "spread: its standard deviation. Complexity is Concrete's, of one inference."
    )


def _show_peer(measured: list[Measured]) -> None:
    heading(f"Against Concrete ML 1.9: its cheapest setting with score ≥ float - {CLOSE}")
    rows = []
    for row in measured:
        peer = row.peer or {}
        rows.append(
            (
                row.name,
                giga(row.cost.complexity),
                giga(row.peer_complexity) if peer else "none",
                f"{peer['score']:.4f}" if peer else "",
                f"{peer['n_bits']}/{peer['r'] or '-'}" if peer else "",
                f"{row.peer_complexity / row.cost.complexity:.2f}x" if peer else "",
                row.target().outcome,
            )
        )
    show(
        ("net", "ours", "peer", "its score", "bits/r", "peer/ours", "result"),
        rows,
        left=("result",),
    )
    note(
        f"Met: our score is at least float - {CLOSE}, at no more than the peer's complexity. "
        "Else what the score lacks, and our cost over the peer's. "
        "bits/r: its n_bits, and the bits that its roundings keep. Its scores are of clear "
        "integers; ours have the noise of approximate rounding in them. Both at p_error 2^-40."
    )


def _figures(row: Measured) -> dict[str, Any]:
    return {
        **asdict(row),
        "score": row.score,
        "spread": row.spread,
        "wanted": row.wanted,
        "peer_over_ours": row.peer_complexity / row.cost.complexity if row.peer else None,
    }


if __name__ == "__main__":
    sys.exit(main())
