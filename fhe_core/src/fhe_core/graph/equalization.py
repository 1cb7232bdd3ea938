"""How features of very different size may enter a product with constant weights, scaled to be alike.

One scale for all features of a tensor suits the largest of them. Where their units differ, as those of raw
data and of joined branches do, the others would be left without levels. So W x = (W / f) (f x) with a power of
two for each feature, exact in floating point, such that a feature is as large as its weights: Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), with ranges from calibration.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import FheError
from fhe_core.graph.ir import Graph
from fhe_core.graph.runner import NumpyModule

Array = NDArray[Any]

#: One scale has to lose five bits of some feature; and as much less than the loudest one is not heard.
_SPREAD = 32
#: Features that are not heard may be more than was seen: no more than this is made of them, next to the
#: heard one that is scaled least. Those that are heard are scaled as far as their units lie apart.
_MOST = 2.0**20
#: Samples on which the model is run to see how large its tensors are.
_SAMPLES = 64


def feature_ranges(
    graph: Graph, names: Collection[str], samples: Mapping[str, Any]
) -> dict[str, tuple[Array, Array]]:
    """The least and the greatest finite value of each feature, the last axis, of some tensors.

    Inner ones are left out where the graph does not run as it is.

    Args:
        samples: inputs, arrays by name: all are looked at, and inner tensors on some of them.
    """
    values = {name: samples[name] for name in names if name in samples}
    inner = sorted(set(names) - set(values))
    if inner:
        fixed = next((info.shape[0] for info in graph.inputs if info.shape), None)
        count = fixed if isinstance(fixed, int) else _SAMPLES
        few = {name: array[:count] for name, array in samples.items()}
        with contextlib.suppress(FheError):
            values |= NumpyModule(graph).run(few, fetch=inner)
    found = {}
    for name, array in values.items():
        if not array.size or not array.ndim:
            continue
        finite = np.nan_to_num(array, nan=0, posinf=0, neginf=0).astype(np.float64)
        others = tuple(range(finite.ndim - 1))
        found[name] = finite.min(axis=others), finite.max(axis=others)
    return found


def feature_factors(low: Array, high: Array, weights: Array) -> Array | None:
    """A power of two for each feature, by which it is to be multiplied and its weights divided.

    Args:
        low, high: the ends of each feature.
        weights: the largest magnitude of what each is multiplied by.

    Returns:
        None where one scale serves all those that are heard in the products.
    """
    if low.shape != weights.shape or not low.size or not np.isfinite(weights).all():
        return None
    sizes, parts = np.maximum(np.abs(low), np.abs(high)), weights * (high - low)
    heard = (parts > 0) & (parts * _SPREAD >= parts.max())
    if not heard.any() or sizes.max() < _SPREAD * sizes[heard].min():
        return None
    some = sizes > 0
    balanced = np.ones(sizes.shape)
    balanced[some] = np.sqrt(weights[some] / sizes[some])
    most = max(balanced[heard].max(), balanced[heard].min() * _MOST)
    loudest = (balanced * sizes)[heard].max()
    # More than balances them, as far as that makes them no larger than those that are heard.
    wanted = balanced.copy()
    others = some & ~heard
    raised = np.sqrt(np.maximum(weights, weights.max() / _MOST)[others] / sizes[others])
    raised = np.minimum(raised, np.maximum(loudest / sizes[others], balanced[others]))
    wanted[others] = np.minimum(raised, most)
    factors = np.ones(sizes.shape)
    factors[some] = np.exp2(np.rint(np.log2(wanted[some] / wanted[some].max())))
    return factors
