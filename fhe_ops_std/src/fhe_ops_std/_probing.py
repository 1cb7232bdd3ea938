"""A region of affine nodes as a function of arrays: what it makes of zeros and of impulses.

Everything runs in double precision, so that a composed weight is rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import FheError

from ._linearity import Region

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, NumpyModule

Array = NDArray[Any]
Shape = tuple[int, ...]

# How many numbers of one tensor are computed at once.
_CHUNK = 2**21


@dataclass(frozen=True)
class TensorType:
    """The type of a tensor, and its shape without the batch, which is its first dimension."""

    dtype: np.dtype[Any]
    shape: Shape


def batch_sizes(graph: Graph) -> tuple[int, ...]:
    """Batches that the model can run: the one that it was exported for, or two where it takes any."""
    sizes = [info.shape[0] for info in graph.inputs if info.shape]
    fixed = [size for size in sizes if isinstance(size, int)]
    return (2, 3) if len(fixed) < len(sizes) else tuple(fixed[:1])


def tensor_types(graph: Graph) -> Mapping[str, TensorType]:
    """The float tensors that have the batch as their first dimension, by running the model on zeros.

    Nothing where a dimension besides the batch is open, or the model doesn't run.
    """

    from fhe_core import NumpyModule

    seen: list[dict[str, TensorType]] = []
    for batch in batch_sizes(graph):
        feeds = {}
        for info in graph.inputs:
            if info.dtype is None or not info.shape:
                return {}
            first, *others = info.shape
            shape = [size for size in (first, *others) if isinstance(size, int)]
            shape = shape if isinstance(first, int) else [batch, *shape]
            if len(shape) != len(info.shape):
                return {}
            feeds[info.name] = np.zeros(shape, info.dtype)
        names = [name for node in graph.nodes for name in node.writes]
        try:
            values = NumpyModule(graph).run(feeds, fetch=[*graph.input_names, *names])
        except FheError:
            return {}
        arrays = {name: v for name, v in values.items() if isinstance(v, np.ndarray) and v.ndim > 1}
        seen.append(
            {
                name: TensorType(value.dtype, value.shape[1:])
                for name, value in arrays.items()
                if len(value) == batch and value.dtype.kind == "f" and value.size
            }
        )
    return {
        name: known
        for name, known in (seen[0] if seen else {}).items()
        if all(other.get(name) == known for other in seen)
    }


def double(graph: Graph, nodes: Sequence[Any], start: str, shape: Shape, end: str) -> NumpyModule:
    """Some nodes of a graph as a function of one tensor, in double precision.

    Args:
        graph: has their constants.
        shape: of ``start``, without the batch.
    """
    from fhe_core.graphs import ValueInfo

    from fhe_core import Graph, NumpyModule

    read = {name for node in nodes for name in node.reads}
    constants = {
        name: value.astype(np.float64) if value.dtype.kind == "f" else value
        for name, value in graph.constants.items()
        if name in read
    }
    type_ = np.dtype(np.float64)
    inputs = (ValueInfo(start, type_, (None, *shape)),)
    outputs = (ValueInfo(end, None, None),)
    return NumpyModule(Graph("region", inputs, outputs, tuple(nodes), constants, graph.opsets))


class Probe:
    """A region as a function, of the shapes that it has in the model.

    Attributes:
        start: the type of its start.
        end: the type of its end.
    """

    def __init__(self, region: Region, graph: Graph, types: Mapping[str, TensorType]) -> None:
        self.region = region
        self.graph = graph
        self.types = types
        self.start = types[region.start]
        self.end = types[region.end]
        *_, self._batch = sizes = batch_sizes(graph)
        self._any_batch = len(sizes) > 1
        self._functions: dict[Shape, NumpyModule] = {}

    def samples(self) -> Array:
        """Normally distributed numbers to compare on, in a batch that the model takes."""
        random = np.random.default_rng(0)
        return random.standard_normal((self._batch, *self.start.shape))

    def __call__(self, rows: Array) -> Array | None:
        """The region's end for an array of its start, (N, ...) for any N and shape; None if it fails."""
        region, shape = self.region, rows.shape[1:]
        if shape not in self._functions:
            self._functions[shape] = double(
                self.graph, region.nodes, region.start, shape, region.end
            )
        run = self._functions[shape]
        result = _run(run, rows)
        if result is not None or self._any_batch or len(rows) == self._batch:
            return result
        # Perhaps something in it holds for the batch that the model was exported for alone.
        results = []
        for part in _padded(rows, self._batch):
            result = _run(run, part)
            if result is None:
                return None
            results.append(result)
        return np.concatenate(results)[: len(rows)]

    def responses(
        self, shape: Shape, window: tuple[Any, ...], taken: tuple[Any, ...]
    ) -> tuple[Array, Array] | None:
        """What the region adds to anything, and what it makes of single ones.

        Args:
            shape: of the start, without the batch, the region's own or another.
            window: which of its elements are set to one, each at a time: an index.
            taken: which elements of the end are looked at: an index.

        Returns:
            Vectors (K,) and (impulses, K) in double precision, or None if it fails.
        """
        places = np.arange(np.prod(shape, dtype=int)).reshape(shape)[window].ravel()
        base = self._taken(np.zeros((1, *shape)), taken)
        if base is None:
            return None
        found = []
        largest = max(int(np.prod(shape)), *(int(np.prod(t.shape)) for t in self._inner()))
        for part in _parts(places, max(1, _CHUNK // largest)):
            rows = np.zeros((len(part), int(np.prod(shape))))
            rows[np.arange(len(part)), part] = 1
            answer = self._taken(rows.reshape(-1, *shape), taken)
            if answer is None:
                return None
            found.append(answer - base)
        return base[0], np.concatenate(found)

    def _taken(self, rows: Array, taken: tuple[Any, ...]) -> Array | None:
        result = self(rows)
        try:
            return None if result is None else result[(slice(None), *taken)].reshape(len(rows), -1)
        except IndexError:
            return None

    def _inner(self) -> Iterator[TensorType]:
        names = (name for node in self.region.nodes for name in node.writes)
        return (self.types[name] for name in names if name in self.types)


def _run(run: NumpyModule, rows: Array) -> Array | None:
    try:
        result = run(rows)
    except FheError:
        return None
    sound = result.ndim > 0 and len(result) == len(rows) and bool(np.isfinite(result).all())
    return result if sound else None


def _padded(rows: Array, size: int) -> Iterator[Array]:
    for part in _parts(rows, size):
        missing = np.zeros((size - len(part), *rows.shape[1:]))
        yield np.concatenate([part, missing])


def _parts(values: Array, size: int) -> Iterator[Array]:
    return (values[i : i + size] for i in range(0, len(values), size))
