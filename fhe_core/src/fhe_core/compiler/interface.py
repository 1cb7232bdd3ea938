"""What a client needs of a model: its inputs and outputs, and the steps before encryption and after decryption.

It comes from whoever offers the model, so nothing of it is believed: sizes are bounded before anything is made
of them, and both programs run once on zeros before they are used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import ArtifactError
from fhe_core.graph.ir import ValueInfo
from fhe_core.program.host import HostProgram
from fhe_core.program.nodes import BATCH
from fhe_core.program.sizes import MOST_ELEMENTS
from fhe_core.program.storage import (
    Arrays,
    host_from_document,
    host_to_document,
    pack,
    shape_from_document,
    shape_to_document,
    unpack,
)
from fhe_core.quantization.module import QuantizedModule

Shape = tuple[int, ...]


def interface_to_document(module: QuantizedModule, arrays: Arrays) -> dict[str, Any]:
    """A module's interface as JSON, its arrays put into ``arrays``."""
    return {
        "inputs": [
            {
                "name": info.name,
                "dtype": info.dtype.name if info.dtype is not None else None,
                "shape": list(info.shape) if info.shape is not None else None,
                "range": list(module.input_ranges.get(info.name, ())) or None,
                "exact": np.flatnonzero(module.exact.get(info.name, ())).tolist(),
                "missing": info.name in module.missing,
            }
            for info in module.input_infos
        ],
        "output_names": list(module.output_names),
        "encoder": host_to_document(module.encoder, arrays),
        "decoder": host_to_document(module.decoder, arrays),
        "encrypted": [
            {"name": node.name, "shape": shape_to_document(node.shape)}
            for node in module.program.inputs
        ],
        "decrypted": [
            {"shape": shape_to_document(node.shape), "offset": pack(np.asarray(offset), arrays)}
            for node, offset in zip(module.program.outputs, module.program.offsets, strict=True)
        ],
    }


class Interface:
    """An interface that was saved.

    Attributes:
        infos: the model's inputs.
        ranges, exact, missing: by or of inputs, as a ``QuantizedModule`` has them.
        encrypted: name and shape of each integer tensor that is encrypted.
        decrypted: shape of each that is decrypted, and what is subtracted then.

    Raises:
        ArtifactError: its parts do not go together. What else is wrong with the document raises as it comes.
    """

    def __init__(self, document: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        for row in document["inputs"]:
            _bounded(row["name"], (row["shape"] or ())[1:])
        self.infos = tuple(
            ValueInfo(
                row["name"],
                np.dtype(row["dtype"]) if row["dtype"] else None,
                tuple(row["shape"]) if row["shape"] is not None else None,
            )
            for row in document["inputs"]
        )
        self.ranges = {
            row["name"]: (row["range"][0], row["range"][1])
            for row in document["inputs"]
            if row["range"]
        }
        self.exact = {
            row["name"]: _mask(row["exact"], row["shape"][1:])
            for row in document["inputs"]
            if row.get("exact")
        }
        self.missing = frozenset(row["name"] for row in document["inputs"] if row["missing"])
        self.output_names = tuple(document["output_names"])
        self.encoder: HostProgram = host_from_document(document["encoder"], arrays)
        self.decoder: HostProgram = host_from_document(document["decoder"], arrays)
        self.encrypted: list[tuple[str, Shape]] = [
            (row["name"], _shape(row["name"], row["shape"])) for row in document["encrypted"]
        ]
        self.decrypted: list[tuple[Shape, NDArray[Any]]] = [
            (_shape(f"output {i}", row["shape"]), unpack(row["offset"], arrays))
            for i, row in enumerate(document["decrypted"])
        ]
        self._try()

    @property
    def encrypted_shapes(self) -> list[Shape]:
        """Of one sample."""
        return [_sample(shape) for _, shape in self.encrypted]

    @property
    def decrypted_shapes(self) -> list[Shape]:
        """Of one sample."""
        return [_sample(shape) for shape, _ in self.decrypted]

    def samples(self, integers: Mapping[str, NDArray[Any]]) -> list[list[NDArray[Any]]]:
        """What is encrypted of each sample of a batch, from the encoder's results by name."""
        count = len(next(iter(integers.values())))
        names = [name for name, _ in self.encrypted]
        return [
            [
                np.reshape(integers[name][i], shape)
                for name, shape in zip(names, self.encrypted_shapes, strict=True)
            ]
            for i in range(count)
        ]

    def _try(self) -> None:
        """Runs both programs on a sample of zeros."""
        for low, high in self.ranges.values():
            _expect("a range", low <= high and math.isfinite(low) and math.isfinite(high))
        zeros = [
            np.zeros(shape, np.int64) - offset
            for shape, (_, offset) in zip(self.decrypted_shapes, self.decrypted, strict=True)
        ]
        for array, shape in zip(zeros, self.decrypted_shapes, strict=True):
            _expect("an offset", array.shape == shape and array.dtype.kind == "i")
        results = self.decoder({f"output{i}": array for i, array in enumerate(zeros)}, 1)
        _expect("the number of outputs", len(results) == len(self.output_names) > 0)
        feeds: dict[str, NDArray[Any]] = {}
        for info in self.infos:
            sizes = [n for n in (info.shape or (None,))[1:] if isinstance(n, int)]
            if info.dtype is None or info.shape is None or len(sizes) != len(info.shape) - 1:
                return  # of an input in the clear: only its arrays tell
            feeds[info.name] = np.zeros((1, *sizes), info.dtype)
        encoded = self.encoder(feeds, 1)
        _expect("the number of encrypted inputs", len(encoded) == len(self.encrypted) > 0)
        for array, shape in zip(encoded, self.encrypted_shapes, strict=True):
            fits = isinstance(array, np.ndarray) and array.dtype.kind in "iub"
            _expect("an encrypted input", fits and array.size == math.prod(shape))


def _expect(what: str, holds: bool) -> None:
    if not holds:
        raise ArtifactError(
            f"the model's interface contradicts itself about {what}",
            fix="do not use this model, or have it saved again",
        )


def _shape(name: str, document: Sequence[Any]) -> Shape:
    shape = shape_from_document(document)
    _bounded(name, _sample(shape))
    _expect(f"the batch of {name!r}", sum(n == BATCH for n in shape) == 1)
    return shape


def _sample(shape: Shape) -> Shape:
    return tuple(1 if n == BATCH else n for n in shape)


def _bounded(name: Any, shape: Sequence[Any]) -> None:
    sizes = [n for n in shape if isinstance(n, int)]
    if not isinstance(name, str) or min(sizes, default=0) < 0 or math.prod(sizes) > MOST_ELEMENTS:
        raise ArtifactError(
            f"the model's interface has an impossible tensor, {name!r}",
            expected=f"at most {MOST_ELEMENTS} elements for a sample",
            got=f"shape {str(shape)[:60]}",
            fix="do not use this model",
        )


def _mask(places: Sequence[int], shape: Sequence[int]) -> Any:
    """The elements of a sample of ``shape`` that are at ``places``, as booleans."""
    mask = np.zeros(shape, bool)
    mask.reshape(-1)[places] = True
    return mask
