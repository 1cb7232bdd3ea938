"""A small compiled model that is saved, with keys and messages: made once, by another process.

Native code that ran in this one would have its threads in no process that is forked from it.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
MESSAGES = ("inputs", "results", "evaluation_keys", "secret_keys")


@functools.cache
def saved() -> Path:
    """A folder with ``model``, and a file for each of ``MESSAGES``. It is gone at the end of this process."""
    folder = tempfile.mkdtemp(prefix="fuzz-saved-")
    maker = os.getpid()
    atexit.register(lambda: os.getpid() == maker and shutil.rmtree(folder, ignore_errors=True))
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-m", "tests.fuzz.saved", folder], check=True, cwd=root)
    return Path(folder)


def make(folder: Path) -> None:
    """What ``saved`` gives."""
    import fhe_core

    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("Div", ["x", "c"], ["d"]),
            helper.make_node("MatMul", ["d", "w"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "v"], ["g"]),
            helper.make_node("Softmax", ["g"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.float32(3), "c"),
            *(
                numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
                for name, shape in (("w", (4, 2)), ("v", (2, 2)))
            ),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    fhe_core.compile(model, X, n_bits=2, rounding=2).save(folder / "model")
    client = fhe_core.load_client(folder / "model" / "client")
    client.keygen()
    inputs, keys = client.encrypt(X[:1]), client.evaluation_keys
    results = fhe_core.load_server(folder / "model" / "server").run(inputs, keys)
    for name, data in zip(MESSAGES, (inputs, results, keys, client.secret_keys), strict=True):
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
