"""check takes little more memory than a float run, and running out of it is no verdict on a model."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

import fhe_core
from fhe_core import QuantizedOp


def conv_net(widths: list[int]) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    body, x = "", "x"
    for i in range(len(widths)):
        body += f"c{i} = Conv <pads = [1, 1, 1, 1]> ({x}, w{i}) s{i} = Sigmoid(c{i}) "
        x = "y" if i == len(widths) - 1 else f"r{i}"
        body += f"{x} = Mul(c{i}, s{i}) "
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        f"g (float[N, 3, 32, 32] x) => (float[N, {widths[-1]}, 32, 32] y) {{ {body} }}"
    )
    proto.graph.initializer.extend(
        numpy_helper.from_array(rng.normal(size=(wide, before, 3, 3)).astype(np.float32), f"w{i}")
        for i, (before, wide) in enumerate(itertools.pairwise([3, *widths]))
    )
    return proto


def peak(run: Callable[[], Any]) -> int:
    tracemalloc.start()
    run()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_the_memory_of_a_check_does_not_grow_with_the_number_of_layers() -> None:
    widths = list(range(12, 20))  # each another one: layers of one kind are tried once
    last, all_of_them = (
        peak(lambda w=w: fhe_core.check(conv_net(w))) for w in (widths[-2:], widths)
    )  # type: ignore[misc]
    assert all_of_them < 1.3 * last


def test_running_out_of_memory_or_patience_is_no_verdict() -> None:
    for raised in (MemoryError("too much"), KeyboardInterrupt()):
        for where in ("impl", "q_impl", "can_fuse"):
            with pytest.raises(type(raised)):
                fhe_core_verdict(raised, where)


def fhe_core_verdict(raised: BaseException, where: str) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise raised

    class Quantized(QuantizedOp):
        _impl_for_op_named = "Op"

        def impl(X, /):
            return fails() if where == "impl" else X

    if where != "impl":
        setattr(Quantized, where, fails)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "d" : 1]>'
        "net (float[N, 4] x) => (float[N, 4] z) { z = d.Op(x) }"
    )
    with fhe_core.registered(quantized=[(Quantized, {"domain": "d"})]):
        fhe_core.check(model)
