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


FORKED = """
import os, fhe_core, numpy as np
x = np.load("x.npy")
client, other = fhe_core.load_client("client"), fhe_core.load_client("client")
server = fhe_core.load_server("server")

def child(act):
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except fhe_core.ProcessError as error:
            os._exit(7 if error.fix else 1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert child(other.keygen) == 0, "nothing has been started yet"
client.keygen()
inputs, keys = client.encrypt(x), client.evaluation_keys
server.run(inputs, keys)
for act in (
    client.keygen,
    other.keygen,
    lambda: client.encrypt(x),
    lambda: client.secret_keys,
    lambda: server.run(inputs, keys),
    lambda: fhe_core.load_client("client"),
    lambda: fhe_core.load_server("server"),
):
    assert child(act) == 7
assert child(lambda: child(other.keygen) == 7 or os._exit(1)) == 0, "nor has a fork of a fork"
"""


def test_a_fork_of_a_process_that_made_keys_is_told_so_and_does_not_hang(
    saved: Path, tmp_path: Path
) -> None:
    """Before that, a fork may do all."""
    for side in ("client", "server"):
        shutil.copytree(saved / side, tmp_path / side)
    np.save(tmp_path / "x.npy", samples(4)[:1])
    run(FORKED, tmp_path)


INTERRUPTED = """
import os, signal, threading, fhe_core, numpy as np
qm = fhe_core.load("model")
x = np.load("x.npy")
qm.forward(x, fhe="execute")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    qm.forward(np.repeat(x, 1000, axis=0), fhe="execute")
except KeyboardInterrupt:
    print("interrupted")
finally:
    print("cleaned up", flush=True)
sys.exit(130)
"""


def test_an_interrupt_while_native_code_runs_is_an_exception(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another thread too, which native code leaves to take it; nothing temporary is left."""
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    np.save(tmp_path / "x.npy", samples(4)[:1])
    with started(INTERRUPTED, tmp_path) as process:
        said, complaints = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, "interrupted\ncleaned up\n"), complaints
    assert list((tmp_path / "temporary").iterdir()) == []
