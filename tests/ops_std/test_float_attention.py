"""Attention, linear attention and what belongs to them are ONNX's, PyTorch's and their own laws."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from fhe_core.errors import FheError
from torch.nn.functional import scaled_dot_product_attention

from fhe_ops_std import activations, attention, linear_attention

from . import onnx_cases
from .oracles import assert_all_same, by_module, by_runtime

MODULES = (attention, linear_attention, activations)
IMPLEMENTATIONS = tuple(row for module in MODULES for row in module.IMPLEMENTATIONS)
OPS = (
    "Attention",
    "RotaryEmbedding",
    "TensorScatter",
    "LinearAttention",
    "CausalConvWithState",
    "SwiGLU",
)


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(IMPLEMENTATIONS)


def compute(op: str, *inputs: Any, opset: int = 28, **attributes: Any) -> tuple[Any, ...]:
    function = onnx_cases.implementation_for(IMPLEMENTATIONS, op, opset)
    return onnx_cases.run(function, inputs, attributes)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Attention

Q, K, V = normal(2, 6, 5, 8), normal(2, 3, 7, 8, seed=1), normal(2, 3, 7, 4, seed=2)


@pytest.mark.parametrize("opset", [23, 24, 25])
@pytest.mark.parametrize("mask", ["none", "bool", "float", "causal"])
def test_attention_is_torch_s(opset: int, mask: str) -> None:
    """With two heads of q on each of k and v, in both layouts."""
    rng = np.random.default_rng(3)
    given = {
        "none": None,
        "causal": None,
        "bool": rng.random((2, 1, 5, 7)) < 0.7,
        "float": rng.normal(size=(6, 5, 7)).astype(np.float32),
    }[mask]
    # PyTorch's causal mask is this one too where there is no past.
    with torch.no_grad():
        expected = scaled_dot_product_attention(
            *map(torch.from_numpy, (Q, K, V)),
            attn_mask=None if given is None else torch.from_numpy(given),
            is_causal=mask == "causal",
            enable_gqa=True,
        ).numpy()
    causal = {"is_causal": 1} if mask == "causal" else {}
    y, keys, values, _ = compute("Attention", Q, K, V, given, opset=opset, **causal)
    onnx_cases.assert_same(y, expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(keys, K)
    assert np.array_equal(values, V)
    packed = [x.transpose(0, 2, 1, 3).reshape(2, x.shape[2], -1) for x in (Q, K, V, expected)]
    y, *_ = compute(
        "Attention", *packed[:3], given, opset=opset, q_num_heads=6, kv_num_heads=3, **causal
    )
    onnx_cases.assert_same(y, packed[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_the_scores_are_those_before_and_after_the_cap_and_with_the_mask(mode: int) -> None:
    mask = normal(5, 7, seed=4)
    scores = np.matmul(Q, np.repeat(K, 2, axis=1).swapaxes(2, 3)) * np.float32(0.5)
    capped = 2 * np.tanh(scores / 2)
    expected = (scores, capped, capped + mask)[mode]
    *_, got = compute(
        "Attention", Q, K, V, mask, scale=0.5, softcap=2.0, qk_matmul_output_mode=mode
    )
    onnx_cases.assert_same(got, expected, rtol=1e-5, atol=1e-5)


def test_decoding_with_a_cache_is_attention_to_all_at_once() -> None:
    """Token by token, with the cache in the op, or outside of it and padded."""
    q, k, v = Q[:, :3], K[:, :, :5], V[:, :, :5]
    whole, *_ = compute("Attention", q, k, v, is_causal=1)
    past_key, past_value = k[:, :, :0], v[:, :, :0]
    cache_k, cache_v = np.full((2, 3, 9, 8), 7, np.float32), np.full((2, 3, 9, 4), 7, np.float32)
    for t in range(5):
        now = slice(t, t + 1)
        y, past_key, past_value, _ = compute(
            "Attention", q[:, :, now], k[:, :, now], v[:, :, now], None, past_key, past_value,
            is_causal=1,
        )  # fmt: skip
        onnx_cases.assert_same(y, whole[:, :, now], rtol=1e-5, atol=1e-5)
        places = np.array([t, t])
        (cache_k,) = compute("TensorScatter", cache_k, k[:, :, now], places)
        (cache_v,) = compute("TensorScatter", cache_v, v[:, :, now], places)
        y, *_ = compute(
            "Attention", q[:, :, now], cache_k, cache_v, None, None, None, places + 1, is_causal=1
        )
        onnx_cases.assert_same(y, whole[:, :, now], rtol=1e-5, atol=1e-5)
    assert np.array_equal(past_key, k)
    assert np.array_equal(past_value, v)


@pytest.mark.parametrize(
    ("left", "right", "causal"), [(1, 0, 0), (2, -1, 1), (-1, 1, 0), (0, 2, 1)]
)
def test_a_window_is_a_mask(left: int, right: int, causal: int) -> None:
    i, j = np.arange(5)[:, None], np.arange(7)
    mask = (left < 0) | (j >= i - left)
    mask &= (j <= i) if causal else (right < 0) | (j <= i + right)
    expected, *_ = compute("Attention", Q, K, V, mask)
    y, *_ = compute(
        "Attention", Q, K, V, left_window_size=left, right_window_size=right, is_causal=causal
    )
    onnx_cases.assert_same(y, expected, rtol=1e-6, atol=1e-6)


def test_a_mask_of_fewer_keys_hides_the_others() -> None:
    expected, *_ = compute("Attention", Q, K[:, :, :4], V[:, :, :4])
    for mask in (np.ones((5, 4), bool), np.zeros((5, 4), np.float32)):
        y, *_ = compute("Attention", Q, K, V, mask)
        onnx_cases.assert_same(y, expected, rtol=1e-6, atol=1e-6)


def test_what_sees_nothing_is_0_whatever_the_scores() -> None:
    """Also where a score is infinite, and where there are no keys at all."""
    q = Q.copy()
    q[0, 0, 0, 0] = np.inf
    mask = np.zeros((5, 7), np.float32)
    mask[0] = -np.inf
    y, *_ = compute("Attention", q, np.abs(K), V, mask)
    assert np.array_equal(y[:, :, 0], np.zeros((2, 6, 4)))
    y, *_ = compute("Attention", Q, K[:, :, :0], V[:, :, :0])
    assert np.array_equal(y, np.zeros((2, 6, 5, 4)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_stay_within_their_own_precision(dtype: Any) -> None:
    halves = [x.astype(dtype) for x in (Q, K, V)]
    expected, *_ = compute("Attention", *(x.astype(np.float32) for x in halves))
    for precision in ({}, {"softmax_precision": 1}, {"softmax_precision": 11}):
        y, *_ = compute("Attention", *halves, **precision)
        assert y.dtype == dtype
        error = np.abs(y.astype(np.float32) - expected).max()
        assert error < 8 * float(ml_dtypes.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("inputs", "attributes", "message"),
    [
        ((Q, K, V[:, :2]), {}, "do not fit each other"),
        ((Q[:, :5], K, V), {}, "do not fit each other"),
        ((Q[0], K[0], V[0]), {}, "does not split into None heads"),
        ((Q[0], K[0], V[0]), {"q_num_heads": 3, "kv_num_heads": 3}, "does not split into 3 heads"),
        ((Q, K, V, None, K), {}, "together or not at all"),
        ((Q, K, V, None, K, V, np.array([1, 1])), {}, "without past_key"),
        ((Q, K, V), {"left_window_size": -2}, "-1 or more"),
        ((Q, K, V), {"qk_matmul_output_mode": 4}, "0 or 1 or 2 or 3"),
    ],
)
def test_inputs_that_do_not_fit_are_errors_that_name_the_node(
    inputs: tuple[Any, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FheError, match=f"(?s)Attention.*{message}|{message}.*Attention"):
        by_module("Attention", *inputs, opset=25, **attributes)


# Rotary embedding


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 4])
def test_rotary_embedding_turns_pairs_by_the_angle_of_their_position(
    interleaved: int, turned: int
) -> None:
    """As complex numbers: pair j of token i is multiplied by exp(angle·√-1)."""
    x = normal(2, 3, 5, 8)
    pairs = (turned or 8) // 2
    angles = np.random.default_rng(5).uniform(-3, 3, size=(20, pairs))
    positions = np.random.default_rng(6).integers(0, 20, (2, 5))
    part = x[..., : 2 * pairs].astype(np.float64)
    real, imag = (part[..., ::2], part[..., 1::2]) if interleaved else np.split(part, 2, axis=-1)
    turned_pairs = (real + 1j * imag) * np.exp(1j * angles[positions])[:, None]
    parts = (turned_pairs.real, turned_pairs.imag)
    first = np.stack(parts, -1).reshape(part.shape) if interleaved else np.concatenate(parts, -1)
    expected = np.concatenate([first, x[..., 2 * pairs :]], -1).astype(np.float32)
    caches = [f(angles).astype(np.float32) for f in (np.cos, np.sin)]
    attributes = {"interleaved": interleaved, "rotary_embedding_dim": turned}
    (y,) = compute("RotaryEmbedding", x, *caches, positions, **attributes)
    onnx_cases.assert_same(y, expected, rtol=1e-5, atol=1e-5)
    packed = x.transpose(0, 2, 1, 3).reshape(2, 5, 24)
    placed = [cache[positions] for cache in caches]
    (y,) = compute("RotaryEmbedding", packed, *placed, num_heads=3, **attributes)
    expected = expected.transpose(0, 2, 1, 3).reshape(2, 5, 24)
    onnx_cases.assert_same(y, expected, rtol=1e-5, atol=1e-5)


def test_caches_of_another_width_are_refused() -> None:
    cache = normal(9, 3)
    with pytest.raises(FheError, match="caches of 4 angles expected, got 3"):
        by_module(
            "RotaryEmbedding", normal(1, 2, 3, 8), cache, cache, np.zeros((1, 3), int), opset=23
        )


# TensorScatter


def test_tensor_scatter_writes_each_sample_at_its_place() -> None:
    past, update = np.zeros((2, 3, 5)), np.arange(1.0, 13).reshape(2, 3, 2)
    (y,) = compute("TensorScatter", past, update, np.array([0, 3]), axis=2)
    assert np.array_equal(y[0], np.pad(update[0], ((0, 0), (0, 3))))
    assert np.array_equal(y[1], np.pad(update[1], ((0, 0), (3, 0))))
    (y,) = compute("TensorScatter", past, update, np.array([4, 9]), axis=-1, mode="circular")
    assert np.array_equal(y[:, :, [4, 0]], update)
    with pytest.raises(FheError, match="do not fit into 5"):
        by_module("TensorScatter", past, update, np.array([0, 4]), axis=2, opset=24)


# Linear attention

RULES = ("linear", "gated", "delta", "gated_delta")


def tokens(rule: str, times: int) -> list[Any]:
    """query, key, value, past state, decay and beta: two heads of query on each of two."""
    rng = np.random.default_rng(7)
    sizes = {"q": 12, "k": 6, "v": 8}
    q, k, v = (rng.normal(size=(2, times, n)).astype(np.float32) for n in sizes.values())
    decay = -rng.uniform(0, 1, (2, times, 6)).astype(np.float32) if "gated" in rule else None
    beta = rng.uniform(0, 1, (2, times, 2)).astype(np.float32) if "delta" in rule else None
    return [q, k, v, normal(2, 2, 3, 4, seed=8), decay, beta]


HEADS = {"q_num_heads": 4, "kv_num_heads": 2}


@pytest.mark.parametrize("rule", RULES)
def test_token_by_token_is_all_tokens_at_once(rule: str) -> None:
    inputs = tokens(rule, 6)
    whole, last = compute("LinearAttention", *inputs, update_rule=rule, **HEADS)
    state = inputs[3]
    for t in range(6):
        now = [
            None if x is None else state if i == 3 else x[:, t : t + 1]
            for i, x in enumerate(inputs)
        ]
        y, state = compute("LinearAttention", *now, update_rule=rule, **HEADS)
        onnx_cases.assert_same(y, whole[:, t : t + 1], rtol=1e-5, atol=1e-5)
    onnx_cases.assert_same(state, last, rtol=1e-5, atol=1e-5)


def test_the_linear_rule_is_attention_without_softmax() -> None:
    q, k, v, *_ = tokens("linear", 6)
    split = [x.reshape(2, 6, h, -1).swapaxes(1, 2) for x, h in ((q, 4), (k, 2), (v, 2))]
    wide = [split[0], *(np.repeat(x, 2, axis=1) for x in split[1:])]
    scores = np.tril(np.matmul(wide[0], wide[1].swapaxes(2, 3)) / np.float32(math.sqrt(3)))
    expected = np.matmul(scores, wide[2]).swapaxes(1, 2).reshape(2, 6, -1)
    y, _ = compute("LinearAttention", q, k, v, update_rule="linear", **HEADS)
    onnx_cases.assert_same(y, expected, rtol=1e-5, atol=1e-5)


def test_a_delta_rule_of_rate_1_answers_with_the_last_value_of_a_key() -> None:
    """A state that was told a value for a key of length 1 gives it back, and no older one."""
    key = np.tile(np.array([0.6, 0.8], np.float32), (1, 3, 1))
    value = normal(1, 3, 4)
    y, _ = compute(
        "LinearAttention", key, key, value, None, None, np.ones((1, 3, 1), np.float32),
        update_rule="delta", q_num_heads=1, kv_num_heads=1, scale=1.0,
    )  # fmt: skip
    onnx_cases.assert_same(y, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "left_out", "attributes", "message"),
    [
        ("gated", 4, {}, "takes a decay"),
        ("linear", None, {"update_rule": "delta"}, "takes no decay and a beta"),
        ("linear", None, {"update_rule": "rotated"}, "update_rule is one of"),
        ("linear", None, {"kv_num_heads": 3}, "4 heads of query on 3"),
    ],
)
def test_inputs_that_the_rule_has_no_use_for_are_refused(
    rule: str, left_out: int | None, attributes: dict[str, Any], message: str
) -> None:
    inputs = [None if i == left_out else x for i, x in enumerate(tokens(rule, 2))]
    while inputs[-1] is None:
        inputs.pop()
    with pytest.raises(FheError, match=message):
        by_module(
            "LinearAttention",
            *inputs,
            outputs=2,
            opset=27,
            **{"update_rule": rule, **HEADS, **attributes},
        )


def test_a_causal_convolution_in_pieces_is_the_whole_and_is_conv() -> None:
    x, w, b = normal(2, 3, 9), normal(3, 1, 4, seed=1), normal(3, seed=2)
    whole, last = compute("CausalConvWithState", x, w, b)
    expected = by_runtime("Conv", x, w, b, group=3, pads=[3, 0], opset=17)
    assert_all_same([whole], expected)
    assert np.array_equal(last, x[:, :, -3:])
    state = None
    for piece in (slice(0, 1), slice(1, 6), slice(6, 9)):
        y, state = compute("CausalConvWithState", x[:, :, piece], w, b, state)
        onnx_cases.assert_same(y, whole[:, :, piece], rtol=1e-6, atol=1e-6)
    assert np.array_equal(state, last)


def test_swi_glu_does_not_broadcast() -> None:
    with pytest.raises(FheError, match="do not broadcast"):
        by_module("SwiGLU", normal(2, 3), normal(3), opset=28)
