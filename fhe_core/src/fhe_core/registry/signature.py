"""A NumPy function's signature is the specification of its operator.

Required inputs come before ``/``, optional inputs between ``/`` and ``*``, attributes after ``*``;
variadic inputs are ``*inputs``. Said once there, everything else is derived::

    def conv(X, W, /, B=None, *, auto_pad="NOTSET", group=1): ...
    def concat(*inputs, axis): ...

An attribute's annotation may say which values it can have: ``Literal["NOTSET", "VALID"]``, or ``bool`` for
0 and 1, or a list of these. A node with another value is refused, before it runs.

A function whose results depend on which outputs its node has takes one more parameter after ``*``,
of any name, with the default `OUTPUTS_WANTED`; it is no attribute.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fhe_core.errors import SignatureError
from fhe_core.registry.domains import allowed_values


class Required:
    """The type of `REQUIRED`, which stands where an attribute has no default."""

    def __repr__(self) -> str:
        return "REQUIRED"

    def __reduce__(self) -> str:
        # Copies and pickles are the one instance, so that ``is REQUIRED`` stays true.
        return "REQUIRED"


REQUIRED = Required()


class OutputsWanted(tuple[bool, ...]):
    """The type of `OUTPUTS_WANTED`: no node is known, so nothing of its outputs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "OUTPUTS_WANTED"

    def __reduce__(self) -> str:
        return "OUTPUTS_WANTED"


#: As a parameter's default: the function is told which outputs its node has, as a tuple of booleans,
#: one for each place. Empty where it is called without a node.
OUTPUTS_WANTED = OutputsWanted()


@dataclass(frozen=True)
class OpSignature:
    """What an operator takes: inputs by position, attributes by name.

    Attributes:
        inputs: names of the required inputs, in order.
        optional_inputs: names of the inputs that follow and may be missing (None).
        variadic: name of the ``*inputs``, or None.
        attributes: attribute name to default, `REQUIRED` where there is none. Read-only.
        outputs_wanted: name of the parameter that is told which outputs the node has, or None.
        choices: attribute name to all values that it, or each of its elements, can have; those of which
            nothing is said are not in it. Read-only.
    """

    inputs: tuple[str, ...] = ()
    optional_inputs: tuple[str, ...] = ()
    variadic: str | None = None
    # Defaults may be lists, which have no hash.
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    outputs_wanted: str | None = None
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))
        object.__setattr__(self, "choices", MappingProxyType(dict(self.choices)))

    def __reduce__(self) -> tuple[object, ...]:
        # A mappingproxy cannot be pickled.
        before = (self.inputs, self.optional_inputs, self.variadic)
        after = (self.outputs_wanted, dict(self.choices))
        return OpSignature, (*before, dict(self.attributes), *after)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The required inputs, then the optional ones; without the variadic."""
        return self.inputs + self.optional_inputs

    def __str__(self) -> str:
        parts = [*self.inputs]
        if self.inputs:
            parts.append("/")
        parts += [f"{name}=None" for name in self.optional_inputs]
        if self.variadic:
            parts.append(f"*{self.variadic}")
        elif self.attributes:
            parts.append("*")
        parts += [
            name if default is REQUIRED else f"{name}={default!r}"
            for name, default in self.attributes.items()
        ]
        return f"({', '.join(parts)})"

    @classmethod
    def from_callable(cls, fn: Callable[..., Any]) -> OpSignature:
        """Reads the signature of ``fn``.

        Raises:
            SignatureError: ``fn`` has no readable signature, or one that breaks the convention.
        """
        try:
            parameters = inspect.signature(fn).parameters.values()
        except (TypeError, ValueError):
            raise SignatureError(
                f"{function_name(fn)} has no signature that Python can read",
                fix="wrap it in a function that names its inputs, such as `def tanh(x, /): ...`",
            ) from None
        inputs, optional, attributes, choices = [], [], {}, {}
        variadic = outputs_wanted = None
        for parameter in parameters:
            _check_convention(fn, parameter)
            if parameter.kind is parameter.POSITIONAL_ONLY:
                inputs.append(parameter.name)
            elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                optional.append(parameter.name)
            elif parameter.kind is parameter.VAR_POSITIONAL:
                variadic = parameter.name
            elif parameter.default is OUTPUTS_WANTED:
                outputs_wanted = parameter.name
            else:
                missing = parameter.default is parameter.empty
                attributes[parameter.name] = REQUIRED if missing else parameter.default
                allowed = allowed_values(fn, parameter.annotation)
                if allowed is not None:
                    choices[parameter.name] = allowed
        return cls(tuple(inputs), tuple(optional), variadic, attributes, outputs_wanted, choices)


def function_name(fn: object) -> str:
    """``module.name`` of a function or class, for messages."""
    name = getattr(fn, "__qualname__", None) or repr(fn)
    module = getattr(fn, "__module__", None)
    return f"{module}.{name}" if module else name


def _check_convention(fn: Callable[..., Any], parameter: inspect.Parameter) -> None:
    """Raises SignatureError if a parameter is neither input nor attribute by the convention."""
    name, default = parameter.name, parameter.default
    has_default = default is not parameter.empty
    rule = fix = None
    if parameter.kind is parameter.VAR_KEYWORD:
        rule = "every attribute named after `*`"
        fix = f"replace **{name} by one keyword-only parameter for each attribute of the op"
    elif parameter.kind is parameter.POSITIONAL_ONLY and has_default:
        rule = "required inputs, without defaults, before `/`"
        fix = f"move `/` before {name} to make it an optional input, or drop its default"
    elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD and not has_default:
        rule = "required inputs before `/`, attributes after `*`"
        fix = f"put `/` after {name} if it is an input, or `*` before it if it is an attribute"
    elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD and default is not None:
        rule = "optional inputs, between `/` and `*`, with the default None"
        fix = f"put `*` before {name} if it is an attribute, or give it the default None"
    if rule:
        raise SignatureError(
            f"parameter {name!r} of {function_name(fn)} breaks the signature convention",
            expected=rule,
            got=f"`{parameter}`",
            fix=fix,
        )
