"""Fourier transforms, windows and mel bands are what ONNX, SciPy and PyTorch compute."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import scipy.fft
import scipy.signal
import torch
from fhe_core.errors import FheError

from fhe_ops_std import signal

from . import onnx_cases
from .oracles import assert_all_same, by_module, by_reference, by_runtime

OPS = ("DFT", "STFT", "MelWeightMatrix", "HannWindow", "HammingWindow", "BlackmanWindow")


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(signal.IMPLEMENTATIONS)


# Fourier transforms


def pairs(values: Any, dtype: Any) -> Any:
    """Numbers: (...) as ONNX has them: (..., 1) real or (..., 2) complex."""
    parts = [values.real, values.imag] if np.iscomplexobj(values) else [values]
    return np.stack(parts, -1).astype(dtype)


def random_signal(rng: np.random.Generator, shape: tuple[int, ...], *, real: bool) -> Any:
    x = rng.normal(size=shape)
    return x if real else x + 1j * rng.normal(size=shape)


TRANSFORMS = [  # SciPy's name, a real input, inverse, one-sided
    ("fft", True, 0, 0),
    ("fft", False, 0, 0),
    ("ifft", True, 1, 0),
    ("ifft", False, 1, 0),
    ("rfft", True, 0, 1),
    ("irfft", False, 1, 1),
]


@pytest.mark.parametrize("opset", [17, 19, 20, 28])
@pytest.mark.parametrize(("name", "real", "inverse", "onesided"), TRANSFORMS)
@pytest.mark.parametrize("length", [None, 5, 12])
@pytest.mark.parametrize("axis", [0, 1, 2, -2, -4])
def test_dft_is_scipy_s(
    opset: int, name: str, real: bool, inverse: int, onesided: int, length: int | None, axis: int
) -> None:
    """Along any axis, of its own length, cut or padded; the axis an attribute, later an input."""
    x = random_signal(np.random.default_rng(1), (6, 7, 8), real=real)
    expected = getattr(scipy.fft, name)(x, length, axis=range(4)[axis])
    inputs = [pairs(x, np.float64), None if length is None else np.array(length)]
    attributes = {"inverse": inverse, "onesided": onesided}
    if opset < 20:
        attributes["axis"] = axis
    else:
        inputs.append(np.array(axis))
    (got,) = by_module("DFT", *inputs, opset=opset, **attributes)
    onnx_cases.assert_same(got, pairs(expected, np.float64), rtol=1e-9, atol=1e-9)


def test_dft_without_an_axis() -> None:
    """The first axis after the batch up to opset 19, the last of the signal from 20 on."""
    x = pairs(np.random.default_rng(2).normal(size=(2, 3, 4)), np.float32)
    for opset in (17, 20):
        assert_all_same(by_module("DFT", x, opset=opset), by_reference("DFT", x, opset=opset))
    assert_all_same(by_module("DFT", x, opset=17), by_runtime("DFT", x, opset=17))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_transforms_in_single_precision(dtype: Any) -> None:
    """The sum of 4096 ones is exact."""
    y = signal.dft_17(np.ones((1, 4096, 1), dtype), onesided=1)
    assert y.dtype == dtype
    assert y[0, 0].astype(np.float32).tolist() == [4096, 0]
    assert not y[0, 1:].astype(np.float32).any()


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize(("length", "step"), [(16, 8), (16, 5), (40, 40), (7, 3)])
@pytest.mark.parametrize("windowed", [False, True])
def test_stft_of_real_signals_is_pytorch_s(
    onesided: int, length: int, step: int, windowed: bool
) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 40)).astype(np.float32)
    window = rng.uniform(0.1, 1, length).astype(np.float32)
    inputs = (x[..., None], np.array(step), window if windowed else None, np.array(length))
    (got,) = by_module("STFT", *inputs, onesided=onesided)
    expected = torch.stft(
        torch.from_numpy(x),
        length,
        hop_length=step,
        window=torch.from_numpy(window if windowed else np.ones_like(window)),
        center=False,
        onesided=bool(onesided),
        return_complex=True,
    )
    rows = np.moveaxis(expected.numpy(), 1, 2)
    onnx_cases.assert_same(got, pairs(rows, np.float32), rtol=1e-4, atol=1e-4)


def test_stft_of_complex_signals() -> None:
    """And where the length of a frame follows from the window, or from the signal."""
    x = pairs(random_signal(np.random.default_rng(4), (2, 30), real=False), np.float32)
    window, step = np.hanning(8).astype(np.float32), np.array(3)
    for inputs in ((x, step, window), (x, step, None, np.array(8)), (x, step)):
        expected = by_reference("STFT", *inputs, onesided=0)
        assert_all_same(by_module("STFT", *inputs, onesided=0), expected, rtol=1e-4)


# Windows

WINDOWS = {
    "HannWindow": "hann",
    "HammingWindow": ("general_hamming", 25 / 46),
    "BlackmanWindow": "blackman",
}


@pytest.mark.parametrize("op", WINDOWS)
@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("size", [2, 9, 400])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_windows_are_scipy_s(op: str, periodic: int, size: int, dtype: Any) -> None:
    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    (got,) = by_module(op, np.array(size), periodic=periodic, output_datatype=number)
    expected = scipy.signal.get_window(WINDOWS[op], size, fftbins=bool(periodic))
    assert got.dtype == dtype
    np.testing.assert_allclose(
        got.astype(np.float64), expected.astype(dtype).astype(np.float64), rtol=1e-6, atol=1e-7
    )


def test_a_window_of_integers_is_truncated() -> None:
    (got,) = by_module("HammingWindow", np.array(10, np.int32), output_datatype=7)
    onnx_cases.assert_same(got, np.array([0, 0, 0, 0, 0, 1, 0, 0, 0, 0]))


# The mel scale


@pytest.mark.parametrize(
    "settings",
    [(8, 16, 8192, 0, 4096), (40, 512, 16000, 20, 7600), (80, 400, 16000, 0, 8000), (4, 7, 100, 1, 9)],
)  # fmt: skip
def test_mel_bands_are_those_of_onnx(settings: tuple[int, ...]) -> None:
    """Also where neighbouring corners fall on one frequency."""
    inputs = (*map(np.array, settings[:3]), *(np.array(edge, np.float32) for edge in settings[3:]))
    got = by_module("MelWeightMatrix", *inputs)
    assert_all_same(got, by_reference("MelWeightMatrix", *inputs))
    assert_all_same(got, by_runtime("MelWeightMatrix", *inputs))


# Errors

REAL = np.ones((1, 8, 1), np.float32)
COMPLEX = np.ones((1, 8, 2), np.float32)
STEP, ZERO = np.array(2), np.array(0)
BAD: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "half a spectrum of complex numbers": ("DFT", (COMPLEX,), {"onesided": 1}),
    "the real signal of a real spectrum": ("DFT", (REAL,), {"onesided": 1, "inverse": 1}),
    "the axis of the parts": ("DFT", (REAL, None, np.array(-1)), {}),
    "an axis out of range": ("DFT", (REAL, None, np.array(3)), {}),
    "three parts": ("DFT", (np.ones((1, 8, 3), np.float32),), {}),
    "a length of 0": ("DFT", (REAL, ZERO), {}),
    "half a spectrum of complex frames": ("STFT", (COMPLEX, STEP), {}),
    "frames longer than the signal": ("STFT", (REAL, STEP, None, np.array(9)), {}),
    "a window of another length": ("STFT", (REAL, STEP, REAL[0, :4, 0], np.array(5)), {}),
    "a step of 0": ("STFT", (REAL, ZERO), {}),
    "a window of strings": ("HannWindow", (np.array(5),), {"output_datatype": 8}),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_a_typed_error(bad: str) -> None:
    op, inputs, attributes = BAD[bad]
    with pytest.raises(FheError, match=op):
        by_module(op, *inputs, opset=20, **attributes)
