"""Recurrent layers: RNN, GRU and LSTM; and ReverseSequence.

Opset 14 added ``layout``, and opset 7 took away ``output_sequence``, which asked for the first
output: it is there anyway. In the shapes below, T times, B samples, I inputs, H hidden units and
D directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Direction, Flag

from ._interfaces import older
from ._precision import precise
from ._recurrence import Activation, State, Step, activations_of, check_shapes, run

Array = NDArray[Any]

# --- RNN ---


def rnn_14(
    x: Array,
    w: Array,
    r: Array,
    /,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: Direction = "forward",
    hidden_size: int | None = None,
    layout: Flag = 0,
) -> tuple[Array, ...]:
    """h' = f(x·Wᵀ + h·Rᵀ + b): all hidden states (T, D, B, H), and the last (D, B, H).

    x: (T, B, I), w: (D, H, I), r: (D, H, H), b: (D, 2·H); with ``layout`` 1 the batch comes first.
    """
    check_shapes(x, w, r, gates=1, direction=direction, hidden_size=hidden_size)
    functions = activations_of(
        activations, ("Tanh",), activation_alpha, activation_beta, clip, direction
    )
    steps = [_rnn_step(weights.T, own) for weights, own in zip(precise(r), functions, strict=True)]
    return run(
        x,
        w,
        _added(b),
        sequence_lens,
        (initial_h,),
        steps,
        hidden=r.shape[-1],
        direction=direction,
        layout=layout,
    )


def _rnn_step(weights: Array, functions: tuple[Activation, ...]) -> Step:
    (f,) = functions

    def step(inputs: Array, state: State) -> State:
        (h,) = state
        return (f(inputs + np.matmul(h, weights)),)

    return step


# --- GRU ---


def gru_14(
    x: Array,
    w: Array,
    r: Array,
    /,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: Direction = "forward",
    hidden_size: int | None = None,
    layout: Flag = 0,
    linear_before_reset: Flag = 0,
) -> tuple[Array, ...]:
    """h' = (1 - z)·n + z·h: all hidden states (T, D, B, H), and the last (D, B, H).

    The gates z (update) and r (reset) are f(x·Wᵀ + h·Rᵀ + b); the candidate n is
    g(x·Wᵀ + (r·h)·Rᵀ + b), or g(x·Wᵀ + wb + r·(h·Rᵀ + rb)) if ``linear_before_reset``.
    x: (T, B, I), w: (D, 3·H, I) for z, r and n, r: (D, 3·H, H), b: (D, 6·H); with ``layout`` 1 the
    batch comes first.
    """
    check_shapes(x, w, r, gates=3, direction=direction, hidden_size=hidden_size)
    functions = activations_of(
        activations, ("Sigmoid", "Tanh"), activation_alpha, activation_beta, clip, direction
    )
    hidden = r.shape[-1]
    bias, within = _added(b), np.zeros((len(r), 1), precise(x).dtype)
    if b is not None and bias is not None and linear_before_reset:
        within = precise(b[:, 5 * hidden :])  # the reset gate scales this part of the candidate's
        bias[:, 2 * hidden :] = b[:, 2 * hidden : 3 * hidden]
    steps = [
        _gru_step(weights.T, own, inner, linear_before_reset=bool(linear_before_reset))
        for weights, own, inner in zip(precise(r), functions, within, strict=True)
    ]
    return run(
        x,
        w,
        bias,
        sequence_lens,
        (initial_h,),
        steps,
        hidden=hidden,
        direction=direction,
        layout=layout,
    )


def _gru_step(
    weights: Array, functions: tuple[Activation, ...], within: Array, *, linear_before_reset: bool
) -> Step:
    (f, g), hidden = functions, len(weights)
    gates, candidate = weights[:, : 2 * hidden], weights[:, 2 * hidden :]

    def step(inputs: Array, state: State) -> State:
        (h,) = state
        if linear_before_reset:
            recurrent = np.matmul(h, weights)
            both = f(inputs[:, : 2 * hidden] + recurrent[:, : 2 * hidden])
            z, r = both[:, :hidden], both[:, hidden:]
            inner = r * (recurrent[:, 2 * hidden :] + within)
        else:
            both = f(inputs[:, : 2 * hidden] + np.matmul(h, gates))
            z, r = both[:, :hidden], both[:, hidden:]
            inner = np.matmul(r * h, candidate)
        n = g(inputs[:, 2 * hidden :] + inner)
        return (n + z * (h - n),)

    return step


# --- LSTM ---


def lstm_14(
    x: Array,
    w: Array,
    r: Array,
    /,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    p: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: Direction = "forward",
    hidden_size: int | None = None,
    input_forget: Flag = 0,
    layout: Flag = 0,
) -> tuple[Array, ...]:
    """c' = forget·c + input·g(...), h' = output·h(c'): all hidden states (T, D, B, H), the last
    (D, B, H), and the last cells (D, B, H).

    The gates are f(x·Wᵀ + h·Rᵀ + b + p·c), where the output gate's peephole looks at c'; if
    ``input_forget``, the forget gate is 1 - the input gate.
    x: (T, B, I), w: (D, 4·H, I) for input, output, forget and cell, r: (D, 4·H, H), b: (D, 8·H),
    p: (D, 3·H) for input, output and forget; with ``layout`` 1 the batch comes first.
    """
    check_shapes(x, w, r, gates=4, direction=direction, hidden_size=hidden_size)
    functions = activations_of(
        activations,
        ("Sigmoid", "Tanh", "Tanh"),
        activation_alpha,
        activation_beta,
        clip,
        direction,
    )
    steps = [
        _lstm_step(
            weights.T, own, None if p is None else precise(p[d]), input_forget=bool(input_forget)
        )
        for d, (weights, own) in enumerate(zip(precise(r), functions, strict=True))
    ]
    return run(
        x,
        w,
        _added(b),
        sequence_lens,
        (initial_h, initial_c),
        steps,
        hidden=r.shape[-1],
        direction=direction,
        layout=layout,
    )


def _lstm_step(
    weights: Array,
    functions: tuple[Activation, ...],
    peepholes: Array | None,
    *,
    input_forget: bool,
) -> Step:
    (f, g, h), hidden = functions, len(weights)
    i, o, k = (slice(start * hidden, (start + 1) * hidden) for start in range(3))

    def step(inputs: Array, state: State) -> State:
        before, c = state
        sums = np.matmul(before, weights)
        sums += inputs
        if peepholes is None:
            gates = f(sums[:, : 3 * hidden])
            entering, leaving, kept = gates[:, i], gates[:, o], gates[:, k]
        else:
            entering = f(sums[:, i] + peepholes[i] * c)
            kept = f(sums[:, k] + peepholes[k] * c)
        if input_forget:
            kept = 1 - entering
        c = kept * c + entering * g(sums[:, 3 * hidden :])
        if peepholes is not None:
            leaving = f(sums[:, o] + peepholes[o] * c)
        return leaving * h(c), c

    return step


def _added(b: Array | None) -> Array | None:
    """The biases of the input's and of the state's share of the gates in one: (D, gates·H)."""
    if b is None:
        return None
    half = b.shape[1] // 2
    return precise(b[:, :half]) + precise(b[:, half:])


# --- ReverseSequence ---


def reverse_sequence(
    input: Array, sequence_lens: Array, /, *, batch_axis: Flag = 1, time_axis: Flag = 0
) -> Array:
    """The first sequence_lens[i] elements of sample i along ``time_axis`` in reverse, the others
    in place; the two axes are 0 and 1."""
    if sorted((batch_axis, time_axis)) != [0, 1]:
        raise ValueError(f"batch_axis and time_axis are 0 and 1, got {batch_axis}, {time_axis}")
    lengths = sequence_lens.reshape(-1, 1)
    times, samples = np.arange(input.shape[time_axis]), np.arange(input.shape[batch_axis])
    if len(lengths) != len(samples) or np.any((lengths < 0) | (lengths > len(times))):
        raise ValueError(f"{len(samples)} lengths from 0 to {len(times)} expected")
    source = np.where(times < lengths, lengths - 1 - times, times)
    if time_axis == 0:
        return input[source.T, samples]
    return input[samples[:, None], source]


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("RNN", 1, older(rnn_14, "layout", output_sequence=0)),
    ("RNN", 7, older(rnn_14, "layout")),
    ("RNN", 14, rnn_14),
    ("GRU", 3, older(gru_14, "layout", output_sequence=0)),
    ("GRU", 7, older(gru_14, "layout")),
    ("GRU", 14, gru_14),
    ("LSTM", 1, older(lstm_14, "layout", output_sequence=0)),
    ("LSTM", 7, older(lstm_14, "layout")),
    ("LSTM", 14, lstm_14),
    ("ReverseSequence", 10, reverse_sequence),
)
