"""Networks of other people, as tests run them: a model and seeded inputs.

Two sources. The light models of ONNX's backend suite are well-known image classifiers whose weights
are each one number repeated, so that any order of the channels gives the same result: here every
weight becomes an input of the model, with values of its own. And models with trained weights that
ship inside Python packages, which `make models` puts into build/models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
PACKAGED = Path(__file__).resolve().parents[2] / "build" / "models"

Feeds = dict[str, Any]

# --- the light models ---


class Light(NamedTuple):
    """A light model with values for all its inputs, weights included.

    ``logits`` names the tensor before the final Softmax, an output too, or the output where there
    is none. ``last`` are the weights of the last layer. ``terms`` is how many products it takes, at
    most, to make one of the logits from the image: layers times the longest sum of a layer.
    """

    model: onnx.ModelProto
    feeds: Feeds
    logits: str
    last: tuple[str, ...]
    terms: int


def light_names() -> list[str]:
    """The light models: light_NAME.onnx."""
    return sorted(path.stem.removeprefix("light_") for path in LIGHT.glob("*.onnx"))


def light(name: str) -> Light:
    """A light model with an image and weights of its own.

    Matrices and filters are normal with a variance of 2 / (terms of a sum), which keeps the
    activations' size through a layer and its Relu (He et al., "Delving deep into rectifiers",
    2015). Vectors are scales, variances and offsets: from 0.5 to 1.5.
    """
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    graph, rng = model.graph, np.random.default_rng(0)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    filled = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    weights = {}
    for node in filled:
        weights[node.output[0]] = _weight(rng, numpy_helper.to_array(constants[node.input[0]]))
        graph.node.remove(node)
    read = {tensor for node in graph.node for tensor in node.input}
    images = {
        info.name: rng.standard_normal([dim.dim_value for dim in _dims(info)], np.float32)
        for info in graph.input
        if info.name in read and info.name not in constants
    }
    feeds = {**images, **weights}
    _keep(graph.initializer, lambda tensor: tensor.name in read)
    _keep(graph.input, lambda info: info.name in read)
    graph.input.extend(_declared(name, value.shape) for name, value in weights.items())
    final = graph.node[-1]
    logits = final.input[0] if final.op_type == "Softmax" else final.output[0]
    if final.op_type == "Softmax":
        graph.output.append(_declared(logits, None))
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    longest = max(_terms(value.shape) for value in weights.values())
    reshaped = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Reshape"}
    last = tuple(reshaped.get(weight, weight) for weight in layers[-1].input[1:])
    return Light(model, feeds, logits, last, len(layers) * longest)


def _weight(rng: np.random.Generator, shape: Any) -> Any:
    if len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / _terms(shape)))


def _terms(shape: Any) -> int:
    """The terms of a sum: the elements of one output's matrix row or filter."""
    return math.prod([size for size in shape if size > 1][1:])


def _declared(name: str, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _dims(info: onnx.ValueInfoProto) -> Any:
    return info.type.tensor_type.shape.dim


def _keep(entries: Any, wanted: Callable[[Any], bool]) -> None:
    kept = [entry for entry in entries if wanted(entry)]
    del entries[:]
    entries.extend(kept)


# --- models in packages ---


def _normal(scale: float, *shape: int) -> Callable[[np.random.Generator], Any]:
    return lambda rng: np.float32(scale) * rng.standard_normal(shape, np.float32)


_SPEECH = {"input": _normal(0.1, 1, 576), "state": _normal(0.1, 2, 1, 128)}
_RATE: dict[str, Callable[[np.random.Generator], Any]] = {"sr": lambda rng: np.array(16000)}
_SEQUENCE = {
    "input": _normal(0.1, 5, 576),
    "h": _normal(0.1, 1, 1, 128),
    "c": _normal(0.1, 1, 1, 128),
}

#: What each model is fed: noise as loud as speech or music, bytes of a file, the pixels of an image.
INPUTS: dict[str, dict[str, Callable[[np.random.Generator], Any]]] = {
    "basic_pitch/saved_models/icassp_2022/nmp.onnx": {
        "serving_default_input_2:0": _normal(0.1, 1, 43844, 1)
    },
    "magika/models/standard_v3_3/model.onnx": {
        "bytes": lambda rng: rng.integers(0, 257, (2, 2048), np.int32)  # 256 pads a short file
    },
    "nudenet/320n.onnx": {"images": lambda rng: rng.random((1, 3, 320, 320), np.float32)},
    "silero_vad/data/silero_vad.onnx": {**_SPEECH, **_RATE},
    "silero_vad/data/silero_vad_16k_op15.onnx": {**_SPEECH, **_RATE},
    "silero_vad/data/silero_vad_16k_sequence.onnx": _SEQUENCE,
    "silero_vad/data/silero_vad_half.onnx": _SPEECH,
    "silero_vad/data/silero_vad_op18_ifless.onnx": {**_SPEECH, **_RATE},
    "silero_vad/data/silero_vad_openvino_16k.onnx": _SPEECH,
}


def packaged(name: str) -> tuple[Path, Feeds]:
    """The file of a model in ``INPUTS``, and values for its inputs."""
    path = PACKAGED / name
    if not path.exists():
        raise FileNotFoundError(f"{path}: `make models` installs the packages that have it")
    rng = np.random.default_rng(0)
    return path, {name: make(rng) for name, make in INPUTS[name].items()}
