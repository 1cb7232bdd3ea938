"""A pack as it should be: one operator of a domain of its own."""

from typing import Any

from fhe_core.registry import Registrar

import fhe_core


def double(X: Any, /, *, times: int = 1) -> Any:
    """``X`` doubled ``times`` times."""
    return X * 2**times


@fhe_core.hookimpl
def fhe_register_ops(registry: Registrar) -> None:
    registry.impl("Double", double, domain="com.example")
