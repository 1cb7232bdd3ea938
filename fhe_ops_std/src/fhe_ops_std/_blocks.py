"""Functions that work element by element, evaluated a block at a time.

Each step of such a function makes an array. Of a block, these arrays stay in the cache, and take no
memory worth speaking of.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

_F = TypeVar("_F", bound=Callable[..., Any])

# Enough elements that a block's overhead is nothing, few enough for several arrays in the cache.
_BLOCK = 2**15


def by_blocks(function: _F) -> _F:
    """The function of one array, and of attributes, whose result has the array's shape and dtype."""

    @functools.wraps(function)
    def blocked(x: Any, /, **attributes: Any) -> Any:
        # What has no elements yet, an encrypted tensor, is described in whole.
        if not isinstance(x, np.ndarray) or x.size <= _BLOCK:
            return function(x, **attributes)
        y = np.empty(x.shape, x.dtype)
        elements, results = x.reshape(-1), y.reshape(-1)
        for start in range(0, x.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            results[block] = function(elements[block], **attributes)
        return y

    return cast(_F, blocked)
