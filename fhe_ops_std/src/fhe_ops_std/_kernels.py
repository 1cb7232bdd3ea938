"""Whether the weights of a convolution fit its input."""

from __future__ import annotations

from collections.abc import Sequence

from fhe_core import ModelError, Where


def require_fit(
    op: str,
    x: Sequence[int],
    w: Sequence[int],
    *,
    group: int,
    kernel_shape: Sequence[int] | None,
    transposed: bool = False,
) -> None:
    """Refuses weights of another rank, number of channels or kernel than the node says.

    Args:
        x: shape (N, C, ...).
        w: shape (M, C / group, ...kernel); (C, M / group, ...kernel) where ``transposed``.

    Raises:
        ModelError: names the op.
    """
    fits = len(x) == len(w) and x[1] == (w[0] if transposed else w[1] * group)
    if not fits or w[0] % group:
        weights = "(C, M/group, ...), C" if transposed else "(M, C/group, ...), M"
        raise ModelError(
            "x, w and group do not fit each other",
            where=Where(op=op),
            expected=f"x: (N, C, ...), w: {weights} a multiple of group",
            got=f"x: {_spelled(x)}, w: {tuple(w)}, group {group}",
            fix="correct the weights or the group",
        )
    if kernel_shape is not None and tuple(kernel_shape) != tuple(w[2:]):
        raise ModelError(
            "kernel_shape contradicts w",
            where=Where(op=op),
            expected=f"{tuple(w[2:])}",
            got=f"{tuple(kernel_shape)}",
            fix="leave kernel_shape out",
        )


def _spelled(x: Sequence[int]) -> str:
    """The shape; the batch may be a symbol."""
    return f"(N, {', '.join(map(str, x[1:]))})"
