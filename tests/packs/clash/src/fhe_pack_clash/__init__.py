"""A pack that registers the good pack's operator without saying that it overrides.

Its entry point is called "rival" so that it loads after "good": packs load by name.
"""

from typing import Any

from fhe_core.registry import Registrar

import fhe_core


def double(X: Any, /, *, times: int = 1) -> Any:
    """``X`` doubled ``times`` times, by addition."""
    for _ in range(times):
        X = X + X
    return X


@fhe_core.hookimpl
def fhe_register_ops(registry: Registrar) -> None:
    registry.impl("Double", double, domain="com.example")
    registry.impl("Triple", lambda X, /: 3 * X, domain="com.example")
