"""The derived bound: it holds whichever way look-ups round, is exact where they do not, and shrinks with
the widths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.program.groups import keeping_identities
from fhe_core.program.interpreter import group_values
from fhe_core.program.nodes import evaluate
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES
from fhe_core.testing import Sample
from fhe_core.testing.attempts import attempts
from fhe_core.testing.bounds import result_intervals
from fhe_core.testing.measuring import measure
from fhe_core.testing.nets import Net
from fhe_core.testing.subject import find_pack, operators
from hypothesis import given, settings
from hypothesis import strategies as st

import fhe_core

#: Taken before a test: in this folder, tests start with no pack loaded.
REGISTRY = fhe_core.get_registry()
ROWS = np.random.default_rng(0).uniform(1, 3, (16, 3, 3)).astype(np.float32)
OTHER = np.random.default_rng(1).uniform(1, 3, (16, 3, 3)).astype(np.float32)


def net_of(op: str, *inputs: Any) -> Net:
    """An op of the installed packs on the server."""
    samples = {op: [Sample(*inputs)]}
    subjects = operators(REGISTRY, find_pack(REGISTRY, "std"), samples=samples)
    subject = next(subject for subject in subjects if subject.op == op)
    net = attempts(subject)[0].net
    assert net is not None
    assert net.held
    return net


def rounded_anyhow(net: Net, integers: Any, seed: int) -> Any:
    """The net with every look-up off by up to half a step, and read between two integers."""
    rng = np.random.default_rng(seed)
    recorded, batch = net.session.recorded, len(ROWS)
    assert recorded is not None
    values: dict[int, Any] = {}
    for node in Program.of(recorded.integers).nodes:
        if node.op == "input":
            values[id(node)] = integers[node.name].astype(np.float64)
        elif node.op == "lookup":
            root = np.rint(values[id(node.attributes["root"])])
            entry = group_values(node, root, batch)
            values[id(node)] = entry + rng.uniform(-0.5, 0.5, entry.shape)
        else:
            values[id(node)] = RULES[node.op].evaluate(
                [values[id(source)] for source in node.inputs], node.attributes, batch
            )
    (result,) = recorded.outputs.values()
    return evaluate(result, values, batch)


#: Ops whose every look-up rounds, or reads what was rounded.
ROUNDING = {op: net_of(op, ROWS, OTHER) for op in ("Div", "Greater")}


@pytest.mark.parametrize("op", ROUNDING)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(2, 8))
def test_whichever_way_look_ups_round_the_result_stays_in_its_interval(
    op: str, seed: int, bits: int
) -> None:
    net = ROUNDING[op]
    with keeping_identities():
        module = net.quantized(bits)
    integers = module.encode(**net.data)
    assert net.session.recorded is not None
    ((low, high),) = result_intervals(net.session.recorded, module.plan, integers).values()
    result = rounded_anyhow(net, integers, seed)
    step = max(tensor.scale for tensor in module.plan.tensors.values())
    assert (result >= low - 1e-6 * step).all()
    assert (result <= high + 1e-6 * step).all()


@pytest.mark.parametrize("op", ["Max", "Min", "Add", "Sub", "Mul"])
def test_an_op_without_roundings_of_its_own_is_bound_by_those_of_its_result_alone(op: str) -> None:
    for result in measure(net_of(op, ROWS, OTHER), 4):
        own = result.allowed - result.inherited
        assert own.max() <= result.step * 1.01
        assert not result.missed.any()


@pytest.mark.parametrize("op", ["Mul", "Div", "Exp"])
def test_the_bound_shrinks_as_the_steps_do(op: str) -> None:
    """From 2 to 6 bits steps become 63 / 3 times smaller; errors that partly cancel make it rough."""
    net = net_of(op, *((ROWS,) if op == "Exp" else (ROWS, OTHER)))
    two, six = (measure(net, bits)[0].allowed.mean() for bits in (2, 6))
    assert 63 / 3 / 2 < two / six < 63 / 3 * 2


def test_what_the_plan_clips_is_compared_with_what_it_clips_to() -> None:
    """On rounded inputs a product exceeds the calibrated one; the result saturates, within its bound."""
    net = net_of("Mul", ROWS, OTHER)
    (result,) = measure(net, 2)
    assert not result.missed.any()
