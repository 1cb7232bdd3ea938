"""Arguments that nobody should give: of the library's functions, and on the command line."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import fhe_core

SHARE = 2

_ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 17, 2**70, 1.5, -0.5, np.nan, np.inf, "", "a\0b", "x" * 300, "7",
    "auto", "all", b"x", (), [], {}, {1: 2}, {"x": 3}, {"op_inputs": None}, [[1], [1, 2]], object(), int, len,
    np.zeros(3), np.array(5), np.array(["a", "b"]), np.zeros((8, 9)), np.zeros(8, "M8[s]"), np.float32(2),
    np.ma.masked_array(np.ones((8, 4), np.float32), mask=True), np.array([None, {}], object), 1j, range(3),
    lambda *given: None, lambda outputs, expected: np.nan, lambda outputs, expected: 1 / 0, {"x"}, slice(3),
)  # fmt: skip
_SETTINGS = (
    "n_bits", "rounding", "plan", "encrypted", "client_side", "overflow", "rounding_method", "ranges",
    "weight_scheme", "weight_granularity", "savings", "p_error", "seed", "registry", "progress",
    "overflow_risk", "max_bytes",
)  # fmt: skip
_WORDS = (
    "list", "packs", "explain", "check", "compile", "run", "report", "new-pack", "keygen", "call", "serve",
    "--format", "json", "md", "table", "--domain", "--opset", "0", "-1", "99999999999999999999", "--pack",
    "std", "nobody", "Relu", "Foo", "ai.onnx.ml", "--html", "--output", "-o", "--input", "--calibration",
    "--labels", "--n-bits", "auto", "3", "--rounding", "--tolerance", "nan", "inf", "--p-error", "2^-40",
    "--plan", "--seed", "--pareto", "front.svg", "front.pdf", "--force", "--fhe", "disable", "simulate",
    "model.onnx", "x.npy", "pipe", "loop", ".", "", "nowhere", "nowhere/at/all", "x" * 300, "\udce9", "-",
    "--help", "--version", "--verbose", "--", "x.npz:a", "out.npz", "folder", "empty",
)  # fmt: skip
_X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def case(rng: np.random.Generator, folder: Path) -> None:
    """One call, or one command line."""
    _acts[rng.integers(len(_acts))](rng, folder)


def _odd(rng: np.random.Generator) -> Any:
    return _ODD[rng.integers(len(_ODD))]


def _quantize(rng: np.random.Generator, folder: Path) -> None:
    given = {
        _SETTINGS[i]: _odd(rng)
        for i in rng.choice(len(_SETTINGS), rng.integers(1, 3), replace=False)
    }
    fhe_core.quantize(_model(), _odd(rng) if rng.random() < 0.1 else _X, **given)


def _run(rng: np.random.Generator, folder: Path) -> None:
    net = fhe_core.NumpyModule(_model())
    if rng.random() < 0.3:
        net.run(_odd(rng), fetch=_odd(rng))
    elif rng.random() < 0.5:
        net.run({"x": _X}, fetch=_odd(rng))
    else:
        net(_odd(rng))


def _forward(rng: np.random.Generator, folder: Path) -> None:
    module = fhe_core.quantize(_model(), _X, n_bits=3)
    ways = ("disable", "simulate", "nowhere", _odd(rng))
    given = {"fhe": ways[rng.integers(len(ways))]}
    if rng.random() < 0.5:
        given["seed"] = _odd(rng)
    if rng.random() < 0.3:
        given["out_of_range"] = _odd(rng)
    module.forward(_odd(rng) if rng.random() < 0.5 else _X, **given)


def _load(rng: np.random.Generator, folder: Path) -> None:
    functions = (
        fhe_core.load, fhe_core.load_client, fhe_core.load_server, fhe_core.check, fhe_core.NumpyModule,
        fhe_core.Plan.of,
    )  # fmt: skip
    functions[rng.integers(len(functions))](_odd(rng))  # type: ignore[operator]


def _registry(rng: np.random.Generator, folder: Path) -> None:
    way = rng.integers(4)
    if way == 0:
        fhe_core.get_registry(prefer=_odd(rng))
    elif way == 1:
        fhe_core.get_registry().resolve(_odd(rng), domain=_odd(rng), opset=_odd(rng))
    elif way == 2:
        fhe_core.get_registry().ops(_odd(rng), _odd(rng))
    else:
        fhe_core.check(_model(), registry=_odd(rng))


def _command_line(rng: np.random.Generator, folder: Path) -> None:
    from fhe_core.cli import main

    (folder / "model.onnx").write_bytes(_model())
    np.save(folder / "x.npy", _X)
    (folder / "loop").symlink_to("loop")
    (folder / "empty").mkdir()
    words = [_WORDS[i] for i in rng.integers(len(_WORDS), size=rng.integers(0, 8))]
    if rng.random() < 0.8:
        words.insert(0, ("check", "compile", "run", "report", "explain", "list")[rng.integers(6)])
    if "serve" in words or "call" in words:  # they wait for others
        return
    out, code = io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main(words)
        except SystemExit as stop:
            code = stop.code
    told = f"{words}: {code}: {out.getvalue()[-300:]}"
    assert code in (0, 1, 2, None), told
    assert "Traceback" not in out.getvalue(), told


def _model() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 4))],
        [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )
    imports = [helper.make_opsetid("", 17)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    return bytes(model.SerializeToString())


_acts = (_quantize, _quantize, _run, _forward, _load, _registry, _command_line, _command_line)
