"""N-grams: how often short sequences of tokens occur in longer ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def tf_idf_vectorizer(
    x: Array,
    /,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: Literal["TF", "IDF", "TFIDF"],
    ngram_counts: Sequence[int],
    ngram_indexes: Sequence[int],
    pool_int64s: Sequence[int] | None = None,
    pool_strings: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> Array:
    """ONNX TfIdfVectorizer-9 of integer tokens: the n-grams of each row that are in a pool, counted.

    Args:
        x: (tokens,) or (rows, tokens).
        max_skip_count: up to how many tokens lie between two that follow each other in an n-gram.
        mode: TF for the count, IDF for the weight of what occurs at all, TFIDF for count x weight.
        ngram_counts: where in the pool the 1-grams, the 2-grams... begin.
        ngram_indexes: the output's column for each n-gram of the pool.
        pool_int64s: all n-grams, the shortest first, token after token.
        weights: one for each n-gram of the pool; 1 by default.

    Returns:
        (columns,) or (rows, columns), float32.
    """
    if pool_int64s is None or x.dtype.kind not in "iu":
        raise NotImplementedError("strings are not supported as tokens")
    if mode not in ("TF", "IDF", "TFIDF"):
        raise ValueError(f"mode is {mode!r}, not TF, IDF or TFIDF")
    if x.ndim > 2:
        raise ValueError(f"the input has {x.ndim} axes, not one or two")
    rows = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    counts = np.zeros((rows.shape[0], len(ngram_indexes)), np.float32)
    first = 0
    for length, pool in enumerate(_pools(pool_int64s, ngram_counts), start=1):
        if min_gram_length <= length <= max_gram_length and len(pool):
            skips = max_skip_count if length > 1 else 0
            for step in range(1, skips + 2):
                counts[:, first : first + len(pool)] += _counted(rows, pool, step)
        first += len(pool)
    if mode == "IDF":
        counts = np.minimum(counts, 1)
    if mode != "TF" and weights is not None:
        counts = counts * np.asarray(weights, np.float32)
    y = np.zeros((rows.shape[0], max(ngram_indexes) + 1), np.float32)
    np.add.at(y.T, np.array(ngram_indexes), counts.T)
    return y.reshape(*x.shape[:-1], -1)


def _pools(tokens: Sequence[int], begins: Sequence[int]) -> list[Array]:
    """The 1-grams, the 2-grams...: (number, length) each."""
    ends = [*begins[1:], len(tokens)]
    return [
        np.array(tokens[begin:end], np.int64).reshape(-1, length)
        for length, (begin, end) in enumerate(zip(begins, ends, strict=True), start=1)
    ]


def _counted(rows: Array, pool: Array, step: int) -> Array:
    """How often each row holds each n-gram of the pool, its tokens ``step`` apart: (rows, pool)."""
    length = pool.shape[1]
    starts = max(rows.shape[1] - (length - 1) * step, 0)
    grams = np.stack([rows[:, i * step : i * step + starts] for i in range(length)], axis=-1)
    # One number for each distinct n-gram, so that they are compared as numbers.
    _, codes = np.unique(
        np.concatenate([pool, grams.reshape(-1, length)]), axis=0, return_inverse=True
    )
    codes = codes.reshape(-1)
    found = codes[len(pool) :].reshape(rows.shape[0], -1)
    totals = np.zeros((rows.shape[0], codes.max() + 1), np.float32)
    np.add.at(totals, (np.arange(rows.shape[0]).reshape(-1, 1), found), 1)
    return totals[:, codes[: len(pool)]]


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("TfIdfVectorizer", 9, tf_idf_vectorizer),
)
