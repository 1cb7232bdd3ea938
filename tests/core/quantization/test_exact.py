"""Integers of which every bit counts: an op that looks up cases, and encodes its input itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest

import fhe_core
from fhe_core import QuantizedOp, primitives

MODEL = """
<ir_version: 8, opset_import: ["" : 17, "cases" : 1]>
net (float[N, 3] x) => (float[N, 1] y) { y = cases.Match(x) }
"""
#: What each number of positive features is worth.
WORTH = np.array([0.1, -3.0, 7.5, 0.25])


def match(x: Any, /) -> Any:
    """What the number of positive features is worth: (N, F) to (N, 1)."""
    return WORTH[(x > 0).sum(axis=1, keepdims=True)].astype(np.float32)


class QuantizedMatch(QuantizedOp):
    """The client compares, the server counts and looks up where the entry is, which the client has."""

    _impl_for_op_named = "Match"
    impl = match
    encodes_inputs = True

    def can_fuse(self) -> bool:
        return False

    def q_impl(self, *q_inputs: Any, **attrs: Any) -> Any:
        x = q_inputs[0].values
        assert x.is_unencrypted
        self.notices = ("the client learns what is compared.",)
        passed = np.greater(x, np.zeros((1, 3), np.float32)).astype(np.int64)
        count = primitives.exact(passed @ np.ones((3, 1), np.int64), low=0, high=3)
        place = primitives.lookup(count, lambda n: 3 - n, low=0, high=3)
        return self.quantized(primitives.entries(WORTH[::-1], place))


@pytest.fixture
def proto() -> Any:
    return onnx.parser.parse_model(MODEL)


@pytest.fixture
def calibration() -> Any:
    """Samples of which none has more than one positive feature."""
    return np.array([[-1, -1, 1], [-1, -2, -3]] * 20, np.float32)


@pytest.fixture(autouse=True)
def operator() -> Any:
    options = {"domain": "cases"}
    with fhe_core.registered([("Match", match, options)], [(QuantizedMatch, options)]):
        yield


@pytest.mark.parametrize("client_side", ["any", "minimal"])
def test_no_rounding_and_no_calibrated_range_take_a_case_away(
    proto: Any, calibration: Any, client_side: str
) -> None:
    qm = fhe_core.quantize(proto, calibration, n_bits=2, rounding=2, client_side=client_side)
    x = np.array([[-9, -9, -9], [1, -1, -1], [2, 1, -1], [900, 900, 900]], np.float32)
    np.testing.assert_array_equal(qm.forward(x), match(x))
    assert qm.notices == ("the client learns what is compared.",)


@pytest.mark.fhe
def test_where_nothing_can_be_chosen_nothing_is_searched(proto: Any, calibration: Any) -> None:
    qm = fhe_core.compile(proto, calibration)
    assert not qm.plan.leaves_a_choice
    assert not qm.search
    x = np.array([[1, 1, 1], [1, 1, -1]], np.float32)
    np.testing.assert_array_equal(qm.forward(x, fhe="execute"), match(x))
