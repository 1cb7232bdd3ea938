"""Implementations that keep a state: classes whose constructor reads the attributes, once for each node.

An operator whose attributes have to be parsed, sorted or made into tables does that once::

    class Lookup:
        def __init__(self, *, keys, values): ...   # attributes, after `*`
        def __call__(self, x, /): ...              # inputs, as in a function

Such a class is registered as a function is, and its signature is that of both methods together.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fhe_core.errors import SignatureError
from fhe_core.registry.signature import function_name


class Stateful:
    """A class as one function of inputs and attributes.

    Args:
        cls: constructed with attributes, its instances called with inputs. A call must not change an
            instance: several threads may make calls at a time.

    Raises:
        SignatureError: the instances cannot be called, or the methods mix inputs and attributes.
    """

    def __init__(self, cls: type) -> None:
        functools.update_wrapper(self, cls, updated=())
        self.cls = cls
        self.__signature__ = _joined(cls)

    def __call__(self, *inputs: Any, **attributes: Any) -> Any:
        return self.cls(**attributes)(*inputs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stateful) and other.cls is self.cls

    def __hash__(self) -> int:
        return hash((Stateful, self.cls))


def as_function(impl: Any) -> Any:
    """A class as a function of inputs and attributes; everything else as it is.

    Raises:
        SignatureError: the class cannot be one.
    """
    return Stateful(impl) if isinstance(impl, type) else impl


class Bound:
    """An implementation with its attributes, as a function of the inputs.

    A class is constructed when the first inputs come, so that what it raises is told of a run. Should
    two threads come first at once, both construct, and one of the two equal instances stays.
    """

    __slots__ = ("_attributes", "_call", "_impl")

    def __init__(self, impl: Callable[..., Any], attributes: Mapping[str, Any]) -> None:
        self._impl, self._attributes = impl, attributes
        self._call: Callable[..., Any] | None = None

    def __call__(self, *inputs: Any) -> Any:
        call = self._call
        if call is None:
            if isinstance(self._impl, Stateful):
                call = self._impl.cls(**self._attributes)
            else:
                call = functools.partial(self._impl, **self._attributes)
            self._call = call
        return call(*inputs)


def _joined(cls: type) -> inspect.Signature:
    """The parameters of ``__call__``, then those of the constructor."""
    if not any("__call__" in base.__dict__ for base in cls.__mro__):
        raise SignatureError(
            f"instances of {function_name(cls)} cannot be called",
            expected="`def __call__(self, x, /): ...`, which takes the inputs",
            fix="add it, or register a function",
        )
    call = cls.__call__
    try:
        (_, *inputs) = inspect.signature(call).parameters.values()
        attributes = list(inspect.signature(cls).parameters.values())
    except (TypeError, ValueError):
        raise SignatureError(
            f"{function_name(cls)} has no signature that Python can read",
            fix="write `def __init__(self, *, axis): ...` and `def __call__(self, x, /): ...` in it",
        ) from None
    for parameter in inputs:
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            raise _misplaced(f"{function_name(cls)}.__call__", parameter, "inputs", "__init__")
    for parameter in attributes:
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            raise _misplaced(f"{function_name(cls)}.__init__", parameter, "attributes", "__call__")
    return inspect.Signature([*inputs, *attributes])


def _misplaced(method: str, parameter: inspect.Parameter, takes: str, other: str) -> SignatureError:
    return SignatureError(
        f"parameter {parameter.name!r} of {method} breaks the signature convention",
        expected="inputs in `__call__`, before `/`; attributes in `__init__`, after `*`",
        got=f"`{parameter}`",
        fix=f"move it to {other}, or make it one of the {takes}",
    )
