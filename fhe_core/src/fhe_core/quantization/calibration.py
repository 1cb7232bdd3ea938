"""Calibration: what the tensors of a model look like on real data.

The float model runs over the data in batches; of each tensor its range, its mean for each element, and a
seeded sample of its values are kept, never the tensor itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CalibrationError, InputError
from fhe_core.graph.inputs import gather, prepare_one
from fhe_core.graph.ir import Graph, ValueInfo
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.tensors import kind
from fhe_core.quantization.quantizers import QuantizationStats

Array = NDArray[Any]

BATCH_SIZE = 256
_SAMPLE = 2**15


def calibration_data(graph: Graph, given: Any) -> dict[str, Array]:
    """The data by input name, checked.

    Args:
        given: an array, a tuple or list of arrays (one an input), or a dict by input name; the leading
            dimension counts samples.

    Raises:
        CalibrationError: a wrong name, shape or dtype, no samples, NaN or infinity, or inputs with
            different numbers of samples.
    """
    if isinstance(given, Mapping):
        arrays: tuple[Any, ...] = ()
        named = dict(given)
    else:
        arrays, named = (tuple(given) if isinstance(given, (tuple, list)) else (given,)), {}
    try:
        feeds = gather(graph.inputs, arrays, named)
    except InputError as error:
        raise _as_calibration(error) from error
    names = graph.input_names
    if not names:
        raise CalibrationError(
            "the model has no inputs, and so nothing to encrypt",
            fix="export the model with its data as inputs",
        )
    unknown = sorted(str(name) for name in feeds if name not in names)
    wrong = unknown or [name for name in names if name not in feeds]
    if wrong:
        raise CalibrationError(
            f"the calibration data and the inputs of the model differ at {', '.join(wrong)}",
            expected=", ".join(names),
            got=", ".join(map(str, feeds)) or "nothing",
            fix="give an array for each input, or a dict by input name",
        )
    data = {info.name: _checked(info, feeds[info.name]) for info in graph.inputs}
    counts = {name: len(array) for name, array in data.items()}
    if len(set(counts.values())) > 1:
        raise CalibrationError(
            "the inputs have different numbers of samples",
            expected="as many samples for each input",
            got=", ".join(f"{name}: {count}" for name, count in counts.items()),
            fix="make the leading dimensions equal",
        )
    static = static_batch(graph)
    if static and next(iter(counts.values())) % static:
        raise CalibrationError(
            f"the model has a static batch size of {static}, and the data has another multiple",
            expected=f"a multiple of {static} samples",
            got=str(next(iter(counts.values()))),
            fix="drop samples, or export the model with a symbolic batch size",
        )
    return data


def static_batch(graph: Graph) -> int | None:
    """The batch size that the model was exported for, None where it is symbolic."""
    sizes = {info.shape[0] for info in graph.inputs if info.shape}
    numbers = [size for size in sizes if isinstance(size, int)]
    return numbers[0] if len(numbers) == 1 and len(sizes) == 1 else None


def _checked(info: ValueInfo, value: Any) -> Array:
    if info.dtype is not None and info.dtype.kind == "V":
        raise CalibrationError(
            f"the input {info.name!r} is of a type that is not quantized",
            expected="a float or integer type of NumPy's own",
            got=str(info),
            fix="export the model with a float32 input",
        )
    try:
        array = prepare_one(_free_batch(info), value)
    except InputError as error:
        raise _as_calibration(error) from error
    if array.ndim == 0 or not len(array):
        raise CalibrationError(
            f"the calibration data for {info.name!r} has no samples",
            expected="some hundred samples like those of later inference",
            got=f"shape {array.shape}",
            fix="give at least one sample",
        )
    if array.dtype.kind == "f" and np.isinf(array).any():
        raise not_finite(info.name, array)
    return array


def missing_values(data: Mapping[str, Array]) -> list[str]:
    """The inputs whose data holds NaN."""
    return [name for name, array in data.items() if np.isnan(array).any()]


def not_finite(name: str, array: Array) -> CalibrationError:
    """The error for NaN or infinity in the data for an input."""
    first = int(np.argwhere(~np.isfinite(array))[0][0])
    return CalibrationError(
        f"the calibration data for {name!r} holds NaN or infinity",
        expected="finite numbers, or NaN that the model replaces before anything is encrypted",
        got=f"sample {first} and {int((~np.isfinite(array)).sum()) - 1} more values",
        fix="remove or impute those samples",
    )


def _free_batch(info: ValueInfo) -> ValueInfo:
    shape = (None, *info.shape[1:]) if info.shape else info.shape
    return ValueInfo(info.name, info.dtype, shape)


def _as_calibration(error: InputError) -> CalibrationError:
    return CalibrationError(
        f"calibration data: {error.problem}",
        where=error.where,
        expected=error.expected,
        got=error.got,
        fix=error.fix,
    )


def blended(
    data: Mapping[str, Array],
    samples: Array,
    count: int,
    share: float,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """New samples: each one of ``samples`` (indices) with up to ``share`` of another in it.

    Inputs that are no floats are not blended, only drawn.
    """
    ours, others = rng.choice(samples, count), rng.choice(samples, count)
    weight = rng.uniform(0.0, share, count)
    result = {}
    for name, array in data.items():
        if array.dtype.kind != "f":
            result[name] = array[ours]
            continue
        part = weight.reshape(-1, *[1] * (array.ndim - 1)).astype(array.dtype)
        result[name] = array[ours] * (1 - part) + array[others] * part
    return result


@dataclass
class TensorStats:
    """What calibration knows of one tensor.

    Attributes:
        minimum, maximum: over all samples and elements.
        mean: for each element, shape of one sample (float64).
        sample: seeded values, at most 2^15.
        dtype: element type in the float model.
        covered: a range that is to be represented, whatever calibration saw; None for no such.
        seen: a number of samples, and the shape of the tensor for so many.
        counts: whether it is floats that are whole numbers for any input.
        infinite: whether it was minus, or plus, infinity somewhere, which the rest leaves out.
        undefined: whether it was NaN somewhere, which the rest leaves out too.
    """

    minimum: float
    maximum: float
    mean: Array
    sample: Array
    dtype: np.dtype[Any] | None = None
    covered: tuple[float, float] | None = None
    seen: tuple[int, tuple[int, ...]] | None = None
    infinite: tuple[bool, bool] = (False, False)
    undefined: bool = False
    counts: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it consists of integers in the float model, whatever the input."""
        return self.counts or (self.dtype is not None and self.dtype.kind in "iu")

    @functools.cached_property
    def is_integral(self) -> bool:
        """Whether all that was seen of it are whole numbers, whatever its type."""
        ends = np.array([self.minimum, self.maximum])
        return all(np.array_equal(values, np.rint(values)) for values in (ends, self.sample))

    @property
    def is_truth(self) -> bool:
        """Whether it consists of truth values in the float model."""
        return self.dtype is not None and self.dtype.kind == "b"

    @property
    def range(self) -> QuantizationStats:
        return QuantizationStats(self.minimum, self.maximum)


def unvaried(stats: Mapping[str, TensorStats], names: Iterable[str], count: int) -> list[str]:
    """A sentence on each of these tensors that calibration saw with one value alone."""
    return [
        f"{name!r} is {stats[name].minimum:g} everywhere in the {count} calibration samples: what else it "
        "may be is not known to the circuit"
        for name in names
        if name in stats and stats[name].minimum == stats[name].maximum
    ]


def batches(graph: Graph, data: Mapping[str, Array]) -> Iterable[dict[str, Array]]:
    """The data in batches that the model can run.

    Of a model that was exported for batches of one size, the last is filled up with its own samples.
    """
    static = static_batch(graph)
    size = static or BATCH_SIZE
    count = len(next(iter(data.values())))
    for start in range(0, count, size):
        part = {name: array[start : start + size] for name, array in data.items()}
        short = static is not None and start + size > count
        yield {n: np.resize(a, (size, *a.shape[1:])) for n, a in part.items()} if short else part


def float_values(
    net: NumpyModule, data: Mapping[str, Array], names: Iterable[str]
) -> dict[str, Any]:
    """Tensors of the float model for all samples, by name: arrays, or lists of what is no array."""
    wanted = tuple(dict.fromkeys(names))
    count = len(next(iter(data.values())))
    parts = [net.run(feeds, fetch=wanted) for feeds in batches(net.graph, data)]
    return {name: _joined([part[name] for part in parts])[:count] for name in wanted}


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [sample for part in parts for sample in part]


def calibrate(
    net: NumpyModule,
    data: Mapping[str, Array],
    names: Iterable[str],
    *,
    seed: int,
    advance: Callable[[int], None] | None = None,
) -> dict[str, TensorStats]:
    """Statistics of the named tensors over all batches.

    Args:
        advance: told the number of samples of each finished batch.

    Raises:
        CalibrationError: an output of the float model is NaN on this data. Of tensors that are NaN or infinite
            somewhere, because the model replaces or ignores that later, the finite values count; whether
            anything quantizes them is for later to see.
    """
    fetch = list(dict.fromkeys(names))
    rng = np.random.default_rng(seed)
    count = len(next(iter(data.values())))
    running: dict[str, _Running] = {}
    for feeds in batches(net.graph, data):
        size = len(next(iter(feeds.values())))
        for name, array in net.run(feeds, fetch=fetch).items():
            if not isinstance(array, np.ndarray) or kind(array.dtype) not in "fiub":
                continue  # text, sequences and maps have no range
            if array.dtype.kind == "V":
                array = array.astype(
                    np.float32
                )  # of a narrow type, which NumPy does not compute with
            entry = running.setdefault(name, _Running())
            entry.seen = entry.seen or (size, array.shape)
            if array.dtype.kind == "f" and np.isnan(array).any():
                entry.undefined = True
                if name in net.graph.output_names:
                    raise undefined(name, net.graph, running, data)
                array = array[~np.isnan(array)]
            entry.add(array, size / count, rng)
        if advance:
            advance(size)
    return {name: entry.stats() for name, entry in running.items()}


def undefined(
    name: str, graph: Graph, known: Mapping[str, Any], data: Mapping[str, Array]
) -> CalibrationError:
    """The error for a tensor that is NaN: what is missing in the data is why, or the op that NaN comes from.

    Args:
        known: what was seen of each tensor.
    """
    missing = missing_values(data)
    if missing:
        return not_finite(missing[0], data[missing[0]])
    for node in reversed(graph.nodes):
        spoilt = [n for n in node.reads if n in known and known[n].undefined]
        if name in node.writes and spoilt:
            name = spoilt[0]
    return no_number(name, "NaN")


def no_number(name: str, what: str) -> CalibrationError:
    """The error for a tensor of the float model that holds ``what`` on the calibration data."""
    return CalibrationError(
        f"the float model computes {what} in {name!r} on the calibration data",
        expected="finite values",
        fix="check the model with NumpyModule on this data; a mask must leave something in each row",
    )


class _Running:
    def __init__(self) -> None:
        self.infinite: set[float] = set()
        self.undefined = False
        self.minimum, self.maximum = np.inf, -np.inf
        self.mean: Any = 0.0
        self.parts: list[Array] = []
        self.dtype: np.dtype[Any] | None = None
        self.seen: tuple[int, tuple[int, ...]] | None = None

    def add(self, array: Array, weight: float, rng: np.random.Generator) -> None:
        self.dtype = array.dtype
        if not array.size:
            return
        low, high = float(array.min()), float(array.max())
        if np.isinf(low) or np.isinf(high):
            self.infinite |= {low, high}
            self.add(array[np.isfinite(array)], weight, rng)
            return
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        if array.ndim:
            mean = array.mean(axis=0, dtype=np.float64)
            # A tensor whose leading dimension is not the batch changes shape with it: no mean then.
            if np.shape(self.mean) in ((), mean.shape):
                self.mean = self.mean + weight * mean
        flat = array.reshape(-1)
        budget = max(1, int(_SAMPLE * weight))
        self.parts.append(rng.choice(flat, budget, replace=False) if flat.size > budget else flat)

    def stats(self) -> TensorStats:
        sample = np.concatenate(self.parts).astype(np.float64) if self.parts else np.zeros(1)
        return TensorStats(
            float(min(self.minimum, sample.min())),
            float(max(self.maximum, sample.max())),
            np.asarray(self.mean),
            sample,
            self.dtype,
            infinite=(-np.inf in self.infinite, np.inf in self.infinite),
            undefined=self.undefined,
            seen=self.seen,
        )
