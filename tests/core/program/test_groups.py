"""A float group becomes one look-up, with a table for each function that it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.quantization.op import QuantizedOp

import fhe_core
from tests.core.quantization.building import model, normal

X = normal(200, 2)
ACME = {"domain": "acme"}


def fanned(slopes: Any) -> tuple[Any, float]:
    """The module of tanh of multiples of each element, moved, and its largest error."""

    def fan(x: Any, /) -> Any:
        return np.tanh(np.transpose(x[:, :, None] * slopes, (0, 2, 1))).astype(x.dtype)

    class Fan(QuantizedOp):
        _impl_for_op_named = "Fan"

        def q_impl(self, *q_inputs: Any, **attrs: Any) -> Any:
            (x,) = q_inputs
            real = (x.qvalues.astype(np.float64) - x.quantizer.zero_point) * x.quantizer.scale
            return self.quantized(np.tanh(np.transpose(real[:, :, None] * slopes, (0, 2, 1))))

    net = model("y = acme.Fan(x)", {"x": ("N", 2)}, domains={"acme": 1})
    with fhe_core.registered(impls=[("Fan", fan, ACME)], quantized=[(Fan, ACME)]):
        qm = fhe_core.quantize(net, X, n_bits=8)
        return qm, float(np.abs(qm.forward(X) - fhe_core.NumpyModule(net)(X)).max())


@pytest.mark.parametrize(("slopes", "lookups"), [([1.0, 1.0, 1.0], 2), ([1.0, -2.0, 3.0], 6)])
def test_results_of_one_element_share_a_look_up_only_where_they_are_one_function(
    slopes: list[float], lookups: int
) -> None:
    qm, error = fanned(np.array(slopes))
    (node,) = qm.program.lookups
    assert np.prod(node.shape[1:]) == lookups
    assert error < 0.06
