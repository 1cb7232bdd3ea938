"""Whole networks in float: against ONNX's reference and ONNX Runtime, and what a node costs."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from printing import heading, note, show
from results import ROOT, at_least, at_most, keep
from threadpoolctl import threadpool_limits

import fhe_core

sys.path.insert(0, str(ROOT / "tests" / "ops_std"))
import networks

OVER_REFERENCE = 15
OVER_RUNTIME = 5
NODE_MICROSECONDS = 5

ROUNDS = 15
#: The reference takes seconds where the others take milliseconds.
REFERENCE_ROUNDS = 3
NODES = 2_000

Run = Callable[[], Any]


@dataclass(frozen=True)
class Measured:
    """One network: the best time of each, in seconds of the processor, and the largest difference
    between our outputs and ONNX Runtime's, relative to the output's largest magnitude."""

    name: str
    nodes: int
    ours: float
    reference: float
    runtime: float
    difference: float

    @property
    def over_reference(self) -> float:
        return self.reference / self.ours

    @property
    def over_runtime(self) -> float:
        return self.ours / self.runtime


def main() -> None:
    with threadpool_limits(1):
        measured = [_measure(name) for name in networks.light_names()]
        chain, bare = _chain()
    heading("Light models of ONNX's backend suite, one image")
    show(
        ("network", "nodes", "ours", "reference", "Runtime", "ref/ours", "ours/Rt", "|Δ Rt|"),
        [
            (
                row.name,
                f"{row.nodes}",
                f"{row.ours * 1e3:.1f} ms",
                f"{row.reference * 1e3:,.0f} ms",
                f"{row.runtime * 1e3:.1f} ms",
                f"{row.over_reference:.1f}x",
                f"{row.over_runtime:.2f}x",
                f"{row.difference:.0e}",
            )
            for row in measured
        ],
    )
    overhead = (chain - bare) / NODES * 1e6
    note(
        f"Best of {ROUNDS} runs in turn, {REFERENCE_ROUNDS} of the reference, in processor time of "
        "one process with one thread for each. Weights are constants with seeded values. Reference: "
        "onnx.reference.ReferenceEvaluator; Runtime: onnxruntime, which fuses and rearranges what "
        "it can. |Δ Rt|: largest difference from its outputs, relative to the largest of them. The "
        "reference is not compared with: some of its results are wrong."
    )
    note(
        f"A chain of {NODES:,} small elementwise nodes takes {chain * 1e3:.2f} ms, the same NumPy "
        f"calls in a loop {bare * 1e3:.2f} ms."
    )

    targets = [
        at_least(
            "reference/ours, geometric mean",
            geometric_mean(row.over_reference for row in measured),
            OVER_REFERENCE,
            "{:.1f}x",
        ),
        at_most(
            "ours/onnxruntime, geometric mean",
            geometric_mean(row.over_runtime for row in measured),
            OVER_RUNTIME,
            "{:.2f}x",
        ),
        at_most("overhead of a node", overhead, NODE_MICROSECONDS, "{:.2f} µs"),
    ]
    figures = {row.name: _figures(row) for row in measured}
    keep("networks", targets, {**figures, "chain_seconds": {"ours": chain, "bare": bare}})


def _measure(name: str) -> Measured:
    model, image = _with_constants(networks.light(name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    reference, net = ReferenceEvaluator(model), fhe_core.NumpyModule(model)

    def ours() -> list[Any]:
        return list(net.run(image).values())

    def runtime() -> Any:
        return session.run(None, image)

    pairs = zip(ours(), runtime(), strict=True)
    difference = max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs)
    best = _best({"ours": ours, "runtime": runtime}, ROUNDS)
    slow = _best({"reference": lambda: reference.run(None, image)}, REFERENCE_ROUNDS)
    return Measured(name, len(net.steps), difference=difference, **best, **slow)


def _with_constants(light: networks.Light) -> tuple[onnx.ModelProto, networks.Feeds]:
    """The model with its weights as constants, and its image."""
    graph = light.model.graph
    image, *weights = light.feeds  # the image comes first
    graph.initializer.extend(numpy_helper.from_array(light.feeds[name], name) for name in weights)
    inputs = [info for info in graph.input if info.name == image]
    del graph.input[:]
    graph.input.extend(inputs)
    return light.model, {image: light.feeds[image]}


def _best(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """The least processor time of each, in seconds, taken in turn after one round to warm up."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                best[name] = min(best[name], time.process_time() - start)
    return best


def _chain() -> tuple[float, float]:
    """Seconds for many small nodes, ours and bare NumPy."""
    size = 8
    constants = {
        "Add": np.full(size, 0.5, np.float32),
        "Mul": np.full(size, 0.9, np.float32),
        "Max": np.zeros(size, np.float32),
    }
    functions = {"Add": np.add, "Mul": np.multiply, "Max": np.maximum}
    ops = list(itertools.islice(itertools.cycle(constants), NODES))
    nodes = [
        helper.make_node(op, [f"t{i}" if i else "x", op], [f"t{i + 1}"]) for i, op in enumerate(ops)
    ]
    infos = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [size])
        for name in ("x", f"t{NODES}")
    )
    given, result = infos
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "chain", [given], [result], weights)
    net = fhe_core.NumpyModule(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    )
    calls = [(functions[op], constants[op]) for op in ops]
    x = np.linspace(-1, 1, size, dtype=np.float32)

    def bare() -> Any:
        y = x
        for function, constant in calls:
            y = function(y, constant)
        return y

    if not np.array_equal(net(x), bare()):
        raise RuntimeError("the chain computes something else than NumPy")
    best = _best({"ours": lambda: net(x), "bare": bare}, 10 * ROUNDS)
    return best["ours"], best["bare"]


def _figures(row: Measured) -> dict[str, float]:
    return {
        "nodes": row.nodes,
        "ours_seconds": row.ours,
        "reference_seconds": row.reference,
        "runtime_seconds": row.runtime,
        "reference_over_ours": row.over_reference,
        "ours_over_runtime": row.over_runtime,
        "difference_from_runtime": row.difference,
    }


if __name__ == "__main__":
    main()
