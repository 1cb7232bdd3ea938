"""The small models that a quantized operator is tried in.

On the server: inputs enter as integers, the op works on them, and `Hold`, which changes nothing, lets its
results leave through a look-up, as the next layer of a network would. An op that only runs before encryption
or after decryption cannot stand there; it is tried alone, where the client may run it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.op import QuantizedOp
from fhe_core.quantization.placement import PlacedOp
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.session import Session
from fhe_core.registry import OpSpec, PackInfo, Registry
from fhe_core.registry.registrar import Registrar
from fhe_core.registry.schema import newest_opset
from fhe_core.testing.calls import Call
from fhe_core.testing.checks import CheckSkipped
from fhe_core.testing.sample import Sample

Array = NDArray[Any]

DOMAIN = "fhe_core.testing"
NODE = "op"

#: Results leave the op's net with this many bits: fine enough that what is seen is the op's own error.
RESULT_BITS = 12
#: No more is rounded away before a look-up either; wider ones would take long to tabulate.
KEPT_BITS = 12


def hold(x: Any, /) -> Any:
    """The tensor itself, as floats."""
    return x if x.dtype.kind == "f" else x.astype(np.float32)


class Hold(QuantizedOp):
    """A look-up that changes nothing."""

    _impl_for_op_named = "Hold"


@dataclass(frozen=True, eq=False)
class Net:
    """An op in a model.

    Attributes:
        name: of the sample, and in which way it is used.
        model: of the op's node, called ``op``, and of what holds its results.
        data: samples by input name.
        registry: that of the subject, and `Hold`.
        held: it stands on the server; else the client may run it.
    """

    name: str
    model: onnx.ModelProto
    data: Mapping[str, Any]
    registry: Registry
    held: bool
    _modules: dict[Any, QuantizedModule] = field(default_factory=dict, repr=False)

    @functools.cached_property
    def session(self) -> Session:
        """The model placed and calibrated.

        Raises:
            FheError: it cannot be.
        """
        side = "minimal" if self.held else "any"
        return Session(self.model, dict(self.data), client_side=side, registry=self.registry)

    @property
    def placed(self) -> PlacedOp:
        """The op in its place.

        Raises:
            FheError: the model cannot be placed.
            CheckSkipped: a graph pass has put other ops there.
        """
        for placed in self.session.placement.ops:
            if placed.node.name == NODE:
                return placed
        raise CheckSkipped("a graph pass replaces the op, and it is those that are quantized")

    def module(self, bits: int, rounding: int | None = KEPT_BITS) -> QuantizedModule:
        """The net quantized: inputs, weights and the op's results to ``bits``, nothing saturated.

        Args:
            rounding: bits kept of accumulators, by exact rounding; None for what a user gets by default.

        Raises:
            FheError: it cannot be.
        """
        key = bits, rounding
        if key not in self._modules:
            self._modules[key] = self.quantized(bits, rounding)
        return self._modules[key]

    def quantized(
        self, bits: int, rounding: int | None = KEPT_BITS, results: int = RESULT_BITS
    ) -> QuantizedModule:
        """``module``, made anew, and with another width of what leaves it."""
        widths = dict.fromkeys(("op_inputs", "op_weights", "model_inputs"), bits)
        weights = "per-tensor" if self.weights_are_attributes else "per-channel"
        settings = Settings.of(
            {**widths, "model_outputs": results},
            rounding,
            exact=True,
            ranges="minmax",
            weight_granularity=weights,
        )
        return self.session.build(settings)

    @functools.cached_property
    def weights_are_attributes(self) -> bool:
        """Whether what the op takes as weights is no input of its node: then it has one scale."""
        channels = self.placed.op.weight_channels()
        return channels is not None and channels.index not in self.placed.op.constant_inputs

    def on(self, data: Mapping[str, Any], name: str) -> Net:
        """The same model on other data."""
        return Net(f"{self.name}-{name}", self.model, data, self.registry, self.held)


@functools.lru_cache(maxsize=8)
def with_hold(registry: Registry) -> Registry:
    """The registry, and `Hold`."""
    registrar = Registrar(PackInfo(DOMAIN), layer=1)
    registrar.impl("Hold", hold, domain=DOMAIN)
    registrar.quantized(Hold, domain=DOMAIN)
    return registry.with_more(registrar.close())


def net_around(
    sample: Sample, spec: OpSpec, registry: Registry, *, held: bool, shared: bool
) -> Net:
    """The op of a sample in a model.

    Args:
        registry: one that has `Hold`.
        held: on the server.
        shared: with the first encrypted input for all of them.
    """
    call = Call.of_sample(sample, spec)
    node = call.node
    node.name = NODE
    constants: list[onnx.TensorProto] = []
    data: dict[str, Array] = {}
    for index, array in enumerate(call.inputs):
        if index in sample.constants and array is not None:
            constants.append(numpy_helper.from_array(array, node.input[index]))
        elif array is not None and not (shared and data):
            data[node.input[index]] = array
        elif array is not None:
            node.input[index] = next(iter(data))
    results = [f"{name}_held" if held else name for name in node.output]
    holds = [
        helper.make_node("Hold", [name], [result], name=result, domain=DOMAIN)
        for name, result in zip(node.output, results, strict=True)
        if held
    ]
    graph = helper.make_graph(
        [node, *holds],
        "net",
        [_declared(name, array) for name, array in data.items()],
        [helper.make_empty_tensor_value_info(result) for result in results],
        constants,
    )
    domains = {"": newest_opset("") or 1, spec.domain: call.opset, DOMAIN: 1}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets))
    for output in model.graph.output:
        if not output.type.WhichOneof("value"):
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return Net(f"{sample.name}{'-shared' * shared}", model, data, registry, held)


def _declared(name: str, array: Array) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, ("batch", *array.shape[1:]))
