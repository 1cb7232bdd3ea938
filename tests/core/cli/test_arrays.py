"""Files of arrays are read without trust: every bad one is an error that names it."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fhe_core.cli.arrays import positional, read_arrays, read_one, write_arrays
from fhe_core.errors import CalibrationError, InputError

DATA = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def test_the_content_decides_what_a_file_is(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(npy(DATA))
    np.testing.assert_array_equal(read_arrays(str(path), InputError, "the input")[""], DATA)
    path.write_bytes(npz(a=DATA))
    assert list(read_arrays(str(path), InputError, "the input")) == ["a"]


BAD = {
    "empty": (b"", "an empty file"),
    "text": (b"1,2,3\n4,5,6\n", "got: text"),
    "binary": (bytes(range(200)), "got: binary data"),
    "pickle": (pickle.dumps([1, 2]), "got: a Python pickle"),
    "objects": (npy(np.array([{}, 1], dtype=object)), "holds Python objects"),
    "objects in a zip": (npz(a=np.array([{}], dtype=object)), "holds Python objects"),
    "magic alone": (npy(DATA)[:6], "truncated or damaged"),
    "half a header": (npy(DATA)[:40], "truncated or damaged"),
    "half the data": (npy(DATA)[:-5], "truncated or damaged"),
    "a header of nonsense": (npy(DATA).replace(b"'descr'", b"'\xffescr'"), "truncated or damaged"),
    "a shape beyond memory": (npy(DATA).replace(b"(2, 3), }", b"(9**99,)}"), "truncated"),
    "half a zip": (npz(a=DATA)[:60], "truncated or damaged"),
    "a zip of other things": (zipped("net/data.pkl", b"\x80\x02."), "truncated or damaged"),
    "a zip of a broken array": (zipped("a.npy", npy(DATA)[:-5]), "truncated or damaged"),
    "an empty zip": (npz(), "holds no arrays"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_bad_file_is_named_with_what_is_wrong_and_what_to_do(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    content, words = BAD[kind]
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    with pytest.raises(CalibrationError) as caught:
        read_arrays(str(path), CalibrationError, "the calibration data")
    error = caught.value
    assert f"the calibration data '{path}'" in error.problem
    assert words in f"{error.problem}; got: {error.got}"
    assert error.fix


def test_pickled_objects_are_never_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (witness,)

    path = tmp_path / "x.npy"
    path.write_bytes(npy(np.array([Trap()], dtype=object)))
    with pytest.raises(InputError):
        read_arrays(str(path), InputError, "the input")
    assert not witness.exists()


def test_a_path_that_is_no_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.npy", tmp_path / "missing.npz:a"):
        with pytest.raises(InputError, match=r"the input '.*' cannot be read: .*\. Check the path"):
            read_arrays(str(path), InputError, "the input")


def test_one_array_of_several_is_chosen_after_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, a=DATA, b=DATA + 1)
    np.testing.assert_array_equal(read_one(f"{path}:b", InputError, "the input"), DATA + 1)
    with pytest.raises(InputError, match=r"no array called 'c' \(expected: 'a', 'b'\)"):
        read_one(f"{path}:c", InputError, "the input")
    with pytest.raises(InputError, match="holds 2 arrays"):
        read_one(str(path), InputError, "the input")
    odd = tmp_path / "odd.npz:b"
    odd.write_bytes(npy(DATA))
    np.testing.assert_array_equal(read_one(str(odd), InputError, "the input"), DATA)


def test_only_numpys_own_names_and_single_arrays_have_a_position() -> None:
    assert positional({"x": DATA}) == (DATA,)
    second, first = DATA + 1, DATA
    assert positional({"arr_1": second, "arr_0": first}) == (first, second)
    assert positional({"a": first, "b": second}) is None
    assert positional({"arr_0": first, "b": second}) is None


def test_what_is_written_is_read_back_whatever_the_names(tmp_path: Path) -> None:
    arrays = {"file": DATA, "/conv/out:0": DATA[0], "scalar": np.array(3)}
    path = tmp_path / "new" / "y.npz"
    write_arrays(path, arrays)
    back = read_arrays(str(path), InputError, "the output")
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    assert [entry.name for entry in path.parent.iterdir()] == ["y.npz"]
