"""Signal processing: Fourier transforms, windows and the mel scale.

A complex tensor has a last axis of two: the real and the imaginary part. A real one has a last axis
of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

from ._precision import precise, rounded
from ._types import dtype_numbered

Array = NDArray[Any]

# --- Fourier transforms ---


def dft_17(
    input: Array,
    /,
    dft_length: Array | None = None,
    *,
    axis: int = 1,
    inverse: Flag = 0,
    onesided: Flag = 0,
) -> Array:
    """ONNX DFT-17: the discrete Fourier transform along ``axis``.

    Args:
        input: (..., 1) real or (..., 2) complex.
        dft_length: what ``axis`` is cut or padded with zeros to; by default its own length, or
            where the inverse is one-sided the even length whose half the input is.
        inverse: whether to transform back, divided by the length.
        onesided: whether the spectrum of a real signal is reduced to the first half of its
            frequencies, the others being their conjugates. The inverse then gives a real signal.

    Returns:
        (..., 2) complex; (..., 1) real if ``inverse`` and ``onesided``.
    """
    along = range(input.ndim)[axis]
    if along == input.ndim - 1:
        raise ValueError(f"axis {axis} holds the real and imaginary parts")
    if onesided and inverse and input.shape[-1] != 2:
        raise ValueError("the one-sided inverse takes a complex input, whose last axis is 2")
    signal = _numbers(input)
    if onesided and not inverse and np.iscomplexobj(signal):
        raise ValueError("the one-sided transform takes a real input, whose last axis is 1")
    transform = _TRANSFORMS[bool(inverse), bool(onesided)]
    length = None if dft_length is None else int(dft_length.item())
    return _parts(transform(signal, n=length, axis=along), input.dtype)


def dft_20(
    input: Array,
    /,
    dft_length: Array | None = None,
    axis: Array | None = None,
    *,
    inverse: Flag = 0,
    onesided: Flag = 0,
) -> Array:
    """ONNX DFT-20: `dft_17`, the axis being an input, -2 by default."""
    along = -2 if axis is None else int(axis.item())
    return dft_17(input, dft_length, axis=along, inverse=inverse, onesided=onesided)


def stft(
    signal: Array,
    frame_step: Array,
    /,
    window: Array | None = None,
    frame_length: Array | None = None,
    *,
    onesided: Flag = 1,
) -> Array:
    """ONNX STFT-17: the Fourier transform of each frame of a signal.

    Args:
        signal: (batch, length, 1) real or (batch, length, 2) complex.
        frame_step: from where one frame begins to where the next does.
        window: (frame_length,), which each frame is multiplied with; ones by default.
        frame_length: the window's length by default, or the signal's.
        onesided: as for `dft_17`: for real signals alone.

    Returns:
        (batch, frames, frequencies, 2).
    """
    size = signal.shape[1] if window is None else window.shape[0]
    length = size if frame_length is None else int(frame_length.item())
    step = int(frame_step.item())
    if window is not None and length != size:
        raise ValueError(f"the window has {size} elements, not frame_length = {length}")
    if step < 1:
        raise ValueError(f"frame_step is {step}, not positive")
    frames = np.lib.stride_tricks.sliding_window_view(_numbers(signal), length, axis=1)[:, ::step]
    if onesided and np.iscomplexobj(frames):
        raise ValueError("a complex signal, whose last axis is 2, has no one-sided transform")
    weighted = frames if window is None else frames * precise(window)
    return _parts(_TRANSFORMS[False, bool(onesided)](weighted, n=None, axis=2), signal.dtype)


_TRANSFORMS: dict[tuple[bool, bool], Callable[..., Array]] = {  # inverse, one-sided
    (False, False): np.fft.fft,
    (False, True): np.fft.rfft,
    (True, False): np.fft.ifft,
    (True, True): np.fft.irfft,
}


def _numbers(x: Array) -> Array:
    """x: (..., 1) or (..., 2) as real or complex numbers: (...)."""
    if x.shape[-1] not in (1, 2):
        raise ValueError(f"the last axis must be 1 (real) or 2 (complex), not {x.shape[-1]}")
    parts = precise(x)
    return parts[..., 0] if x.shape[-1] == 1 else parts[..., 0] + 1j * parts[..., 1]


def _parts(values: Array, dtype: np.dtype[Any]) -> Array:
    """Numbers: (...) as (..., 1) if real and (..., 2) if complex."""
    if not np.iscomplexobj(values):
        return rounded(values, dtype)[..., np.newaxis]
    return rounded(np.stack([values.real, values.imag], axis=-1), dtype)


# --- windows ---


def hann_window(size: Array, /, *, output_datatype: int = 1, periodic: Flag = 1) -> Array:
    """ONNX HannWindow-17: 1/2 - 1/2 cos(2 pi i / n) for i < size.

    n is the size, or size - 1 for a symmetric window, which ``periodic`` 0 asks for.
    """
    return _cosines(size, output_datatype, periodic, 0.5, 0.5)


def hamming_window(size: Array, /, *, output_datatype: int = 1, periodic: Flag = 1) -> Array:
    """ONNX HammingWindow-17: 25/46 - 21/46 cos(2 pi i / n) for i < size; n as in `hann_window`."""
    return _cosines(size, output_datatype, periodic, 25 / 46, 21 / 46)


def blackman_window(size: Array, /, *, output_datatype: int = 1, periodic: Flag = 1) -> Array:
    """ONNX BlackmanWindow-17: 0.42 - 0.5 cos(2 pi i / n) + 0.08 cos(4 pi i / n) for i < size; n as
    in `hann_window`."""
    return _cosines(size, output_datatype, periodic, 0.42, 0.5, 0.08)


def _cosines(size: Array, output_datatype: int, periodic: int, *weights: float) -> Array:
    """The sum of the weights times cos(2 pi i k / n) for k = 0, 1..., with alternating signs."""
    count = int(size.item())
    angles = np.divide(2 * np.pi * np.arange(count), count if periodic else count - 1)
    window = sum(weight * (-1) ** k * np.cos(k * angles) for k, weight in enumerate(weights))
    return rounded(np.asarray(window), dtype_numbered(output_datatype))


# --- the mel scale ---


def mel_weight_matrix(
    num_mel_bins: Array,
    dft_length: Array,
    sample_rate: Array,
    lower_edge_hertz: Array,
    upper_edge_hertz: Array,
    /,
    *,
    output_datatype: int = 1,
) -> Array:
    """ONNX MelWeightMatrix-17: what turns a spectrum into one of ``num_mel_bins`` bands.

    mel(f) = 2595 log10(1 + f / 700). The bands are triangles of height 1 whose corners are equally
    spaced in mel, rounded down to frequencies of the spectrum. All inputs are scalars.

    Returns:
        (dft_length // 2 + 1, num_mel_bins), to multiply a spectrum with from the right.
    """
    bands, length = int(num_mel_bins.item()), int(dft_length.item())
    low, high = (
        2595 * np.log10(1 + edge.item() / 700) for edge in (lower_edge_hertz, upper_edge_hertz)
    )
    # ONNX's own cases, and its runtimes, divide by the number of corners, not of gaps between them.
    mels = low + np.arange(bands + 2) * (high - low) / (bands + 2)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    corners = (length + 1) * hertz // sample_rate.item()
    begin, peak, end = corners[:-2], corners[1:-1], corners[2:]
    frequency = np.arange(length // 2 + 1).reshape(-1, 1)
    rising = (frequency - begin) / np.maximum(peak - begin, 1)
    falling = (end - frequency) / np.maximum(end - peak, 1)
    triangles = np.maximum(np.minimum(rising, falling), 0)
    # A side may be of width 0, but never the peak of height 0.
    return rounded(np.where(frequency == peak, 1, triangles), dtype_numbered(output_datatype))


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("DFT", 17, dft_17),
    ("DFT", 20, dft_20),
    ("STFT", 17, stft),
    ("HannWindow", 17, hann_window),
    ("HammingWindow", 17, hamming_window),
    ("BlackmanWindow", 17, blackman_window),
    ("MelWeightMatrix", 17, mel_weight_matrix),
)
