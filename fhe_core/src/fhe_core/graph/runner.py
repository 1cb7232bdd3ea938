"""NumpyModule: an ONNX model run in float, on NumPy alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx

from fhe_core.arguments import names_of
from fhe_core.errors import FheError, InputError, UnsupportedOpError
from fhe_core.graph.budgets import byte_limit
from fhe_core.graph.folding import fold_constants
from fhe_core.graph.inputs import gather, prepare, prepare_one, suggestion
from fhe_core.graph.ir import Graph
from fhe_core.graph.model import load_model, read_graph
from fhe_core.graph.schedule import Schedule, release
from fhe_core.graph.steps import Resolver, Step, registry_of, resolve_steps
from fhe_core.memory import within_memory


class NumpyModule:
    """An ONNX model as a function of NumPy arrays.

    Each node is resolved once, constants are folded once, and every intermediate tensor is let go
    after its last use. A module keeps no state between calls: several threads may share it.

    Args:
        model: a path, bytes, ``onnx.ModelProto`` or ``Graph``.
        registry: where operators come from; the installed packs by default.
        max_bytes: what a tensor, for one sample, and all constants together may take; 8 GiB by default.

    Attributes:
        registry: where operators came from.
        graph: the model as read.
        steps: every node with what implements it, in order.
        folded: all constant arrays by name, initializers and what depends on them alone; read-only.

    Raises:
        ModelError: the model cannot be read, is invalid, or has a node that does not fit its
            implementation, or that fails on constants, or more bytes than it may take.
        UnsupportedOpError: no installed pack implements an op; all such nodes are named.

    Example:
        >>> net = NumpyModule("model.onnx")                   # doctest: +SKIP
        >>> net(np.zeros((5, 64), np.float32)).shape          # doctest: +SKIP
        (5, 10)
    """

    graph: Graph
    steps: tuple[Step, ...]
    folded: Mapping[str, Any]

    @within_memory
    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | onnx.ModelProto | Graph,
        *,
        registry: Resolver | None = None,
        max_bytes: int | None = None,
    ) -> None:
        with byte_limit(max_bytes):
            self._load(model, registry_of(registry))

    def _load(self, model: Any, registry: Resolver) -> None:
        self.registry = registry
        self.graph = model if isinstance(model, Graph) else read_graph(load_model(model), registry)
        self.steps = _resolved(self.graph, registry)
        self.folded, errors = fold_constants(self.steps, self.graph.constants)
        for error in errors:
            raise error
        self._outputs = self._schedule(self.graph.output_names)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in order."""
        return self.graph.input_names

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return self.graph.output_labels

    @within_memory
    def __call__(self, /, *arrays: Any, **named: Any) -> Any:
        """Run the model.

        Args:
            arrays: the inputs by position.
            named: the inputs by name. Floats of any width, integers and booleans are converted to
                a declared float, integers to a declared integer if their values fit. NaN and
                infinity pass through.

        Returns:
            One array, or a tuple where the model has several outputs; the caller's own to change. A
            string tensor is an array of objects, a sequence a list, a map a dict.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape; or an
                implementation failed on it.
            PackError: an implementation returned what is no result.
        """
        infos = self.graph.inputs
        if named or len(arrays) != len(infos):
            arrays_in = prepare(infos, gather(infos, arrays, named))
        else:
            arrays_in = [prepare_one(*pair) for pair in zip(infos, arrays, strict=True)]
        outputs = release(self._outputs.run(arrays_in))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    @within_memory
    def run(
        self, feeds: Mapping[str, Any], *, fetch: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Run what is needed for some tensors.

        Args:
            feeds: every input by name.
            fetch: names of any tensors, intermediate ones, inputs and constants included; the
                outputs by default.

        Returns:
            The tensors by name, in the order of ``fetch``; the caller's own to change.

        Raises:
            InputError: as for a call, or a tensor that the model does not have.
        """
        names = self.output_names
        if fetch is not None:
            names = tuple(dict.fromkeys(names_of(fetch, "fetch", InputError)))
        if names == self.output_names:
            schedule = self._outputs
        else:
            tensors = dict(zip(self.output_names, self.graph.output_names, strict=True))
            schedule = self._schedule([tensors.get(name, name) for name in names])
        values = schedule.run(prepare(self.graph.inputs, feeds))
        return dict(zip(names, release(values), strict=True))

    def _schedule(self, fetch: Sequence[str]) -> Schedule:
        known = {*self.input_names, *self.folded}
        known.update(name for step in self.steps for name in step.node.writes)
        for name in fetch:
            if name not in known:
                raise InputError(
                    f"the model has no tensor named {name!r}",
                    fix=suggestion(name, known) or "use a name from the graph's nodes",
                )
        return Schedule(self.steps, self.input_names, self.folded, fetch)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{info.name}: {info}" for info in self.graph.inputs)
        return (
            f"<NumpyModule ({inputs}) -> ({', '.join(self.output_names)}), {len(self.steps)} nodes>"
        )


def _resolved(graph: Graph, registry: Resolver) -> tuple[Step, ...]:
    steps, errors = resolve_steps(graph, registry)
    unsupported = [error for error in errors if isinstance(error, UnsupportedOpError)]
    if len(unsupported) > 1:
        raise _all_unsupported(unsupported)
    for error in (*unsupported, *errors):
        raise error
    return tuple(steps)


def _all_unsupported(errors: Sequence[FheError]) -> UnsupportedOpError:
    """One error that names each node, those of one op together."""
    nodes: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        op = str(replace(error.where, node=None))
        nodes.setdefault((op, error.problem), []).append(repr(error.where.node))
    lines = [f"{', '.join(names)} ({op}): {problem}" for (op, problem), names in nodes.items()]
    fixes = dict.fromkeys(error.fix for error in errors if error.fix)
    return UnsupportedOpError(
        f"{len(errors)} nodes cannot run: {'; '.join(lines)}",
        fix="; ".join(fixes) or None,
    )
