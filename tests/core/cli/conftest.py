"""The command line, in this process and as a process, with packs of the tests' own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from fhe_core.cli import main
from fhe_core.registry import current
from numpy.typing import NDArray
from onnx import TensorProto, helper

import fhe_core
from fhe_core import QuantizedOp

# The script stands beside the interpreter that has the distribution installed.
COMMAND = Path(sys.executable).with_name("fhe-ops")
OWN_PACKS = "fhe-core,fhe-ops-std,fhe-ops-contrib"


class Answer(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def cli(*arguments: object) -> Answer:
    """Runs ``fhe-ops`` in this process. A traceback fails the test."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    answer = Answer(result.exit_code, result.stdout, result.stderr)
    assert "Traceback" not in answer.out + answer.err
    return answer


def refused(answer: Answer, code: int, *words: str) -> None:
    """The command ended with ``code``, printed no result, and its error has all the words."""
    assert answer.code == code, answer
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert "  fix: " in answer.err
    for word in words:
        assert word in answer.err, answer.err


@pytest.fixture(autouse=True)
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has loaded no packs; the real ones, if installed, are not what is tested."""
    monkeypatch.setattr(current, "_packs", None)
    monkeypatch.setattr(current, "_registries", {})
    monkeypatch.setattr(current, "_warned", set())
    for variable in ("FHE_PACKS", "FHE_PACKS_STRICT", "FHE_TRACEBACK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("FHE_PACKS_BLOCK", OWN_PACKS)


@pytest.fixture
def no_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which no pack is installed."""
    monkeypatch.delenv("FHE_PACKS_BLOCK")
    monkeypatch.setattr("fhe_core.registry.packs.find_packs", list)


class Site:
    """A folder of installed packs, in place of pip."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, ops: str, *, requires: str = "fhe-core>=0.1,<1") -> None:
        """Installs the pack ``NAME`` of the distribution ``NAME-ops``, whose hook runs ``ops``."""
        module = f"{name}_ops"
        body = indent(dedent(ops).strip(), "    ")
        (self.folder / f"{module}.py").write_text(
            f"{HEAD}\n\n@fhe_core.hookimpl\ndef fhe_register_ops(registry):\n{body}\n"
        )
        info = self.folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}-ops\nVersion: 1.0\nRequires-Dist: {requires}\n"
        )
        (info / "entry_points.txt").write_text(f"[fhe_core.packs]\n{name} = {module}\n")

    def run(
        self, *command: object, pty: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """What a process says that sees these packs; on a terminal of 80 columns if asked."""
        path = os.pathsep.join(filter(None, (str(self.folder), os.environ.get("PYTHONPATH"))))
        arguments = [str(part) for part in command]
        if pty:
            arguments = [sys.executable, "-c", TERMINAL, *arguments]
        return subprocess.run(
            arguments,
            env={**os.environ, "PYTHONPATH": path, "TERM": "xterm", **environment},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )


# The functions and classes that the packs of the tests register.
HEAD = '''
import functools
import fhe_core

def double(x, /, *, times=1):
    """Twice."""
    return x * 2**times

def shift(x, by, /, scale=None, *, offset, mode="up"):
    return x + by

def join(*inputs, axis): ...

class Fused:
    impl = None

    @classmethod
    def fusion(cls):
        return "always"

class QuantizedDouble(Fused):
    _impl_for_op_named = "Double"

class QuantizedShift(Fused):
    _impl_for_op_named = "Shift"

    @classmethod
    def fusion(cls):
        return "conditional"
'''

# Gives its arguments, a command, an 80-column terminal, and prints what appears on it.
TERMINAL = """
import fcntl, os, pty, struct, sys, termios
process, terminal = pty.fork()
if process == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
shown = b""
while True:
    try:
        chunk = os.read(terminal, 65536)
    except OSError:  # Linux's end of file
        break
    if not chunk:
        break
    shown += chunk
sys.stdout.buffer.write(shown.replace(b"\\r\\n", b"\\n"))
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield Site(folder)
    for path in folder.glob("*_ops.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def mine(site: Site) -> Site:
    """Two packs: "mine" with three ops, "other" with the quantized form of one."""
    site.add(
        "mine",
        """
        registry.impl("Double", double, domain="com.example", since_version=1, until=3)
        registry.impl("Double", double, domain="com.example", since_version=4)
        registry.quantized(QuantizedDouble, domain="com.example", since_version=4)
        registry.impl("Shift", shift, domain="com.example")
        registry.impl("Concat", join, since_version=13)
        """,
    )
    site.add("other", 'registry.quantized(QuantizedShift, domain="com.example")')
    return site


# -- models and data


def relu(x: NDArray[Any], /) -> NDArray[Any]:
    return np.maximum(x, 0)


class QuantizedRelu(QuantizedOp):
    """A function of each element."""

    _impl_for_op_named = "Relu"


@pytest.fixture
def relu_pack() -> Iterator[None]:
    """Relu runs encrypted, in the body alone."""
    with fhe_core.registered(impls=[("Relu", relu)], quantized=[QuantizedRelu]):
        yield


def save_model(path: Path, *op_types: str, features: int = 3) -> Path:
    """A chain of ops of one input, from ``x`` to ``y``."""
    values = ["x", *(f"v{number}" for number in range(len(op_types) - 1)), "y"]
    nodes = [
        helper.make_node(op, [source], [target], name=f"{op.lower()}_{number}")
        for number, (op, source, target) in enumerate(
            zip(op_types, values[:-1], values[1:], strict=True)
        )
    ]
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", features])
        for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "chain", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
