"""A folder whose hashes are right may still be made to harm: what is in it is checked before it is used."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.compiler import artifact
from fhe_core.compiler.folder import (
    MANIFEST,
    arrays_from_bytes,
    arrays_to_bytes,
    checked_zip,
    digest_of,
)
from fhe_core.program.host import FUNCTIONS, HostProgram, HostStep, Reference
from fhe_core.program.sizes import most_elements
from fhe_core.quantization.module import QuantizedModule

import fhe_core
from fhe_core import ArtifactError

Document = dict[str, Any]


def forged(folder: Path, name: str, data: bytes) -> Path:
    """A file replaced, and the manifest's hashes made anew."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256(data).hexdigest()
    manifest["manifest"] = digest_of(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def step(function: str, *arguments: Any, **keywords: Any) -> Document:
    return {
        "function": function,
        "arguments": {"tuple": list(arguments)},
        "keywords": keywords,
        "layout": False,
    }


FIRST = {"slot": 0}


def changed(*path: Any, to: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        place: Any = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


def added(*steps: Document, part: str = "encoder") -> Callable[[Document], None]:
    return lambda document: document[part]["steps"].extend(steps)


def outer_product(document: Document) -> None:
    """Of two rows of ones, each short."""
    steps = document["encoder"]["steps"]
    made = len(document["encoder"]["inputs"]) + len(steps)
    steps += [
        step("broadcast_to", 1.0, {"tuple": [1, 100_000]}),
        step("broadcast_to", 1.0, {"tuple": [100_000, 1]}),
        step("add", {"slot": made}, {"slot": made + 1}),
    ]


SHAPE = {"tuple": [100_000, 100_000]}
FORGERIES: dict[str, Callable[[Document], None]] = {
    "a slot that is not there": changed("encoder", "results", to=[999]),
    "a slot before the first": changed("encoder", "results", to=[-1]),
    "its own result": added(step("add", {"slot": 10**6}, 1)),
    "too few arguments": lambda d: d["encoder"]["steps"][0]["arguments"]["tuple"].pop(),
    "no results": changed("encoder", "results", to=[]),
    "a result twice": lambda d: d["encoder"]["results"].append(d["encoder"]["results"][0]),
    "another input": changed("encoder", "inputs", to=["z"]),
    "floats to encrypt": changed("encoder", "results", to=[0]),
    "another function": added(step("load", "file")),
    "objects": added(step("astype", FIRST, dtype={"dtype": "object"})),
    "an array that is not there": added(step("add", FIRST, {"array": "a99"})),
    "a full array": added(step("full_like", FIRST, 1.0, shape=SHAPE)),
    "a full array by place": added(step("full_like", FIRST, 1.0, None, "K", True, SHAPE)),
    "a broadcast": added(step("broadcast_to", 1.0, SHAPE)),
    "an outer product": outer_product,
    "padding": added(
        step("pad", FIRST, {"tuple": [{"tuple": [0, 0]}, {"tuple": [0, 10**10]}]}, 0.0)
    ),
    "many steps": added(*[step("full_like", FIRST, 1.0, shape={"tuple": [2**24]})] * 5),
    "the decoder's": added(step("full_like", FIRST, 1.0, shape=SHAPE), part="decoder"),
    "another number of outputs": changed("output_names", to=["y"]),
    "no list of outputs": changed("output_names", to=3),
    "a huge input": changed("inputs", 0, "shape", to=["N", 10**12]),
    "a negative input": changed("inputs", 0, "shape", to=["N", -4]),
    "an input without name": changed("inputs", 0, "name", to=None),
    "a type that is none": changed("inputs", 0, "dtype", to="float33"),
    "a range upside down": changed("inputs", 0, "range", to=[1.0, -1.0]),
    "a range of NaN": changed("inputs", 0, "range", to=[float("nan"), 1.0]),
    "a huge ciphertext": changed("decrypted", 0, "shape", to=[{"batch": 1}, 10**12]),
    "no batch": changed("decrypted", 0, "shape", to=[3, 3]),
    "an offset that is none": changed("decrypted", 0, "offset", to="x"),
    "no steps": changed("encoder", to=None),
    "nothing": lambda document: document.clear(),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_client_is_refused_when_it_is_loaded(
    forgery: str, copied: Callable[[], Path]
) -> None:
    """At once, and in little memory."""
    folder = copied() / "client"
    document = json.loads((folder / "client.json").read_text())
    FORGERIES[forgery](document)
    forged(folder, "client.json", json.dumps(document).encode())
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError) as caught:
            fhe_core.load_client(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**30
    finally:
        tracemalloc.stop()
    assert caught.value.fix


def test_the_same_is_refused_of_a_whole_model(copied: Callable[[], Path]) -> None:
    folder = copied()
    document = json.loads((folder / "model.json").read_text())
    document["interface"]["encoder"]["results"] = [999]
    forged(folder, "model.json", json.dumps(document).encode())
    with pytest.raises(ArtifactError, match="a result that is not there"):
        fhe_core.load(folder)


# -- sizes


def test_a_client_that_could_not_be_loaded_is_not_saved(
    compiled: QuantizedModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "MOST_CLIENT_BYTES", 100)
    with pytest.raises(ArtifactError, match=r"more tables than.*client_side='minimal'"):
        compiled.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_nothing_that_a_function_makes_is_larger_than_foretold() -> None:
    """Of every function of the vocabulary that can make something large of little."""
    x, index = np.ones((3, 4, 5)), np.array([0, 2, 1, 1, 0, 2, 2])
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("add", (x[:, :, :1], x[:1, :1]), {}),
        ("where", (x[:1] > 0, x, x[:, :1]), {}),
        ("clip", (x, 0.0, np.ones((6, 1, 1, 1))), {}),
        ("broadcast_to", (x, (7, 3, 4, 5)), {}),
        ("broadcast_to", (x,), {"shape": (7, 3, 4, 5)}),
        ("full_like", (x, 1.0), {"shape": (9, 9)}),
        ("full_like", (x, 1.0), {"shape": 99}),
        ("zeros_like", (x,), {"shape": np.array([9, 9])}),
        ("reshape", (x, (4, -1)), {}),
        ("pad", (x, ((1, 2), (0, 0), (3, 3)), 0.0), {}),
        ("concatenate", ((x, x, x[:1]), 0), {}),
        ("take", (x, index, 0), {}),
        ("take", (x, np.stack([index, index]), -1), {}),
        ("index", (x, (slice(None), index)), {}),
        ("index", (x, (Ellipsis, index[:, None], index)), {}),
        ("index", (x, (index, None, slice(1), index)), {}),
        ("index", (x, (0, Ellipsis, None)), {}),
        ("index", (x, index), {}),
        ("select", (index, np.arange(3.0)), {}),
        ("select", (index[:, None] * np.ones((1, 2), int), np.ones((3, 2))), {}),
        ("rows", (x, index.astype(float)), {}),
        ("matmul", (x, np.ones((5, 50))), {}),
        ("matmul", (np.ones((2, 1, 3, 4)), x[:, :, :2]), {}),
        ("lookup", (np.zeros((3, 1, 2), int), np.ones((2, 8)), np.arange(2).reshape(1, 2), 0), {}),
        ("sized", (x[:1], 0, (0,), 11), {}),
        ("sized", (x, 2.0, (), 11), {}),
        ("take_along_axis", (x[:1], np.zeros((6, 4, 2), int), 2), {}),
        ("take_along_axis", (x, np.zeros((3, 1, 5), int)), {"axis": 1}),
        ("take_along_axis", (x, np.zeros(99, int), None), {}),
        ("sum", (x,), {"axis": (0, 2), "keepdims": True}),
        ("cumsum", (x, 1), {}),
    ]
    own = {name for name in FUNCTIONS if not hasattr(np, name)}
    assert own <= {name for name, _, _ in calls} | {"astype", "maps"}
    for name, arguments, keywords in calls:
        size = np.size(FUNCTIONS[name](*arguments, **keywords))
        assert size <= most_elements(name, arguments, keywords) < 2**14, name


def test_the_bound_is_for_each_sample() -> None:
    program = HostProgram(
        ("x",), (HostStep("broadcast_to", (Reference(0), (1000, 2**20)), {}),), (1,)
    )
    with pytest.raises(ArtifactError, match="more memory"):
        program({"x": np.ones((1, 1))}, 1)
    program({"x": np.ones((1000, 1))}, 1000)


def npz(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(shape: tuple[int, ...], data: bytes, descr: str = "<f8") -> bytes:
    buffer = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + data


def test_arrays_that_would_take_too_much_are_refused_by_their_headers() -> None:
    bomb = npz(*((f"a{i}.npy", npy((2**21,), bytes(2**24))) for i in range(4)))
    assert len(bomb) < 2**17
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="more memory"):
        arrays_from_bytes(bomb, most=2**23)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    assert len(arrays_from_bytes(bomb, most=2**26)) == 4


@pytest.mark.parametrize(
    "member",
    [
        npy((2**40,), b""),
        npy((-1,), b""),
        npy((2, 2), bytes(16)),
        npy((1,), bytes(16)),
        npy((1,), bytes(8), "|O"),
        b"\x93NUMPY\x09\x00" + bytes(100),
        b"no array",
        b"",
    ],
    ids=["huge", "negative", "short", "long", "objects", "version", "text", "empty"],
)
def test_an_array_is_as_long_as_its_header_says(member: bytes, copied: Callable[[], Path]) -> None:
    folder = forged(copied() / "client", "client.npz", npz(("a0.npy", member)))
    with pytest.raises(ArtifactError, match="cannot be understood"):
        fhe_core.load_client(folder)


def test_arrays_survive() -> None:
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array("text"), "c": np.float32(2)}
    found = arrays_from_bytes(arrays_to_bytes(arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out"])
def test_an_archive_stays_in_its_folder(name: str) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        checked_zip(npz((name, b"")), "circuit.zip")


# -- what a folder holds


@pytest.mark.parametrize("kind", [[], {}, None, 7, True])
def test_a_kind_that_is_no_word_is_refused(kind: Any, saved: Path, tmp_path: Path) -> None:
    manifest = {**json.loads((saved / "client" / MANIFEST).read_text()), "kind": kind}
    (tmp_path / MANIFEST).write_text(
        json.dumps({**manifest, "manifest": digest_of({**manifest, "manifest": ""})})
    )
    with pytest.raises(ArtifactError, match="damaged"):
        fhe_core.load_client(tmp_path)


@pytest.mark.parametrize("name", [MANIFEST, "client.json"])
@pytest.mark.parametrize("what", ["pipe", "folder", "link", "long"])
def test_what_is_no_file_of_the_folder_is_refused(
    what: str, name: str, copied: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe would be waited for, a link shows what its author could not read."""
    folder = copied() / "client"
    place = folder / name
    data = place.read_bytes()
    place.unlink()
    if what == "pipe":
        os.mkfifo(place)
    elif what == "folder":
        place.mkdir()
    elif what == "link":
        (folder.parent / "elsewhere").write_bytes(data)
        place.symlink_to(folder.parent / "elsewhere")
    else:
        with place.open("wb") as file:
            file.truncate(2**40)
    if what == "link" and name == MANIFEST:
        assert fhe_core.load_client(folder), "what it says is checked anyway"
        return
    with pytest.raises(ArtifactError) as caught:
        fhe_core.load_client(folder)
    assert caught.value.fix


# -- Concrete's own files


def with_keys(part: str, **params: Any) -> Callable[[Document], None]:
    def change(specs: Document) -> None:
        specs["keyset"][part][0]["params"].update(params)

    return change


SPECIFICATIONS: dict[str, Callable[[Document], Any]] = {
    "a huge secret key": with_keys("lweSecretKeys", lweDimension=2**31),
    "no secret key": with_keys("lweSecretKeys", lweDimension=0),
    "a text": with_keys("lweSecretKeys", lweDimension="x"),
    "a huge polynomial": with_keys("lweBootstrapKeys", polynomialSize=2**30),
    "an odd polynomial": with_keys("lweBootstrapKeys", polynomialSize=1023),
    "huge keys": with_keys("lweBootstrapKeys", polynomialSize=2**17, glweDimension=2**15),
    "many levels": with_keys("lweKeyswitchKeys", levelCount=10**9),
    "levels beyond the word": with_keys("lweKeyswitchKeys", levelCount=20, baseLog=20),
    "wide integers": with_keys("lweKeyswitchKeys", integerPrecision=10**6),
    "no circuit": lambda specs: specs["circuits"].clear(),
    "no keys": lambda specs: specs.pop("keyset"),
    "no inputs": lambda specs: specs["circuits"][0]["inputs"].clear(),
    "a huge input": lambda specs: specs["circuits"][0]["inputs"][0]["rawInfo"]["shape"].update(
        dimensions=[10**12]
    ),
    "another input": lambda specs: specs["circuits"][0]["inputs"][0]["typeInfo"]["lweCiphertext"][
        "abstractShape"
    ].update(dimensions=[1, 5]),
    "one output more": lambda specs: specs["circuits"][0]["outputs"].append(
        specs["circuits"][0]["outputs"][0]
    ),
}


@pytest.mark.parametrize("forgery", SPECIFICATIONS)
def test_parameters_that_no_circuit_has_are_refused(
    forgery: str, copied: Callable[[], Path]
) -> None:
    """Making such keys would take all memory, or end the process."""
    folder = copied() / "client"
    specs = json.loads((folder / "specs.json").read_text())
    SPECIFICATIONS[forgery](specs)
    forged(folder, "specs.json", json.dumps(specs).encode())
    with pytest.raises(
        ArtifactError, match=r"specification cannot be used|other tensors"
    ) as caught:
        fhe_core.load_client(folder)
    assert caught.value.fix


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:1000] + bytes(3000) + data[4000:],
        lambda data: bytes(len(data)),
    ],
    ids=["half", "a hole", "zeros"],
)
def test_a_broken_library_is_named_for_what_it_is(
    damage: Callable[[bytes], bytes], copied: Callable[[], Path]
) -> None:
    """Not for the ciphertexts that it is given; and it does not end this process."""
    folder = copied() / "server"
    whole = io.BytesIO((folder / "circuit.zip").read_bytes())
    with zipfile.ZipFile(whole) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    broken = npz(*((n, damage(data) if n == "sharedlib.so" else data) for n, data in members))
    forged(folder, "circuit.zip", broken)
    with pytest.raises(ArtifactError, match=r"sharedlib\.so is no shared library, or damaged"):
        fhe_core.load_server(folder)
