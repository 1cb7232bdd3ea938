"""Each node of a graph with what implements it: resolved, its attributes bound, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from fhe_core.arguments import shown
from fhe_core.errors import FheError, ModelError, PackError, UnsupportedOpError, Where
from fhe_core.graph.ir import Graph, Node
from fhe_core.registry import (
    GraphAlternative,
    GraphPass,
    GraphReduction,
    NodeView,
    OpSignature,
    OpSpec,
    get_registry,
)
from fhe_core.registry.registrar import Slot
from fhe_core.registry.signature import REQUIRED
from fhe_core.registry.stateful import Bound


@runtime_checkable
class Resolver(Protocol):
    """What this package needs of a registry."""

    def resolve(self, op_type: str, domain: str = "", *, opset: int) -> OpSpec:
        """The operator's spec, or an UnsupportedOpError."""

    def choose(self, spec: OpSpec, slot: Slot, node: NodeView, where: Where) -> OpSpec:
        """The spec with one slot as the packs want it at a node, or a PackError."""

    def passes(self) -> tuple[GraphPass, ...]:
        """The packs' graph passes, in the order in which they run."""

    def reductions(self) -> tuple[GraphReduction, ...]:
        """The packs' reductions, in the order in which they are tried."""

    def alternatives(self) -> tuple[GraphAlternative, ...]:
        """The packs' alternatives, in the order in which they are tried."""


def registry_of(given: Any) -> Resolver:
    """Where operators come from, as callers give it: the installed packs by default.

    Raises:
        PackError: what is given is no registry.
    """
    if given is None:
        return get_registry()
    if isinstance(given, Resolver) and not isinstance(given, type):
        return given
    raise PackError(
        f"{shown(given)} is no registry",
        expected="a registry, as fhe_core.get_registry() returns it",
        got=type(given).__name__,
        fix="leave registry out for the installed packs",
    )


@dataclass(frozen=True, eq=False)
class Body:
    """A subgraph in an attribute, resolved."""

    graph: Graph
    steps: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Step:
    """A node that can run.

    Args:
        node: the node.
        spec: what the registry says of its operator at its opset.
        impl: the NumPy function, ``impl(*inputs, **attributes)``.
        attributes: the node's own, subgraphs aside; for the others the function has defaults.
        bodies: the subgraphs by attribute name; ``impl`` receives each as a callable (arrays in, a
            tuple of arrays out), or a tuple of them where the attribute is a list.
    """

    node: Node
    spec: OpSpec
    impl: Callable[..., Any]
    attributes: Mapping[str, Any]
    bodies: Mapping[str, Body | tuple[Body, ...]]

    @property
    def all_bodies(self) -> tuple[Body, ...]:
        """The subgraphs in one tuple."""
        return tuple(
            body
            for item in self.bodies.values()
            for body in (item if isinstance(item, tuple) else (item,))
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """What ``impl`` is called with by name: the attributes, and which outputs there are if it asks."""
        asks = self.spec.signature.outputs_wanted if self.spec.signature else None
        return {**self.attributes, **({asks: self.node.outputs_wanted} if asks else {})}

    @cached_property
    def bound(self) -> Bound:
        """``impl`` with ``arguments``, as a function of the inputs: one for all runs."""
        return Bound(self.impl, self.arguments)

    @property
    def deterministic(self) -> bool:
        """Whether equal inputs give equal outputs: only then may the node be folded or merged.

        ONNX gives a ``seed`` to every operator that draws random numbers, and to no other.
        """
        signature = self.spec.signature
        return (signature is None or "seed" not in signature.attributes) and all(
            step.deterministic for body in self.all_bodies for step in body.steps
        )


def resolve_steps(graph: Graph, registry: Resolver) -> tuple[list[Step], list[FheError]]:
    """The steps of the nodes that can run, in order, and everything that keeps others from it."""
    steps: list[Step] = []
    errors: list[FheError] = []
    for node in graph.nodes:
        step, found = resolve_step(node, registry, graph.constants)
        errors += found
        if step is not None:
            steps.append(step)
    return steps, errors


def resolve_step(
    node: Node, registry: Resolver, constants: Mapping[str, Any]
) -> tuple[Step | None, list[FheError]]:
    """The node's step, or everything that keeps it from running.

    Args:
        constants: of the node's graph, by name.
    """
    try:
        spec = registry.resolve(node.op_type, domain=node.domain, opset=node.opset)
        spec = registry.choose(spec, "impl", _view(node, constants), node.where())
    except UnsupportedOpError as error:
        return None, [at_node(error, node, None)]
    except PackError as error:
        return None, [error]
    if spec.impl is None:
        return None, [
            UnsupportedOpError(
                "the op has a quantized form but no NumPy implementation",
                where=node.where(spec.quantized_pack),
                fix="install a pack that implements it, or register an impl for it",
            )
        ]
    errors: list[FheError] = []
    if spec.signature is not None:
        errors += binding_errors(node, spec.signature, spec.impl_pack)
    attributes: dict[str, Any] = {}
    bodies: dict[str, Body | tuple[Body, ...]] = {}
    for name, value in node.attributes.items():
        if isinstance(value, Graph):
            bodies[name] = _resolve_body(value, registry, errors)
        elif isinstance(value, tuple) and value and isinstance(value[0], Graph):
            bodies[name] = tuple(_resolve_body(item, registry, errors) for item in value)
        else:
            attributes[name] = value
    if errors:
        return None, errors
    return Step(node, spec, spec.impl, attributes, bodies), []


def choose_quantized(step: Step, registry: Resolver, constants: Mapping[str, Any]) -> Step:
    """The step with the quantized class that the packs want at its node.

    Raises:
        PackError: a pack's hook fails to choose.
    """
    view = _view(step.node, constants)
    spec = registry.choose(step.spec, "quantized", view, step.node.where())
    return step if spec is step.spec else replace(step, spec=spec)


def _view(node: Node, constants: Mapping[str, Any]) -> NodeView:
    fixed = {i: constants[name] for i, name in enumerate(node.inputs) if name in constants}
    return NodeView(
        op_type=node.op_type,
        domain=node.domain,
        opset=node.opset,
        attributes=MappingProxyType(dict(node.attributes)),
        constants=MappingProxyType(fixed),
        input_count=len(node.inputs),
        output_count=len(node.outputs),
    )


def _resolve_body(graph: Graph, registry: Resolver, errors: list[FheError]) -> Body:
    steps, found = resolve_steps(graph, registry)
    errors += found
    return Body(graph, tuple(steps))


def at_node(error: FheError, node: Node, pack: str | None) -> FheError:
    """The error with its node filled in, and the pack if the error names none."""
    where = node.where(error.where.pack or pack)
    return type(error)(
        error.problem, where=where, expected=error.expected, got=error.got, fix=error.fix
    )


def binding_errors(node: Node, signature: OpSignature, pack: str | None) -> list[ModelError]:
    """Everything in which the node does not fit the implementation's signature."""
    return [
        ModelError(problem, where=node.where(pack), expected=expected, got=got, fix=fix)
        for problem, expected, got, fix in (
            *_input_misfits(node, signature),
            *_attribute_misfits(node, signature),
        )
    ]


_Misfit = tuple[str, str, str, str]


def _input_misfits(node: Node, signature: OpSignature) -> Iterator[_Misfit]:
    names = signature.input_names
    if signature.variadic is None and len(node.inputs) > len(names):
        yield (
            f"the node has {len(node.inputs)} inputs",
            f"at most {len(names)}: {', '.join(names) or 'none'}",
            ", ".join(repr(name) for name in node.inputs),
            "remove the inputs that the op does not have",
        )
    missing = [
        name
        for i, name in enumerate(signature.inputs)
        if i >= len(node.inputs) or not node.inputs[i]
    ]
    if missing:
        yield (
            f"the required input {', '.join(missing)} is missing",
            f"the inputs {', '.join(signature.inputs)}",
            ", ".join(repr(name) for name in node.inputs) or "no inputs",
            "connect the missing input",
        )


def _attribute_misfits(node: Node, signature: OpSignature) -> Iterator[_Misfit]:
    known = signature.attributes
    listed = f"the attributes {', '.join(known)}" if known else "no attributes"
    for name, value in node.attributes.items():
        if name not in known:
            yield (
                f"the attribute {name!r} is unknown to the implementation",
                listed,
                f"{name} = {_shown(value)}",
                "remove the attribute, or install a pack whose implementation has it",
            )
        elif not _fits(value, known[name]):
            yield (
                f"the attribute {name!r} has the wrong type",
                f"{_kind(known[name])}, as in its default {known[name]!r}",
                f"{_kind(value)} {_shown(value)}",
                "correct the attribute",
            )
        elif wrong := _outside(value, signature.choices.get(name)):
            yield (
                f"the attribute {name!r} has a value that it cannot have",
                " or ".join(repr(choice) for choice in signature.choices[name]),
                ", ".join(map(_shown, wrong)),
                "correct the attribute, or export the model again",
            )
    for name, default in known.items():
        if default is REQUIRED and name not in node.attributes:
            yield (
                f"the required attribute {name!r} is missing",
                listed,
                f"the attributes {', '.join(node.attributes)}" if node.attributes else "none",
                "set the attribute",
            )


# ONNX has one type for integers and booleans, and exporters write whole floats as integers.
_KINDS: tuple[tuple[str, tuple[type, ...], tuple[type, ...]], ...] = (
    ("an integer", (bool, int), (int,)),
    ("a float", (float,), (float, int)),
    ("a string", (str,), (str,)),
    ("a list", (tuple, list), (tuple,)),
)


def _fits(value: Any, default: Any) -> bool:
    """Whether a value may stand for a default; a default that says nothing of types takes all."""
    return next(
        (isinstance(value, taken) for _, types, taken in _KINDS if isinstance(default, types)), True
    )


def _outside(value: Any, choices: tuple[Any, ...] | None) -> list[Any]:
    """The value, or the elements of a list, that are none of the choices."""
    if choices is None:
        return []
    items = value if isinstance(value, tuple) else (value,)
    return [
        item for item in items if not isinstance(item, int | float | str) or item not in choices
    ]


def _kind(value: Any) -> str:
    if isinstance(value, Graph):
        return "a graph"
    return next((kind for kind, types, _ in _KINDS if isinstance(value, types)), "a tensor")


def _shown(value: Any) -> str:
    if isinstance(value, Graph):
        return f"graph {value.name!r}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."
