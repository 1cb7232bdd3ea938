"""What the recurrent layers share: activations by name, directions, and the loop over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import activations
from ._precision import precise, rounded

Array = NDArray[Any]
Activation = Callable[[Array], Array]
State = tuple[Array, ...]  # one for RNN and GRU (hidden), two for LSTM (hidden, cell): (B, H) each
Step = Callable[[Array, State], State]  # the input's share of all gates, the state before -> after

# For each direction, whether it runs from the end of the sequence to its beginning.
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}

# name: (function of x, alpha and beta; default of alpha; default of beta), None: takes none.
_ACTIVATIONS: dict[str, tuple[Callable[[Array, Any, Any], Array], float | None, float | None]] = {
    "affine": (lambda x, alpha, beta: alpha * x + beta, 1.0, 0.0),
    "elu": (lambda x, alpha, _: activations.elu(x, alpha=alpha), 1.0, None),
    "hardsigmoid": (
        lambda x, alpha, beta: activations.hard_sigmoid(x, alpha=alpha, beta=beta),
        0.2,
        0.5,
    ),
    "leakyrelu": (lambda x, alpha, _: activations.leaky_relu(x, alpha=alpha), 0.01, None),
    "relu": (lambda x, _, __: activations.relu(x), None, None),
    "scaledtanh": (lambda x, alpha, beta: alpha * np.tanh(beta * x), 1.0, 1.0),
    "sigmoid": (lambda x, _, __: activations.sigmoid(x), None, None),
    "softplus": (lambda x, _, __: activations.softplus(x), None, None),
    "softsign": (lambda x, _, __: activations.softsign(x), None, None),
    "tanh": (lambda x, _, __: np.tanh(x), None, None),
    "thresholdedrelu": (lambda x, alpha, _: x * (x >= alpha), 1.0, None),
}


def activations_of(
    names: Sequence[str] | None,
    defaults: Sequence[str],
    alphas: Sequence[float] | None,
    betas: Sequence[float] | None,
    clip: float | None,
    direction: str,
) -> list[tuple[Activation, ...]]:
    """For each direction its activations, of which the gates' clip their inputs to [-clip, clip].

    ``alphas`` and ``betas`` are used up by the activations that take one, in order.
    """
    each = len(defaults)
    count = each * len(backwards(direction))
    names = tuple(names or ())
    if len(names) != count:
        # RNN's default names two activations, whatever the direction.
        if names and set(names) != set(defaults):
            raise ValueError(f"{count} activations expected, got {names}")
        names = tuple(defaults) * (count // each)
    if clip is not None and clip <= 0:
        raise ValueError(f"clip has to be positive, got {clip}")
    given = iter(alphas or ()), iter(betas or ())
    # LSTM's third activation is not clipped: ONNX's text can be read either way, and ONNX Runtime
    # clips what enters the gates, but not the cell.
    found = [
        _activation(name, *given, clip if i % each < 2 else None) for i, name in enumerate(names)
    ]
    return [tuple(found[i : i + each]) for i in range(0, count, each)]


def _activation(
    name: str, alphas: Iterator[float], betas: Iterator[float], clip: float | None
) -> Activation:
    try:
        function, alpha, beta = _ACTIVATIONS[name.lower()]
    except KeyError:
        raise NotImplementedError(f"no activation is called {name!r}") from None
    alpha = alpha if alpha is None else next(alphas, alpha)
    beta = beta if beta is None else next(betas, beta)
    if clip is None:
        return lambda x: function(x, alpha, beta)
    return lambda x: function(np.clip(x, -clip, clip), alpha, beta)


def backwards(direction: str) -> tuple[bool, ...]:
    """For each direction of the layer whether it runs backwards in time."""
    try:
        return _DIRECTIONS[direction.lower()]
    except KeyError:
        raise ValueError(f"direction is one of {sorted(_DIRECTIONS)}, got {direction!r}") from None


def check_shapes(
    x: Array, w: Array, r: Array, *, gates: int, direction: str, hidden_size: int | None
) -> None:
    """ValueError unless w: (D, gates·H, I) and r: (D, gates·H, H) fit each other and x's I."""
    hidden = r.shape[-1]
    directions = len(backwards(direction))
    if (
        x.ndim != 3
        or w.shape != (directions, gates * hidden, x.shape[-1])
        or r.shape != (directions, gates * hidden, hidden)
        or hidden_size not in (None, hidden)
    ):
        raise ValueError(
            f"x: {x.shape}, w: {w.shape} and r: {r.shape} are not those of a layer with "
            f"{directions} directions, {gates} gates and hidden_size {hidden_size or hidden}"
        )


def run(
    x: Array,
    w: Array,
    bias: Array | None,
    sequence_lens: Array | None,
    initial: tuple[Array | None, ...],
    steps: Sequence[Step],
    *,
    hidden: int,
    direction: str,
    layout: int,
) -> tuple[Array, ...]:
    """The hidden states at all times, and the last of every state.

    The input's share of the gates is one matrix product for all times. A sample whose sequence is
    over keeps its state, and its hidden states from there on are 0.

    Args:
        x: (T, B, I), or (B, T, I) if ``layout`` is 1; its dtype is that of the results.
        w: (D, gates·H, I).
        bias: (D, gates·H).
        sequence_lens: (B,).
        initial: the states before the first time, (D, B, H), or (B, D, H) if ``layout`` is 1.
        steps: one for each direction.
    """
    dtype = x.dtype
    x, w = precise(x), precise(w)
    if layout:
        x = x.swapaxes(0, 1)
        initial = tuple(None if state is None else state.swapaxes(0, 1) for state in initial)
    times, batch, width = x.shape
    directions = w.shape[0]
    zeros = np.zeros((directions, batch, hidden), x.dtype)
    begin = [zeros if state is None else precise(state) for state in initial]
    if any(state.shape != zeros.shape for state in begin):
        raise ValueError(f"initial states of shape {zeros.shape} expected")
    over = None
    if sequence_lens is not None:
        over = np.arange(times)[:, None, None] >= sequence_lens[:, None]
        over = over if over.any() else None
    y = np.empty((times, directions, batch, hidden), x.dtype)
    last = [np.empty_like(zeros) for _ in begin]
    rows = x.reshape(times * batch, width)
    for d, backward in enumerate(backwards(direction)):
        inputs = np.matmul(rows, w[d].T)
        if bias is not None:
            inputs += bias[d]
        inputs = inputs.reshape(times, batch, w.shape[1])
        state: State = tuple(one[d] for one in begin)
        for t in range(times - 1, -1, -1) if backward else range(times):
            after = steps[d](inputs[t], state)
            if over is not None:
                after = tuple(
                    np.where(over[t], old, new) for old, new in zip(state, after, strict=True)
                )
            state = after
            y[t, d] = state[0]
        for end, one in zip(last, state, strict=True):
            end[d] = one
    if over is not None:
        np.copyto(y, 0, where=over[:, None])
    if layout:
        y = y.transpose(2, 0, 1, 3)
        last = [end.swapaxes(0, 1) for end in last]
    return tuple(rounded(value, dtype) for value in (y, *last))
