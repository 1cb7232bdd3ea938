"""One right pack, and what makes it wrong in one way each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fhe_core.testing import Sample

RIGHT = """
import itertools

import numpy as np

import fhe_core

STARTED = itertools.count()


def add_7(a, b, /):
    return a + b


def add(a, b, /):
    return a + b


def relu(x, /):
    return np.maximum(x, x.dtype.type(0))


def scale(x, /, *, by=2.0):
    return x * x.dtype.type(by)


class QuantizedRelu(fhe_core.QuantizedOp):
    _impl_for_op_named = "Relu"


class QuantizedScale(fhe_core.QuantizedOp):
    _impl_for_op_named = "Scale"


@fhe_core.hookimpl
def fhe_register_ops(registry):
    registry.impl("Add", add_7, since_version=7)
    registry.impl("Add", add, since_version=14)
    registry.impl("Relu", relu, since_version=6)
    registry.impl("Scale", scale, domain="com.acme", since_version=2)
    registry.quantized(QuantizedRelu)
    registry.quantized(QuantizedScale, domain="com.acme")
"""


def _without(*starts: str) -> str:
    lines = RIGHT.split("\n")
    return "\n".join(line for line in lines if not line.strip().startswith(starts))


# Its own op alone: ONNX's cases of the others take seconds to load.
CUSTOM = _without('registry.impl("Add"', 'registry.impl("Relu"', "registry.quantized(QuantizedRelu")
# The others alone, for which nobody has to give samples.
KNOWN = _without('registry.impl("Scale"', "registry.quantized(QuantizedScale")

X = np.linspace(-1, 1, 48, dtype=np.float32).reshape(16, 3)


def samples() -> Mapping[str, Sequence[Sample]]:
    """For the operator of a domain of its own; ONNX has cases for the others."""
    return {"Scale": [Sample(X, attributes={"by": 3.0}, expected=3 * X, name="thrice")]}


_SCALED, _HALF_MORE = "return x * x.dtype.type(by)", "return x * x.dtype.type(by + 0.5)"
HALF_MORE = CUSTOM.replace(_SCALED, _HALF_MORE)

_ADD = "def add(a, b, /):\n    return a + b\n"


def _with_add(body: str) -> str:
    """The pack with another function for the newest version of Add."""
    lines = "".join(f"    {line}\n" for line in body.strip().split("\n"))
    return replaced(_ADD, f"def add(a, b, /):\n{lines}")


def replaced(old: str, new: str) -> str:
    """The right pack with one piece of it replaced."""
    assert RIGHT.count(old) == 1
    return RIGHT.replace(old, new)


# By the name of the check that must fail: how the pack is installed, and perhaps its samples.
WRONG: dict[str, dict[str, Any]] = {
    "entry-point": {"value": "acme_ops:no_such_object"},
    "requirement": {"requires": ["fhe-core>=0.1"]},
    "isolation": {
        "source": "try:\n    import concrete\nexcept ImportError:\n    concrete = None\n" + RIGHT
    },
    "collected": {"samples": {}},
    "signature": {"source": _with_add("return a + b, a")},
    # Forgets what comes after the first 50 elements, which ONNX's own cases alone have.
    "onnx-cases": {
        "source": _with_add(
            "y = (a + b).reshape(-1)\n"
            "y[50:] = 0\n"
            "return y.reshape(np.broadcast_shapes(a.shape, b.shape))"
        )
    },
    "expected": {"source": replaced(_SCALED, _HALF_MORE)},
    "inputs-untouched": {
        "source": _with_add(
            "if a.flags.writeable and a.shape == b.shape:\n    a += b\n    return a\nreturn a + b"
        )
    },
    "repeatable": {
        "source": _with_add(
            "y = a + b\n"
            "if y.dtype == np.float32 and next(STARTED) % 2:\n"
            "    y = np.nextafter(y, np.float32(9))\n"
            "return y"
        )
    },
    "reference": {
        "source": replaced(
            "def add_7(a, b, /):\n    return a + b", "def add_7(a, b, /):\n    return a - b"
        )
    },
    "result-types": {
        "source": _with_add("y = a + b\nreturn y.astype('f4') if y.dtype == np.float64 else y")
    },
    "broadcasting": {
        "source": _with_add(
            "y = a + b\nif y.shape not in (a.shape, b.shape):\n    raise ValueError('shapes')\nreturn y"
        )
    },
    "empty": {
        "source": _with_add("if a.size == 0:\n    raise ValueError('nothing to add')\nreturn a + b")
    },
    "zero-dimensional": {
        "source": _with_add("y = a + b\nreturn y if np.ndim(y) else np.reshape(y, 1)")
    },
    "refusals": {
        "source": replaced(
            "def scale(x, /, *, by=2.0):\n",
            "def scale(x, /, *, by=None):\n    by = by if isinstance(by, float) else 2.0\n",
        )
    },
}
