"""Everything but encryption works where concrete-python is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from .nets import mlp, samples
from .processes import run

BEGIN = """
import fhe_core, numpy as np
x = np.load("x.npy")

def refused(call):
    try:
        call()
    except fhe_core.CompilationError as error:
        assert "pip install 'fhe-core[concrete]'" in str(error), error
    else:
        raise AssertionError("it was not refused")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(mlp(), tmp_path / "mlp.onnx")
    np.save(tmp_path / "x.npy", samples(4))
    return tmp_path


def test_compilation_says_what_to_install_and_quantization_works(folder: Path) -> None:
    code = """
refused(lambda: fhe_core.compile("mlp.onnx", x, n_bits=3))
refused(lambda: fhe_core.compile("mlp.onnx", x))
module = fhe_core.quantize("mlp.onnx", x, n_bits=3)
assert module(x).shape == module.forward(x, fhe="simulate").shape == (200, 3)
module.save("model")
assert (fhe_core.load("model")(x) == module(x)).all()
"""
    run(BEGIN + code, folder, blocked=("concrete",))


def test_saved_circuits_load_and_say_what_execution_needs(folder: Path, saved: Path) -> None:
    code = f"""
saved = {str(saved)!r}
module = fhe_core.load(saved)
assert module.cost.pbs_count
module.forward(x, fhe="simulate")
refused(lambda: module.forward(x, fhe="execute"))
refused(lambda: fhe_core.load_client(saved + "/client"))
refused(lambda: fhe_core.load_server(saved + "/server"))
"""
    run(BEGIN + code, folder, blocked=("concrete",))


def test_quantization_imports_neither_concrete_nor_torch(folder: Path) -> None:
    """Where they are installed, too."""
    code = """
module = fhe_core.quantize("mlp.onnx", x, n_bits=3)
module.forward(x, fhe="simulate")
module.save("model")
fhe_core.load("model")
fhe_core.check("mlp.onnx")
assert not {"concrete", "torch"} & set(sys.modules)
"""
    run(BEGIN + code, folder)
