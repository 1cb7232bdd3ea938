"""ONNX's backend suite: whole models with data, run through `fhe_core.NumpyModule`.

``python -m tests.ops_std.onnx_suite`` writes how many cases of each op pass to
``docs/onnx_suite.json``.
"""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import fhe_core

from . import onnx_cases
from .suite_exclusions import CASES, DOMAINS, OPS, SEQUENCES

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
TALLY = Path(__file__).resolve().parents[2] / "docs" / "onnx_suite.json"

Op = tuple[str, str]  # domain, name


@dataclass(frozen=True)
class SuiteCase:
    """A model of ONNX's suite with what it shall compute."""

    kind: str
    name: str
    source: Any

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        if self.source.model is not None:
            return self.source.model
        return onnx.load(Path(self.source.model_dir) / "model.onnx")

    @functools.cached_property
    def ops(self) -> frozenset[Op]:
        """Every operator in the model, in subgraphs too."""
        return frozenset(_ops(self.model.graph))

    @property
    def op(self) -> Op | None:
        """The operator that a node case is about: the expanded forms are about that of the others."""
        if self.kind != "node":
            return None
        base = self.name.partition("_expanded")[0]
        node = _by_name().get(base, self).model.graph.node[0]
        return node.domain, node.op_type

    @property
    def excluded(self) -> str:
        """Why this case is out of scope; empty if it is in."""
        kinds = {info.type.WhichOneof("value") for info in self.model.graph.input}
        if kinds - {"tensor_type"}:
            return SEQUENCES
        about = {*self.ops, *([self.op] if self.op else [])}
        return next(filter(None, map(_exclusion, sorted(about))), "")

    def data_sets(self) -> Iterator[tuple[list[Any], list[Any]]]:
        """Inputs and expected outputs."""
        graph = self.model.graph
        if self.source.data_sets is not None:
            for inputs, outputs in self.source.data_sets:
                yield list(map(_value, inputs)), list(map(_value, outputs))
            return
        for folder in sorted(Path(self.source.model_dir).glob("test_data_set_*")):
            count = len(list(folder.glob("input_*.pb")))
            yield (
                _saved(folder, "input", graph.input[:count]),
                _saved(folder, "output", graph.output),
            )

    def check(self, registry: Any = None) -> None:
        """Run the model on its data, and compare dtypes, shapes and values."""
        net = fhe_core.NumpyModule(self.model, registry=registry)
        for inputs, expected in self.data_sets():
            outputs = net(*inputs)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            assert len(outputs) == len(expected)
            for got, wanted in zip(outputs, expected, strict=True):
                rtol, atol = self.source.rtol, self.source.atol
                onnx_cases.assert_same(got, wanted, rtol=rtol, atol=atol)


@functools.cache
def cases() -> tuple[SuiteCase, ...]:
    """Every case of the four kinds, by kind and name."""
    return tuple(
        SuiteCase(kind, test.name, test)
        for kind in KINDS
        for test in sorted(onnx_cases.onnx_tests(kind), key=lambda test: test.name)
    )


@functools.cache
def _by_name() -> dict[str, SuiteCase]:
    return {case.name: case for case in cases() if case.kind == "node"}


def _exclusion(op: Op) -> str:
    domain, name = op
    if not domain:
        return OPS.get(name, "")
    if domain in DOMAINS or not fhe_core.get_registry().ops(domain=domain):
        return DOMAINS.get(domain, "")
    implemented = {spec.op_type for spec in fhe_core.get_registry().ops(domain=domain)}
    return "" if name in implemented else f"no pack implements {domain}.{name}"


def _ops(graph: onnx.GraphProto) -> Iterator[Op]:
    for node in graph.node:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _ops(body)


def _saved(folder: Path, what: str, infos: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    read = {
        "tensor_type": (onnx.TensorProto, numpy_helper.to_array),
        "sequence_type": (onnx.SequenceProto, numpy_helper.to_list),
        "optional_type": (onnx.OptionalProto, numpy_helper.to_optional),
    }
    found = []
    for i, info in enumerate(infos):
        message, convert = read[info.type.WhichOneof("value")]
        found.append(convert(message.FromString((folder / f"{what}_{i}.pb").read_bytes())))
    return found


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(item) for item in value]
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value if value is None else np.asarray(value)


def tally() -> dict[str, Any]:
    """How many cases pass, of each kind, and of each op with its family."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    ops: dict[Op, Counter[str]] = defaultdict(Counter)
    for case in cases():
        counters = [kinds[case.kind], *([ops[case.op]] if case.op else [])]
        outcome = "excluded" if case.excluded else "failed" if case.name in CASES else "passed"
        if outcome == "passed":
            case.check()
        for counter in counters:
            counter[outcome] += 1
    return {
        "onnx": onnx.__version__,
        "kinds": {kind: _counts(counter) for kind, counter in kinds.items()},
        "ops": {
            f"{domain}.{name}" if domain else name: {
                "family": _family(domain, name),
                **_counts(counter),
            }
            for (domain, name), counter in sorted(ops.items())
        },
    }


def _counts(counter: Counter[str]) -> dict[str, int]:
    passed, failed = counter["passed"], counter["failed"]
    return {"passed": passed, "total": passed + failed, "excluded": counter["excluded"]}


def _family(domain: str, name: str) -> str:
    """The file that implements an op; empty if none does, and its body in ONNX stands for it."""
    specs = [s for s in fhe_core.get_registry().ops(domain=domain) if s.op_type == name and s.impl]
    return specs[-1].impl.__module__.rpartition(".")[2] if specs else ""


if __name__ == "__main__":
    TALLY.write_text(json.dumps(tally(), indent=1) + "\n", encoding="utf-8")
