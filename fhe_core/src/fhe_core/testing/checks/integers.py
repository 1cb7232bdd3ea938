"""What is computed on encrypted values is computed on integers.

The recorder refuses what it can see: a float that mixes elements, weights that are no integers, an encrypted
value that is branched on. Checked here is what it takes an op's word for.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from fhe_core.program.interpreter import recorded_values
from fhe_core.program.nodes import recording
from fhe_core.program.program import Program
from fhe_core.program.tensor import Tensor
from fhe_core.quantization.array import QuantizedArray
from fhe_core.quantization.quantizers import QuantizationParameters
from fhe_core.quantization.results import results_of
from fhe_core.testing.attempts import cases, net_of
from fhe_core.testing.checks import Check, CheckFailed, CheckSkipped
from fhe_core.testing.checks.accuracy import is_quantized
from fhe_core.testing.entering import entered, planned
from fhe_core.testing.nets import Net
from fhe_core.testing.subject import Subject

_BITS = 4


def _integers(subject: Subject, case: str) -> None:
    net = net_of(subject, case)
    if not net.held:
        raise CheckSkipped("the op works before encryption or after decryption alone")
    _require_integer_results(net)
    _require_integer_program(net)


def _require_integer_results(net: Net) -> None:
    """What is handed on as integers, as ``qvalues``, is an integer tensor and no float of one."""
    arrays = entered(net, _BITS)
    plan = planned(net, _BITS)
    placed = net.placed
    with recording(placed.origin):
        made = placed.op(*(arrays[name] for name in placed.variable))
    results = results_of(placed, made)
    for number, name in enumerate(placed.node.outputs):
        result = results.get(name)
        if result is None:
            continue
        if not result.is_quantized:
            _require_own_quantizer(number, result, plan.tensors[name].parameters)
            continue
        integers = result.qvalues
        if isinstance(integers, Tensor) and not integers.is_integer:
            raise CheckFailed(
                f"output {number} is handed on as integers, and its qvalues are floats",
                expected="an integer tensor, from integer arithmetic or a look-up",
                got=repr(integers),
                fix="scale through `params`, and not the integers; or return real values: "
                "self.quantized(values)",
            )


def _require_own_quantizer(
    number: int, result: QuantizedArray, wanted: QuantizationParameters
) -> None:
    """Real values are quantized as the plan says of this very output."""
    got = result.quantizer.params
    parts = [(getattr(got, f.name), getattr(wanted, f.name)) for f in fields(wanted)]
    if not all(np.array_equal(one, other) for one, other in parts):
        raise CheckFailed(
            f"output {number} has another quantizer than the plan has for it",
            expected=f"scale {np.max(wanted.scale):.4g}, zero point {np.max(wanted.zero_point):g}",
            got=f"scale {np.max(got.scale):.4g}, zero point {np.max(got.zero_point):g}",
            fix="return self.quantized(values), or self.quantized((first, second)) of several outputs",
        )


def _require_integer_program(net: Net) -> None:
    """Every tensor of the program holds integers, inside the bounds that its width follows from."""
    module = net.quantized(_BITS)
    recorded = net.session.recorded
    assert recorded is not None  # noqa: S101  # `quantized` has just recorded it
    nodes = Program.of(recorded.integers).nodes
    values = recorded_values(recorded.integers, module.encode(**net.data))
    for node in nodes:
        found = values[id(node)]
        constants = [node.attributes.get(name) for name in ("weights", "factor", "offset", "value")]
        whole = all(c is None or np.asarray(c).dtype.kind in "iub" for c in constants)
        if not whole or (np.trunc(found) != found).any():
            raise CheckFailed(
                f"{node.op} computes on encrypted values with numbers that are no integers",
                fix="quantize constants, and scale what follows: read `qvalues` of prepared inputs",
            )
        if (found < node.low).any() or (found > node.high).any():
            raise CheckFailed(
                f"{node.op} leaves the bounds that were recorded for it",
                expected=f"values from {node.bounds[0]} to {node.bounds[1]}",
                got=f"values from {found.min():g} to {found.max():g}",
                fix="do not set the bounds of a tensor; primitives.lookup clips to `low`, `high`",
            )


INTEGERS = Check(
    "integers",
    "what is computed on encrypted values, and handed on as integers, is integers; real values that are handed "
    "on have the quantizer of their own output.",
    _integers,
    is_quantized,
    cases,
)

CHECKS = (INTEGERS,)
