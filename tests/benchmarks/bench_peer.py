"""Scores, costs and encrypted seconds of the trained nets, and what Concrete ML's front costs there.

Exits with 1 if a net cannot be compiled, after the others are measured.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from fhe_core.quantization.module import Cost
from nets import CLOSE, HANDICAP, Net, peer_complexity
from printing import console, heading, note, show
from results import Target, at_least, at_most, keep

import fhe_core

NETS = ("mlp_digits", "cnn_digits", "resmlp_digits", "mlp_diabetes")
FLOAT_DIFFERENCE = 1e-5
SEEDS = 10
#: The goal: how many times our cost the peer's is, as the geometric mean and for each net.
MEAN_RATIO = 8.0
LEAST_RATIO = 2.5
#: Encrypted inferences of each net of digits.
ENCRYPTED = 20
COMPILE_SECONDS = 60.0


@dataclass(frozen=True)
class Measured:
    """One net.

    Attributes:
        difference: largest one between our float outputs and the reference.
        clear_score: of the integers without noise.
        scores: of the simulation, by seed.
        compile_seconds: with the search.
        peer_complexity: what its front costs at our score minus 0.005.
        encrypted: seconds of each encrypted inference, keys and first run apart; none if not measured.
        agreeing: how many of these gave what one of the simulations gives, to the class.
    """

    name: str
    difference: float
    float_score: float
    clear_score: float
    scores: tuple[float, ...]
    cost: Cost
    compile_seconds: float
    peer_complexity: float
    encrypted: tuple[float, ...] = ()
    agreeing: int = 0

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
    def ratio(self) -> float:
        """The peer's cost over ours."""
        return self.peer_complexity / self.cost.complexity

    @property
    def missed(self) -> str:
        """By how much; empty if the net is as close as wanted, and no dearer than the peer's."""
        parts = []
        if self.score < self.wanted:
            parts.append(f"score -{self.wanted - self.score:.4f}")
        if self.ratio < LEAST_RATIO:
            parts.append(f"ratio {LEAST_RATIO / self.ratio:.2f}x too small")
        return ", ".join(parts)

    def target(self) -> Target:
        return Target(
            self.name,
            f"≥ {self.wanted:.4f} at ≤ {giga(self.peer_complexity / LEAST_RATIO)}",
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
    if measured:
        targets += [
            at_least("peer/ours, mean", _mean_ratio(measured), MEAN_RATIO, "{:,.1f}x"),
            at_most(
                "slowest compilation",
                max(row.compile_seconds for row in measured),
                COMPILE_SECONDS,
                "{:.0f} s",
            ),
        ]
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
    qm = fhe_core.compile(net.model, net.x_calib, labels=net.y_calib, savings="all", progress=True)
    seconds = time.perf_counter() - start
    encrypted, agreeing = _encrypted(qm, net) if net.y_test.dtype.kind in "iu" else ((), 0)
    simulated = [qm.forward(net.x_test, fhe="simulate", seed=seed) for seed in range(SEEDS)]
    return Measured(
        name=net.name,
        difference=float(np.max(np.abs(outputs - net.y_ref))),
        float_score=float_score,
        clear_score=net.score(qm.forward(net.x_test, fhe="disable")),
        scores=tuple(net.score(result) for result in simulated),
        cost=qm.cost,
        compile_seconds=seconds,
        peer_complexity=peer_complexity(
            net.name, float(np.mean([net.score(result) for result in simulated])) - HANDICAP
        ),
        encrypted=encrypted,
        agreeing=agreeing,
    )


def _encrypted(qm: fhe_core.QuantizedModule, net: Net) -> tuple[tuple[float, ...], int]:
    """Seconds of encrypted inferences, and how many have a class that the simulation has too."""
    qm.forward(net.x_test[:1], fhe="execute")
    seconds, agreeing = [], 0
    for i in range(1, ENCRYPTED + 1):
        sample = net.x_test[i : i + 1]
        start = time.perf_counter()
        found = qm.forward(sample, fhe="execute").argmax()
        seconds.append(time.perf_counter() - start)
        classes = {qm.forward(sample, fhe="simulate", seed=k).argmax() for k in range(SEEDS)}
        agreeing += int(found in classes)
    return tuple(seconds), agreeing


def _mean_ratio(measured: list[Measured]) -> float:
    return float(np.exp(np.mean([np.log(row.ratio) for row in measured])))


def giga(complexity: float) -> str:
    return f"{complexity / 1e9:.2f} G" if complexity >= 1e7 else f"{complexity:,.0f}"


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
    heading("Against Concrete ML 1.9, and encrypted on this machine")
    rows = []
    for row in measured:
        timed = row.encrypted
        rows.append(
            (
                row.name,
                giga(row.cost.complexity),
                giga(row.peer_complexity),
                f"{row.ratio:,.2f}x",
                f"{np.median(timed):.3f} s" if timed else "",
                f"{min(timed):.3f}-{max(timed):.3f}" if timed else "",
                f"{row.agreeing}/{len(timed)}" if timed else "",
            )
        )
    show(("net", "ours", "peer", "peer/ours", "encrypted", "spread", "agree"), rows)
    kept = [row for row in measured if row.cost.pbs_count]
    note(
        f"Geometric mean of peer over ours: {_mean_ratio(measured):,.1f}x"
        + (f"; of the nets that keep look-ups: {_mean_ratio(kept):,.1f}x. " if kept else ". ")
        + f"Peer: what its front costs at our score minus {HANDICAP}. Its scores are of clear "
        "integers; ours have the noise of approximate rounding in them. Both at p_error 2^-40. "
        f"Encrypted: median of {ENCRYPTED} inferences, keys made before; agree: those whose class "
        "is one of the simulation's."
    )


def _figures(row: Measured) -> dict[str, Any]:
    return {
        **asdict(row),
        "score": row.score,
        "spread": row.spread,
        "wanted": row.wanted,
        "peer_over_ours": row.ratio,
    }


if __name__ == "__main__":
    sys.exit(main())
