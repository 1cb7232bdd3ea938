"""``can_fuse`` tells the truth, of every place in which the op was tried."""

from __future__ import annotations

from typing import Any

import numpy as np

from fhe_core.errors import FheError
from fhe_core.program.nodes import Call, Node, evaluate
from fhe_core.program.tensor import Tensor, call
from fhe_core.program.univariate import check_univariate, source_index
from fhe_core.testing.attempts import attempt_of, cases
from fhe_core.testing.bounds import FLOAT
from fhe_core.testing.checks import Check, CheckFailed, CheckSkipped
from fhe_core.testing.checks.accuracy import is_quantized
from fhe_core.testing.entering import entered
from fhe_core.testing.nets import Net
from fhe_core.testing.subject import Subject

_BITS = 4

#: What moves elements, or stands between an accumulator and its look-up. The rest computes.
_MOVES = {"input", "lookup", "round", "shift", "scale"}
_MOVES |= {"reshape", "transpose", "broadcast", "index", "take", "pad"}


def _can_fuse(subject: Subject, case: str) -> None:
    attempt = attempt_of(subject, case)
    if attempt.claims_to_fuse:
        raise CheckFailed(
            "can_fuse() is True, and the op is no look-up of each element of one integer tensor",
            got=str(attempt.refusal),
            fix="return False from can_fuse here, and give the op a q_impl on integers",
        )
    if attempt.server is None or (attempt.refusal and attempt.server is not attempt.net):
        raise CheckSkipped("the op works before encryption or after decryption alone")
    placed = attempt.server.placed
    if placed.fused:
        _require_one_lookup(attempt.server)
    elif len(placed.sources) == 1 and _could_fuse(attempt.server):
        raise CheckFailed(
            "can_fuse() is False, and the op is a function of each element of one integer tensor",
            expected="True: one look-up, which others may join",
            got="no element of the float result moves when another element of the input does",
            fix="return True from can_fuse here; or declare the exception "
            f"'can-fuse/{subject.op}' with the reason why computing on integers costs less",
        )


def _require_one_lookup(net: Net) -> None:
    program = net.module(_BITS).program
    behind: set[int] = set()
    for node in program.nodes:
        deep = any(id(source) in behind for source in node.inputs)
        if node.op not in _MOVES or len(node.inputs) > 1 or (node.op == "lookup" and deep):
            raise CheckFailed(
                "can_fuse() is True, and the op is not one look-up",
                expected="one look-up between the input and each result",
                got="a look-up of a look-up" if deep else f"{node.op} on encrypted integers",
                fix="compute q_impl on `values` alone where can_fuse() is True, or return False",
            )
        if node.op == "lookup" or deep:
            behind.add(id(node))


def _could_fuse(net: Net) -> bool:
    """Whether the float op, of the one tensor that varies here, changes each element by itself."""
    arrays = entered(net, _BITS)
    step = next(step for step in net.session.net.steps if step.node.name == net.placed.node.name)
    constants = net.session.graph.constants
    inputs = [
        (arrays[name].values if name in arrays else constants[name]) if name else None
        for name in step.node.inputs
    ]
    try:
        made = call(step.impl, *inputs, **step.arguments)
        results = made if isinstance(made, tuple) else (made,)
        return all(
            _is_function_of_each(result, arrays[net.placed.variable[0]]) for result in results
        )
    except FheError:
        return False


def _is_function_of_each(result: Tensor, array: Any) -> bool:
    """Raises a CompilationError if it is not; False where elements stay as they are, which is free."""
    value, root = result.value, array.qvalues.value
    assert isinstance(value, Call)  # noqa: S101  # an opaque function
    assert isinstance(root, Node)  # noqa: S101  # an input of the circuit
    if value.shape != root.shape:
        return False
    source_index(value)
    check_univariate(value, root)
    levels = np.unique(np.linspace(*root.bounds, 17).astype(np.int64))
    shape = (len(levels), *root.shape[1:])
    every = np.broadcast_to(levels.reshape(-1, *[1] * (len(shape) - 1)), shape)
    changed = np.asarray(evaluate(value, {id(root): every}, len(levels)))
    return not np.allclose(changed, array.quantizer.dequant(every), rtol=FLOAT, atol=0)


CAN_FUSE = Check(
    "can-fuse",
    "can_fuse is True where the op is one look-up of one integer tensor, and only there.",
    _can_fuse,
    is_quantized,
    cases,
)

CHECKS = (CAN_FUSE,)
