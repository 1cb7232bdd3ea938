"""Client and server are separate programs that share no memory, no packs and no model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fhe_core.quantization.module import QuantizedModule

from .nets import samples
from .processes import PACKS, ended, run, started

pytestmark = pytest.mark.fhe

CLIENT = """
import fhe_core, numpy as np
client = fhe_core.load_client("client")
client.keygen()
with open("secret_keys", "wb") as file:
    file.write(client.secret_keys)
with open("../server/inputs", "wb") as file:
    file.write(client.encrypt(np.load("x.npy")))
with open("../server/keys", "wb") as file:
    file.write(client.evaluation_keys)
print("sent", flush=True)
input()
client = fhe_core.load_client("client")
with open("secret_keys", "rb") as file:
    client.load_keys(file.read())
with open("../server/results", "rb") as file:
    np.savez("outputs.npz", *client.decrypt(file.read()))
assert not [name for name in sys.modules if name.startswith("fhe_ops_")]
"""

SERVER = """
import os
from pathlib import Path
assert sorted(os.listdir()) == ["inputs", "keys", "server"], os.listdir()
assert sorted(os.listdir("server")) == ["circuit.zip", "manifest.json"]
import fhe_core
from fhe_core.compiler.concrete_backend import concrete

def refused(*arguments, **keywords):
    raise AssertionError("a server has no secret keys")

fhe = concrete()
fhe.Client.__init__ = fhe.Keys.__init__ = refused
server = fhe_core.load_server("server")
Path("results").write_bytes(server.run(Path("inputs").read_bytes(), Path("keys").read_bytes()))
assert not [name for name in sys.modules if name.startswith("fhe_ops_")]
"""


def test_a_client_encrypts_a_server_computes_and_the_client_decrypts(
    saved: Path, compiled: QuantizedModule, tmp_path: Path
) -> None:
    """Neither has the packs, and the server's folder never holds a secret key."""
    x = samples(4)[:2]
    for side in ("client", "server"):
        shutil.copytree(saved / side, tmp_path / side / side)
    np.save(tmp_path / "client" / "x.npy", x)

    with started(CLIENT, tmp_path / "client", blocked=PACKS) as client:
        assert client.stdout is not None
        if client.stdout.readline() == "sent\n":
            run(SERVER, tmp_path / "server", blocked=PACKS)
        ended(client, "the results are there\n")

    with np.load(tmp_path / "client" / "outputs.npz") as outputs:
        for name, expected in zip(outputs.files, compiled(x), strict=True):
            np.testing.assert_array_equal(outputs[name], expected)


WHOLE = """
import fhe_core, numpy as np
module = fhe_core.load("model")
np.savez("outputs.npz", *module(np.load("x.npy")))
assert not {"concrete", "torch"} & set(sys.modules)
assert not [name for name in sys.modules if name.startswith("fhe_ops_")]
"""


def test_a_whole_model_loads_without_packs_and_computes_without_concrete(
    saved: Path, compiled: QuantizedModule, tmp_path: Path
) -> None:
    x = samples(4)
    shutil.copytree(saved, tmp_path / "model")
    np.save(tmp_path / "x.npy", x)
    run(WHOLE, tmp_path, blocked=PACKS)
    with np.load(tmp_path / "outputs.npz") as outputs:
        for name, expected in zip(outputs.files, compiled(x), strict=True):
            np.testing.assert_array_equal(outputs[name], expected)


def test_a_process_that_ran_a_circuit_ends_with_its_own_exit_code(
    saved: Path, compiled: QuantizedModule, tmp_path: Path
) -> None:
    """Concrete would end it with 0, before what was printed is written."""
    np.save(tmp_path / "x.npy", samples(4)[:1])
    code = f"""
import fhe_core, numpy as np
fhe_core.load({str(saved)!r}).forward(np.load("x.npy"), fhe="execute")
print("the last word")
sys.exit(3)
"""
    with started(code, tmp_path) as process:
        said, complaints = process.communicate(timeout=120)
    assert (process.returncode, said) == (3, "the last word\n"), complaints
