"""The kernel knows no operator by name and no plug-in, and works without any of those that come with it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import onnx.defs
import pytest

import fhe_core

CORE = Path(fhe_core.__file__).parent
ROOMS = ("registry", "graph", "program", "quantization", "compiler")


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """The strings of a file that are no docstrings, with their lines."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, holders) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


@pytest.mark.parametrize("room", ROOMS)
def test_no_operator_is_known_by_its_name(room: str) -> None:
    """But for the word "Optional", which is a kind of type too."""
    names = {schema.name for schema in onnx.defs.get_all_schemas()} - {"Optional"}
    files = sorted((CORE / room).rglob("*.py"))
    found = [
        (file.name, line, text) for file in files for line, text in texts(file) if text in names
    ]
    assert files
    assert not found


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_models_are_quantized_without_the_built_in_packs() -> None:
    """Nothing is left out of the program then, and the results are the same."""
    code = """
        import numpy as np
        import onnx.parser
        import fhe_core

        model = onnx.parser.parse_model('''
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 4] x) => (float[N, 4] y)
        <float[1] far = {-9.0}>
        { low = Add(x, far)
          y = Relu(low) }
        ''')
        x = np.linspace(-1, 1, 400, dtype=np.float32).reshape(100, 4)
        qm = fhe_core.quantize(model, x, n_bits=4, client_side="minimal")
        print(len(qm.savings) > 0, float(np.abs(qm.forward(x)).max()))
    """
    assert run(code) == "True 0.0\n"
    assert run(code, FHE_PACKS_BLOCK="fhe-core") == "False 0.0\n"


def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fhe_core", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "explain" in done.stdout
