"""Attention whose memory is one matrix a head, and the short convolution that comes before it.

Linear attention keeps no keys and values, but a state S: (E, F) that every token changes: decayed,
corrected and added to. Both ops take the state of the tokens before, and return the new one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._precision import precise, rounded
from .activations import sigmoid

Array = NDArray[Any]

# For each rule whether the state decays, and whether what it already says is taken from the value.
_RULES = {
    "linear": (False, False),
    "gated": (True, False),
    "delta": (False, True),
    "gated_delta": (True, True),
}


def linear_attention(
    query: Array,
    key: Array,
    value: Array,
    /,
    past_state: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> tuple[Array, Array]:
    """scale·Sᵀ·q for each token, with S' = exp(decay)·S + k·dᵀ, and the last S: (B, H', E, F).

    What is added is d = v, or beta·(v - exp(decay)·Sᵀ·k) by a delta rule. The scale is 1/√E unless
    given. query: (B, T, H·E), key: (B, T, H'·E), value: (B, T, H'·F), where each head of key and
    value serves H/H' of query; decay: (B, T, H'·E) or (B, T, H'), beta: (B, T, H') or (B, T, 1).
    """
    if update_rule not in _RULES:
        raise ValueError(f"update_rule is one of {', '.join(_RULES)}, got {update_rule!r}")
    decays, corrects = _RULES[update_rule]
    if (decay is not None) != decays or (beta is not None) != corrects:
        raise ValueError(
            f"rule {update_rule!r} takes {'a' if decays else 'no'} decay "
            f"and {'a' if corrects else 'no'} beta"
        )
    if kv_num_heads <= 0 or q_num_heads % kv_num_heads:
        raise ValueError(f"{q_num_heads} heads of query on {kv_num_heads} of key and value")
    batch, times = query.shape[:2]
    q = _heads(query, q_num_heads).reshape(
        times, batch, kv_num_heads, q_num_heads // kv_num_heads, query.shape[2] // q_num_heads
    )
    k, v = _heads(key, kv_num_heads), _heads(value, kv_num_heads)
    shape = (batch, kv_num_heads, k.shape[-1], v.shape[-1])
    if past_state is not None and past_state.shape != shape:
        raise ValueError(f"past_state of shape {shape} expected, got {past_state.shape}")
    state = np.zeros(shape, v.dtype) if past_state is None else precise(past_state)
    kept = None if decay is None else np.exp(_heads(decay, kv_num_heads))[..., None]
    rate = None if beta is None else _heads(beta, beta.shape[2])
    y = np.empty((times, *q.shape[1:4], v.shape[-1]), v.dtype)
    for t in range(times):
        if kept is not None:
            state = kept[t] * state
        added = v[t]
        if rate is not None:
            added = rate[t] * (added - np.matmul(k[t][:, :, None], state)[:, :, 0])
        state = state + k[t][..., None] * added[:, :, None]
        np.matmul(q[t], state, out=y[t])
    y *= scale or 1 / math.sqrt(q.shape[-1])
    output = y.reshape(times, batch, q_num_heads * v.shape[-1]).swapaxes(0, 1)
    state_dtype = query.dtype if past_state is None else past_state.dtype
    return rounded(output, query.dtype), rounded(state, state_dtype)


def _heads(x: Array, heads: int) -> Array:
    """(B, T, H·E) as (T, B, H, E)."""
    if x.ndim != 3 or x.shape[2] % heads:
        raise ValueError(f"shape {x.shape} does not split into {heads} heads")
    return precise(x).swapaxes(0, 1).reshape(x.shape[1], x.shape[0], heads, x.shape[2] // heads)


def causal_conv_with_state(
    input: Array,
    weight: Array,
    /,
    bias: Array | None = None,
    past_state: Array | None = None,
    *,
    activation: str = "none",
) -> tuple[Array, Array]:
    """Each channel's convolution with the K-1 elements before, and the last K-1 of all.

    input: (B, C, L), weight: (C, 1, K), bias: (C,), past_state: (B, C, K-1), zeros if missing.
    The activation "silu", or "swish", is y·sigmoid(y).
    """
    if activation not in ("none", "silu", "swish"):
        raise ValueError(f"activation is none, silu or swish, got {activation!r}")
    batch, channels, length = input.shape
    taps = weight.shape[2]
    state_shape = (batch, channels, taps - 1)
    past = np.zeros(state_shape, input.dtype) if past_state is None else past_state
    if past.shape != state_shape or weight.shape != (channels, 1, taps):
        raise ValueError(
            f"input {input.shape}, weight {weight.shape} and state {past.shape} do not fit"
        )
    x = np.concatenate([past, input], axis=2)
    wide, weights = precise(x), precise(weight)
    y = np.zeros((batch, channels, length), wide.dtype)
    for i in range(taps):
        y += wide[:, :, i : i + length] * weights[:, :, i]
    if bias is not None:
        y += bias[:, None]
    if activation != "none":
        y *= sigmoid(y)
    return rounded(y, input.dtype), x[:, :, length:]


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("LinearAttention", 27, linear_attention),
    ("CausalConvWithState", 27, causal_conv_with_state),
)
