"""Attention, and what surrounds it in a decoder: rotary position embedding, and the update of a
cache of keys and values.

In the shapes below: B samples, S queries, T keys, H heads and E elements a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fhe_core import OUTPUTS_WANTED
from fhe_ops_std._domains import Flag

from ._axes import counted
from ._interfaces import older
from ._precision import precise, rounded
from ._types import dtype_numbered

Array = NDArray[Any]

# --- Attention ---


def attention_25(
    q: Array,
    k: Array,
    v: Array,
    /,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    *,
    is_causal: Flag = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: Literal[0, 1, 2, 3] = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    wanted: tuple[bool, ...] = OUTPUTS_WANTED,
) -> tuple[Array, Array, Array, Array | None]:
    """softmax(scale·q·kᵀ)·v: Y, all keys and values with the past ones, and the scores.

    q: (B, H, S, E), k and v: (B, H', T, E), where each head of k and v serves H/H' heads of q; or
    (B, S, H·E) and (B, T, H'·E) with the numbers of heads as attributes. ``attn_mask`` broadcasts
    to (B, H, S, T): what may be seen, or what is added to the scores; where it has fewer than T
    keys, the others are not seen. ``nonpad_kv_seqlen``: (B,) keys that are no padding.

    Query i stands at i + the number of keys before the queries, sees ``left_window_size`` keys
    before and ``right_window_size`` after that place (-1: all), and none after it if ``is_causal``.
    A query that sees nothing gives 0. The scores are those before ``softcap``, after it, with the
    mask, or their softmax, by ``qk_matmul_output_mode`` from 0 to 3.
    """
    if qk_matmul_output_mode not in range(4):
        raise ValueError(f"qk_matmul_output_mode is 0, 1, 2 or 3, got {qk_matmul_output_mode}")
    dtype, packed = q.dtype, q.ndim == 3
    q, k, v = _by_heads(q, q_num_heads), _by_heads(k, kv_num_heads), _by_heads(v, kv_num_heads)
    if (past_key is None) != (past_value is None):
        raise ValueError("past_key and past_value are given together or not at all")
    if past_key is not None and past_value is not None:
        if nonpad_kv_seqlen is not None:
            raise ValueError("nonpad_kv_seqlen counts keys of a cache without past_key")
        k, v = np.concatenate([past_key, k], 2), np.concatenate([past_value, v], 2)
    (batch, heads, queries, width), keys = q.shape, k.shape[2]
    if k.shape[:2] != v.shape[:2] or heads % k.shape[1] or keys != v.shape[2]:
        raise ValueError(f"q: {q.shape}, k: {k.shape} and v: {v.shape} do not fit each other")
    factor = float(dtype.type(math.sqrt(1 / math.sqrt(width) if scale is None else scale)))

    def typed(x: Array) -> Array:
        # Every tensor in the op's definition has q's type, though sums are more precise.
        return precise(rounded(x, dtype))

    # The queries of all heads that share one of k and v are the rows of one matrix.
    grouped = (batch, k.shape[1], heads // k.shape[1] * queries)
    rows = typed(precise(q) * factor).reshape(*grouped, width)
    scores = typed(np.matmul(rows, typed(precise(k) * factor).swapaxes(2, 3)))
    scores = scores.reshape(batch, heads, queries, keys)
    shown = -1 if wanted and not any(wanted[3:]) else qk_matmul_output_mode
    stage = scores.copy() if shown == 0 else None
    if softcap:
        scores /= softcap
        np.tanh(scores, out=scores)
        scores *= softcap
        scores = typed(scores)
    stage = scores.copy() if shown == 1 else stage
    unseen = _outside(
        queries,
        keys,
        0 if past_key is None else past_key.shape[2],
        nonpad_kv_seqlen,
        before=left_window_size,
        after=0 if is_causal else right_window_size,
    )
    if attn_mask is not None:
        bias, masked = _bias(attn_mask, keys, scores.dtype)
        unseen = masked if unseen is None else unseen | masked
        if bias is not None:
            scores = typed(np.add(scores, bias, out=scores))
    if unseen is not None:
        np.copyto(scores, -np.inf, where=unseen)
    stage = scores.copy() if shown == 2 else stage
    weights = rounded(_softmax(scores, dtype, softmax_precision), dtype)
    stage = weights if shown == 3 else stage
    y = np.matmul(precise(weights).reshape(*grouped, keys), precise(v))
    y = rounded(y.reshape(batch, heads, queries, v.shape[3]), dtype)
    if packed:
        y = y.swapaxes(1, 2).reshape(batch, queries, heads * v.shape[3])
    return y, k, v, None if stage is None else rounded(stage, dtype)


def _softmax(scores: Array, dtype: np.dtype[Any], softmax_precision: int | None) -> Array:
    """exp(scores) / their sum over the last axis, in this type, 0 where all scores are -∞."""
    dtype = dtype if softmax_precision is None else dtype_numbered(softmax_precision)

    def typed(x: Array) -> Array:
        return precise(rounded(x, dtype))

    largest = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    weights = typed(scores - np.where(np.isneginf(largest), 0, largest))
    weights = typed(np.exp(weights, out=weights))
    total = typed(np.sum(weights, axis=-1, keepdims=True))
    weights /= np.where(total == 0, 1, total)
    return rounded(weights, dtype)


def _by_heads(x: Array, heads: int | None) -> Array:
    """(B, S, H·E) as (B, H, S, E)."""
    if x.ndim == 4 and heads in (None, x.shape[1]):
        return x
    if x.ndim != 3 or not heads or x.shape[2] % heads:
        raise ValueError(f"shape {x.shape} does not split into {heads} heads")
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).swapaxes(1, 2)


def _outside(
    queries: int, keys: int, past: int, valid: Array | None, *, before: int, after: int
) -> Array | None:
    """Which keys lie outside of each query's window, or are padding: (S, T) or (B, 1, S, T)."""
    if min(before, after) < -1:
        raise ValueError(f"the sizes of a window are -1 or more, got {before}, {after}")
    key = np.arange(keys)
    place = np.arange(queries)[:, None] + past
    if valid is not None:
        valid = valid.reshape(-1, 1, 1, 1)
        place = np.arange(queries)[:, None] + (valid - queries)
    unseen: list[Array] = [] if valid is None else [key >= valid]
    if after >= 0:
        unseen.append(key > place + after)
    if before >= 0:
        unseen.append(key < place - before)
    result = None
    for one in unseen:
        result = one if result is None else result | one
    return result


def _bias(mask: Array, keys: int, dtype: np.dtype[Any]) -> tuple[Array | None, Array]:
    """What the mask adds to the scores, if it is no Boolean one, and which keys it hides."""
    masked = ~mask if mask.dtype == np.bool_ else np.isneginf(precise(mask))
    bias = None if mask.dtype == np.bool_ else mask.astype(dtype, copy=False)
    missing = [(0, 0)] * (mask.ndim - 1) + [(0, keys - mask.shape[-1])]
    if mask.shape[-1] not in (1, keys):
        masked = np.pad(masked, missing, constant_values=True)
        bias = None if bias is None else np.pad(bias, missing)
    return bias, masked


# --- RotaryEmbedding ---


def rotary_embedding(
    x: Array,
    cos_cache: Array,
    sin_cache: Array,
    /,
    position_ids: Array | None = None,
    *,
    interleaved: Flag = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Array:
    """The first ``rotary_embedding_dim`` elements (0: all) of each head turned in pairs.

    x: (B, H, S, E), or (B, S, H·E) with ``num_heads``. A pair is one element of the first and one
    of the second half, or two neighbours if ``interleaved``; its angle's cosine and sine are the
    caches' rows (positions, pairs) at ``position_ids``: (B, S), or the caches (B, S, pairs).
    """
    heads = _by_heads(x, num_heads if x.ndim == 3 else None)
    turned = rotary_embedding_dim or heads.shape[-1]
    if position_ids is not None:
        cos_cache, sin_cache = cos_cache[position_ids], sin_cache[position_ids]
    cos, sin = precise(cos_cache)[:, None], precise(sin_cache)[:, None]
    if turned % 2 or cos.shape[-1] != turned // 2 or sin.shape != cos.shape:
        raise ValueError(f"caches of {turned / 2:g} angles expected, got {cos.shape[-1]}")
    if interleaved:
        first, second = slice(0, turned, 2), slice(1, turned, 2)
    else:
        first, second = slice(0, turned // 2), slice(turned // 2, turned)
    a, b = precise(heads[..., first]), precise(heads[..., second])
    y = np.empty_like(x)
    view = _by_heads(y, num_heads if x.ndim == 3 else None)  # writes through to y
    view[..., first] = a * cos - b * sin
    view[..., second] = a * sin + b * cos
    view[..., turned:] = heads[..., turned:]
    return y


# --- TensorScatter ---


def tensor_scatter(
    past_cache: Array,
    update: Array,
    /,
    write_indices: Array | None = None,
    *,
    axis: int = -2,
    mode: Literal["linear", "circular"] = "linear",
) -> Array:
    """past_cache with each sample's update written along ``axis`` from write_indices[sample] (0)
    on; from the end back to the beginning if ``mode`` is "circular"."""
    axis = counted(axis, past_cache.ndim)
    batch, size, count = past_cache.shape[0], past_cache.shape[axis], update.shape[axis]
    begin = np.zeros(batch, np.int64) if write_indices is None else write_indices
    places = begin[:, None] + np.arange(count)
    if mode == "circular":
        places %= size
    elif mode != "linear":
        raise ValueError(f"mode is linear or circular, got {mode!r}")
    if axis == 0 or count > size or np.any((places < 0) | (places >= size)):
        raise ValueError(f"{count} elements from {begin} on do not fit into {size} on axis {axis}")
    present = past_cache.copy()
    np.moveaxis(present, axis, 1)[np.arange(batch)[:, None], places] = np.moveaxis(update, axis, 1)
    return present


_WINDOWS = ("left_window_size", "right_window_size")

IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("Attention", 23, older(attention_25, "nonpad_kv_seqlen", *_WINDOWS)),
    ("Attention", 24, older(attention_25, *_WINDOWS)),
    ("Attention", 25, attention_25),
    ("RotaryEmbedding", 23, rotary_embedding),
    ("TensorScatter", 24, tensor_scatter),
)
