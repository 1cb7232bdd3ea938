"""The tensors that a quantized operator is handed while a net is recorded."""

from __future__ import annotations

import numpy as np

from fhe_core.program.nodes import BATCH, HostInput, Origin, recording
from fhe_core.program.tensor import Tensor
from fhe_core.quantization.array import QuantizedArray
from fhe_core.quantization.plan import Plan
from fhe_core.quantization.quantizers import QuantizationStats
from fhe_core.testing.nets import Net


def entered(net: Net, bits: int) -> dict[str, QuantizedArray]:
    """Each input of a net on the server, encrypted and quantized as its plan for ``bits`` says.

    What the op turns into integers in a way of its own enters as the client has it.
    """
    plan = net.module(bits).plan
    arrays = {}
    for info in net.session.graph.inputs:
        shape = (BATCH, *(n for n in (info.shape or ())[1:] if isinstance(n, int)))
        host = HostInput(info.name, shape, np.dtype(info.dtype or np.float32))
        if info.name not in plan.tensors:
            arrays[info.name] = QuantizedArray(
                bits, Tensor(host), stats=QuantizationStats(0.0, 1.0)
            )
            continue
        parameters = plan.tensors[info.name].parameters
        with recording(Origin(info.name, net.placed.op.where)):
            integers = QuantizedArray(bits, Tensor(host), params=parameters).qvalues
        arrays[info.name] = QuantizedArray(bits, integers, value_is_float=False, params=parameters)
    return arrays


def planned(net: Net, bits: int) -> Plan:
    """A plan of all tensors of a net, those too that nothing quantizes in it; its op has it now."""
    plan = Plan.from_json(net.module(bits).plan.to_json())
    net.session.record(plan)
    return plan
