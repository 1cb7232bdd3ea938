"""The hooks by which a pack takes part: a specification each, and the marks for both sides.

A pack defines those that it needs, marked ``@fhe_core.hookimpl``, in the module or object that its
entry point names. A hook may leave out arguments that it does not use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from fhe_core.registry.choosing import Candidate, NodeView
    from fhe_core.registry.passes import PassRegistrar
    from fhe_core.registry.plugin import HookRegistrar
    from fhe_core.registry.registrar import Registrar

PROJECT = "fhe_core"

# Every hook starts with this: a function that does and is none was probably meant to be one.
PREFIX = "fhe_"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def fhe_register_hooks(hooks: HookRegistrar) -> None:
    """Registers specifications of hooks that the pack brings, for other packs to implement.

    Called once, when all packs are imported and before any of them registers anything else. Whoever
    specifies a hook calls it: ``registry.hooks.each(name, ...)`` or ``registry.hooks.first(name, ...)``.

    Args:
        hooks: a registrar bound to this pack; it accepts nothing after the hook has returned.

    Example::

        import fhe_core


        class Greeting:
            @fhe_core.hookspec
            def fhe_greet(self, name):
                "A greeting for somebody."


        @fhe_core.hookimpl
        def fhe_register_hooks(hooks):
            hooks.add(Greeting)


        @fhe_core.hookimpl
        def fhe_greet(name):
            return f"Hello, {name}"
    """


@hookspec
def fhe_register_ops(registry: Registrar) -> None:
    """Registers the pack's operators.

    Called once, when the packs are loaded. Nothing that it registers stays if it raises.

    Args:
        registry: a registrar bound to this pack; it accepts nothing after the hook has returned.

    Example::

        import fhe_core


        def double(X, /, *, times=1):
            return X * 2**times


        @fhe_core.hookimpl
        def fhe_register_ops(registry):
            registry.impl("Double", double, domain="com.example")
    """


@hookspec
def fhe_register_passes(passes: PassRegistrar) -> None:
    """Registers functions that rewrite a model: passes over its graph and its integer program, reductions,
    alternatives.

    Called once, when the packs are loaded, like `fhe_register_ops`. The passes run in `quantize` and
    `compile`, in the order in which packs are loaded and passes added; never in `NumpyModule`,
    which runs models as they are. A pass may replace operators that no pack implements by some that
    one does. It may not change what the model computes: that is checked.

    A reduction may change it, in one way: the output of an activation becomes an affine function of
    its input, everywhere or in some channels. The compiler decides where that costs little accuracy.

    An alternative is like a pass, but not always cheaper: the search takes it where it is.

    A pass over the integer program (`PassRegistrar.add_program`) comes after quantization, and leaves out
    what need not be computed.

    Args:
        passes: a registrar bound to this pack; it accepts nothing after the hook has returned.

    Example::

        from dataclasses import replace

        import fhe_core
        import numpy


        def drop_identities(graph):
            outputs = set(graph.output_names)
            renamed, nodes = {}, []
            for node in graph.nodes:
                inputs = tuple(renamed.get(name, name) for name in node.inputs)
                if node.op_type == "Identity" and outputs.isdisjoint(node.outputs):
                    renamed[node.outputs[0]] = inputs[0]
                else:
                    nodes.append(replace(node, inputs=inputs))
            return replace(graph, nodes=tuple(nodes)) if renamed else graph


        def straighten(graph, node, live, slope, offset):
            if node.op_type != "Relu" or live.any():
                return None
            opset, (x,), (y,) = graph.opsets[""], node.inputs, node.outputs
            scaled, factor, added = (f"{y}_{what}" for what in ("scaled", "factor", "added"))
            line = (
                fhe_core.Node(scaled, "Mul", "", opset, (x, factor), (scaled,), {}),
                fhe_core.Node(added, "Add", "", opset, (scaled, added), (y,), {}),
            )
            nodes = tuple(new for old in graph.nodes for new in (line if old is node else (old,)))
            constants = {factor: slope.astype("float32"), added: offset.astype("float32")}
            return replace(graph, nodes=nodes, constants={**graph.constants, **constants})


        def relu_as_maximum(graph, samples):
            if all(node.op_type != "Relu" for node in graph.nodes):
                return None
            nodes = tuple(
                replace(node, op_type="Max", inputs=(*node.inputs, "zero"))
                if node.op_type == "Relu"
                else node
                for node in graph.nodes
            )
            zero = numpy.zeros(1, "float32")
            return replace(graph, nodes=nodes, constants={**graph.constants, "zero": zero})


        @fhe_core.hookimpl
        def fhe_register_passes(passes):
            passes.add(drop_identities)
            passes.add_reduction(straighten)
            passes.add_alternative(relu_as_maximum)
    """


@hookspec(firstresult=True)
def fhe_choose_candidate(node: NodeView, candidates: Sequence[Candidate]) -> Candidate | None:
    """Chooses who serves one node, where more than the serving registration could.

    Called for each such node and slot, when a model's operators are resolved: for "impl" whenever
    it is run or compiled, for "quantized" when it is checked or compiled. Packs are asked in the
    order in which they are loaded, until one answers. Nobody is asked where the user prefers a pack
    for the operator, or a `fhe_core.registered` body serves it.

    Args:
        node: what the node is.
        candidates: for one slot: the one that serves, if any does, then what it shadows and what
            was registered with ``alternative=True``.

    Returns:
        one of the candidates, or None to leave the choice to others.

    Example::

        import fhe_core


        def double(X, /):
            return X * 2


        def double_by_addition(X, /):
            return X + X


        @fhe_core.hookimpl
        def fhe_register_ops(registry):
            registry.impl("Double", double, domain="com.example")
            registry.impl("Double", double_by_addition, domain="com.example", alternative=True)


        @fhe_core.hookimpl
        def fhe_choose_candidate(node, candidates):
            if node.op_type != "Double" or 0 not in node.constants:
                return None
            return next(c for c in candidates if c.target is double_by_addition)
    """


#: Those that are called while packs are loaded, and never after.
REGISTERING = frozenset(
    hook.__name__ for hook in (fhe_register_hooks, fhe_register_ops, fhe_register_passes)
)
