"""A saved model is the model; what is not a whole saved model is refused, by name."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.compiler.folder import (
    FORMAT,
    MANIFEST,
    digest_of,
    manifest_of,
    read_folder,
    write_folder,
)
from fhe_core.quantization.module import QuantizedModule

import fhe_core
from fhe_core import exchange

from .nets import FAST, WEIGHTS, cnn, mlp, samples

FILES = [
    "manifest.json",
    "model.json",
    "model.npz",
    "plan.json",
    "report.json",
    "client/manifest.json",
    "client/client.json",
    "client/client.npz",
    "client/specs.json",
    "server/manifest.json",
    "server/circuit.zip",
]
LOADERS: dict[str, Callable[[Path], Any]] = {
    "client": fhe_core.load_client,
    "server": fhe_core.load_server,
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def load_part(folder: Path, name: str) -> Any:
    """Load the folder that a file belongs to most closely."""
    part = Path(name).parent.name
    return LOADERS[part](folder / part) if part else fhe_core.load(folder)


# -- what is kept


def test_a_loaded_model_computes_the_same(saved: Path, compiled: QuantizedModule) -> None:
    loaded = fhe_core.load(saved)
    x = samples(4)
    for options in ({"fhe": "disable"}, {"fhe": "simulate", "seed": 5}):
        pairs = zip(loaded.forward(x, **options), compiled.forward(x, **options), strict=True)
        for ours, theirs in pairs:
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
    assert loaded.cost == compiled.cost
    assert loaded.plan.to_json() == compiled.plan.to_json()
    assert loaded.fusion == compiled.fusion
    assert loaded.packs == compiled.packs != {}
    assert loaded.input_names == ("x",)
    assert loaded.output_names == ("y", "r")
    assert loaded.input_ranges == compiled.input_ranges


@pytest.mark.fhe
def test_a_loaded_model_executes(saved: Path, compiled: QuantizedModule) -> None:
    x = samples(4)[:2]
    pairs = zip(fhe_core.load(saved).forward(x, fhe="execute"), compiled(x), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)


def test_a_loaded_model_is_saved_as_it_was(saved: Path, tmp_path: Path) -> None:
    fhe_core.load(saved).save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(saved)


def test_a_model_that_was_only_quantized_is_kept_too(tmp_path: Path) -> None:
    qm = fhe_core.quantize(cnn(), samples(1, 3, 3), n_bits=3)
    qm.save(tmp_path / "model")
    assert sorted(contents(tmp_path / "model")) == FILES[:5]
    loaded = fhe_core.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded(samples(1, 3, 3)), qm(samples(1, 3, 3)))
    with pytest.raises(fhe_core.CompilationError, match="not compiled"):
        loaded.forward(samples(1, 3, 3), fhe="execute")


def test_nothing_saved_is_pickle(saved: Path) -> None:
    found = contents(saved)
    assert sorted(found) == sorted(FILES)
    for name, data in found.items():
        if name.endswith(".json"):
            json.loads(data)
        elif name.endswith(".npz"):
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                assert all(arrays[key].dtype.kind in "fiub" for key in arrays.files)
        else:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                assert not [inner for inner in archive.namelist() if inner.endswith(".pkl")]


def test_the_client_has_neither_weights_nor_circuit(saved: Path, compiled: QuantizedModule) -> None:
    """None of its arrays is as large as a matrix of weights, and no table of the circuit is in it."""
    assert sorted(contents(saved / "client")) == [
        "client.json",
        "client.npz",
        "manifest.json",
        "specs.json",
    ]
    with np.load(saved / "client" / "client.npz", allow_pickle=False) as arrays:
        for key in arrays.files:
            assert arrays[key].size < min(WEIGHTS["w"].size, WEIGHTS["v"].size), key
    text = b"".join(contents(saved / "client").values())
    for node in compiled.program.nodes:
        for value in node.attributes.values():
            if isinstance(value, np.ndarray) and value.size >= 8:
                assert value.tobytes() not in text
                assert json.dumps(value.ravel().tolist())[1:-1].encode() not in text


# -- where it is kept


def test_saving_replaces_what_was_saved_before(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "model"
    for kind in (mlp, cnn):
        shape = (4,) if kind is mlp else (1, 3, 3)
        qm = fhe_core.quantize(kind(), samples(*shape), n_bits=3)
        qm.save(place)
        np.testing.assert_array_equal(fhe_core.load(place)(samples(*shape)), qm(samples(*shape)))
    assert os.listdir(place.parent) == ["model"]


def test_an_empty_folder_is_filled(tmp_path: Path, compiled: QuantizedModule) -> None:
    (tmp_path / "model").mkdir()
    compiled.save(tmp_path / "model")
    fhe_core.load(tmp_path / "model")


def test_saved_files_are_as_readable_as_others(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert saved.stat().st_mode == (tmp_path / "folder").stat().st_mode
    assert (saved / MANIFEST).stat().st_mode == (tmp_path / "file").stat().st_mode


def foreign_file(place: Path) -> None:
    place.write_text("mine")


def foreign_folder(place: Path) -> None:
    place.mkdir()
    (place / "mine.txt").write_text("mine")


def folders_alone(place: Path) -> None:
    (place / "mine" / "too").mkdir(parents=True)


def foreign_manifest(place: Path) -> None:
    """Other tools write files of this name too."""
    foreign_folder(place)
    (place / MANIFEST).write_text(json.dumps({"format": 3, "name": "app"}))


def odd_manifest(place: Path) -> None:
    foreign_folder(place)
    (place / MANIFEST).write_text("7")


def saved_with_notes(place: Path) -> None:
    fhe_core.quantize(mlp(), samples(4), **FAST).save(place)
    (place / "notes.txt").write_text("mine")


def saved_client(place: Path) -> None:
    place.mkdir()
    (place / MANIFEST).write_bytes(manifest_of("client", {}, {}))


@pytest.mark.parametrize(
    "foreign",
    [
        foreign_file,
        foreign_folder,
        folders_alone,
        foreign_manifest,
        odd_manifest,
        saved_with_notes,
        saved_client,
    ],
)
def test_saving_onto_anything_else_is_refused_and_leaves_it(
    foreign: Callable[[Path], None], tmp_path: Path, compiled: QuantizedModule
) -> None:
    place = tmp_path / "place"
    foreign(place)
    before = contents(tmp_path)
    with pytest.raises(fhe_core.ArtifactError, match=r"place.*exists.*Choose another folder"):
        compiled.save(place)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("home", "name", "limit", "earlier"),
    [
        (Path, "write_bytes", 2, False),
        (Path, "write_bytes", 2, True),
        (Path, "rename", 1, False),
        (Path, "rename", 2, True),
        (exchange, "_exchanged", 1, True),
    ],
    ids=["a write", "a write over", "the rename", "the second rename", "the exchange"],
)
def test_a_save_that_fails_midway_leaves_what_was_there(
    home: Any,
    name: str,
    limit: int,
    earlier: bool,
    tmp_path: Path,
    compiled: QuantizedModule,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a full disk."""
    place = tmp_path / "model"
    if earlier:
        fhe_core.quantize(mlp(), samples(4), **FAST).save(place)
    before = contents(tmp_path)
    calls = []
    original = getattr(home, name)

    def full(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == limit:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    if name == "rename":
        # As where the file system cannot exchange two names.
        monkeypatch.setattr(exchange, "_exchanged", lambda one, other: False)
    monkeypatch.setattr(home, name, full)
    with pytest.raises(fhe_core.ArtifactError, match=r"model.*No space left.*Choose a folder"):
        compiled.save(place)
    assert len(calls) >= limit
    assert contents(tmp_path) == before
    assert os.listdir(tmp_path) == (["model"] if earlier else [])


SAVING = """
import os, sys, threading, time
import numpy as np
from pathlib import Path
from fhe_core import exchange
from fhe_core.compiler.folder import MANIFEST, manifest_of, write_folder
place, way = sys.argv[1:]
if way == "two renames":
    exchange._exchanged = lambda one, other: False
print("ready", flush=True)
for number in range(10**6):
    files = {f"part{i}/file": bytes([number % 256]) * 4096 for i in range(5)}
    write_folder(place, {**files, MANIFEST: manifest_of("model", files, {})})
    print(number, flush=True)
"""


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_a_save_that_is_killed_leaves_the_old_model_or_the_new_one(
    way: str, tmp_path: Path
) -> None:
    """At a dozen seeded moments; and what it left beside is gone after the next save."""
    rng = np.random.default_rng(0)
    place = tmp_path / "model"
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", SAVING, str(place), way], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for _ in range(rng.integers(2, 6)):
                process.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.003)))
            process.kill()
        _, files = read_folder(place, "model")
        assert len(set(files.values())) == 1
    write_folder(place, {MANIFEST: manifest_of("model", {}, {})})
    assert os.listdir(tmp_path) == ["model"]


def test_a_save_that_is_at_work_is_left_alone(tmp_path: Path) -> None:
    with exchange.scratch_beside(tmp_path / "model") as scratch:
        write_folder(tmp_path / "model", {MANIFEST: manifest_of("model", {}, {})})
        assert scratch.exists()
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("part", ["", "client"])
def test_what_was_moved_away_when_its_process_was_killed_is_read_and_put_back(
    part: str, copied: Callable[[], Path]
) -> None:
    """Where two names cannot be exchanged, there is a moment in which the model is at neither."""
    folder = copied()
    scratch = folder.parent / ".model-x.saving"
    scratch.mkdir()
    folder.rename(scratch / "old")
    assert (fhe_core.load_client if part else fhe_core.load)(folder / part)
    with exchange.scratch_beside(folder):
        assert os.listdir(folder.parent / "model")


def test_reading_while_others_save_finds_the_old_or_the_new(tmp_path: Path) -> None:
    """Each file is of the save that its manifest is of."""
    place = tmp_path / "model"
    with subprocess.Popen(
        [sys.executable, "-c", SAVING, str(place), "exchange"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        drain = threading.Thread(target=process.stdout.read)
        drain.start()
        seen = {next(iter(read_folder(place, "model")[1].values())) for _ in range(200)}
        process.kill()
        drain.join()
    assert len(seen) > 1


def test_a_folder_that_is_no_model_is_not_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a home folder, or a whole disk."""
    for number in range(3):
        (tmp_path / "place" / f"folder{number}").mkdir(parents=True)
        (tmp_path / "place" / f"folder{number}" / "file").touch()
    looked_into = []
    scandir = os.scandir

    def seen(path: Any) -> Any:
        looked_into.append(os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", seen)
    with pytest.raises(fhe_core.ArtifactError, match="holds other files too"):
        write_folder(tmp_path / "place", {})
    assert looked_into == [str(tmp_path / "place")]


# -- what cannot be loaded


def middle_changed(data: bytes) -> bytes:
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("damage", [middle_changed, cut_short, lambda data: b""])
@pytest.mark.parametrize("name", FILES)
def test_damage_to_any_file_is_noticed(
    name: str, damage: Callable[[bytes], bytes], copied: Callable[[], Path]
) -> None:
    folder = copied()
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(fhe_core.ArtifactError) as caught:
        load_part(folder, name)
    assert str((folder / name).parent) in str(caught.value)
    assert caught.value.fix
    # The whole holds both parts, and verifies them too.
    with pytest.raises(fhe_core.ArtifactError):
        fhe_core.load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, copied: Callable[[], Path]) -> None:
    folder = copied()
    (folder / name).unlink()
    with pytest.raises(fhe_core.ArtifactError) as caught:
        load_part(folder, name)
    assert str((folder / name).parent) in str(caught.value)
    assert Path(name).name in str(caught.value)
    assert caught.value.fix


def rewritten(folder: Path, **changes: Any) -> None:
    """The manifest with changes, and with a digest of its own that fits."""
    document = {**json.loads((folder / MANIFEST).read_text()), **changes}
    document["manifest"] = digest_of(document)
    (folder / MANIFEST).write_text(json.dumps(document))


@pytest.mark.parametrize("version", [FORMAT + 1, 0, "1", None])
def test_an_unknown_version_says_so(version: Any, copied: Callable[[], Path]) -> None:
    folder = copied()
    rewritten(folder, format=version)
    with pytest.raises(
        fhe_core.ArtifactError, match=r"unknown format.*version of fhe-core"
    ) as caught:
        fhe_core.load(folder)
    assert repr(version) in str(caught.value)


def test_one_kind_of_folder_is_not_loaded_as_another(saved: Path) -> None:
    for load, folder, fix in (
        (fhe_core.load_client, saved / "server", r"Use fhe_core\.load_server"),
        (fhe_core.load_server, saved / "client", r"Use fhe_core\.load_client"),
        (fhe_core.load, saved / "client", r"Use fhe_core\.load_client"),
        (fhe_core.load_server, saved, r"Use fhe_core\.load, or give its server/ folder"),
    ):
        with pytest.raises(fhe_core.ArtifactError, match=fix) as caught:
            load(folder)
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/hostname", "\0", ""])
def test_a_manifest_that_names_files_outside_is_refused(
    name: str, copied: Callable[[], Path]
) -> None:
    folder = copied()
    (folder.parent / "secret").write_text("secret")
    files = json.loads((folder / MANIFEST).read_text())["files"]
    rewritten(folder, files={**files, name: "0" * 64})
    with pytest.raises(fhe_core.ArtifactError) as caught:
        fhe_core.load(folder)
    assert str(folder) in str(caught.value)
    assert "was changed" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "7", "null", "{}", '{"format": 1, "kind": "model"}', "[" * 10**5]
)
def test_a_manifest_that_is_none_is_refused(text: str, copied: Callable[[], Path]) -> None:
    folder = copied()
    (folder / MANIFEST).write_text(text)
    with pytest.raises(fhe_core.ArtifactError, match=r"manifest\.json") as caught:
        fhe_core.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("load", [fhe_core.load, fhe_core.load_client, fhe_core.load_server])
def test_what_is_no_saved_folder_is_refused(load: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    for name in ("empty", "file", "absent", "a\0b"):
        with pytest.raises(fhe_core.ArtifactError, match="Give the folder that save") as caught:
            load(tmp_path / name)
        assert repr(str(tmp_path / name)) in str(caught.value)


@pytest.mark.parametrize("name", ["model.json", "model.npz", "plan.json", "server/circuit.zip"])
@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"PK\x03\x04", b'{"program": 3}'])
def test_files_that_agree_with_the_manifest_and_mean_nothing_are_refused(
    name: str, data: bytes, copied: Callable[[], Path]
) -> None:
    """As another version of this package, or somebody's script, would write them."""
    folder = copied()
    (folder / name).write_bytes(data)
    files = json.loads((folder / MANIFEST).read_text())["files"]
    rewritten(folder, files={**files, name: hashlib.sha256(data).hexdigest()})
    with pytest.raises(fhe_core.ArtifactError) as caught:
        fhe_core.load(folder)
    assert str(folder) in str(caught.value)
    assert caught.value.fix
