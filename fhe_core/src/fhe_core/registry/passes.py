"""Registration of passes, over graphs and integer programs, and of reductions and alternatives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, get_args

from fhe_core.errors import PackError, Where
from fhe_core.registry.provenance import PackInfo

if TYPE_CHECKING:
    # The graph package builds on this one, and needs numpy.
    from fhe_core.graph.ir import Graph, Node
    from fhe_core.program.pipeline import PassContext
    from fhe_core.program.program import Program
    from fhe_core.program.remarks import Remark


# What each kind of rewriting is called with: a pass with a graph; a reduction with graph, node, live,
# slope and offset; an alternative with a graph and samples.
PassFunction = Callable[..., "Graph"]
ReductionFunction = Callable[["Graph", "Node", Any, Any, Any], "Graph | None"]
AlternativeFunction = Callable[["Graph", Mapping[str, Any]], "Graph | None"]
ProgramFunction = Callable[["Program", "PassContext"], "tuple[Program, list[Remark]]"]
#: When a pass over an integer program runs, and what it may assume (`fhe_core.program.pipeline`).
Stage = Literal["exact", "calibrated", "final"]

F = TypeVar("F")


@dataclass(frozen=True)
class Rewriting(Generic[F]):
    """A function that rewrites graphs, and whose it is."""

    kind: ClassVar[str]
    name: str
    run: F
    origin: PackInfo

    def __str__(self) -> str:
        return f"{self.origin.name}.{self.name}"


@dataclass(frozen=True)
class GraphPass(Rewriting[PassFunction]):
    """Rewrites a graph into a better one that computes the same; ``last`` after those that are not; with
    ``samples`` to see how large tensors are."""

    kind = "graph pass"
    last: bool = False
    samples: bool = False


class GraphReduction(Rewriting[ReductionFunction]):
    """Makes a part of a node affine, which changes the model."""

    kind = "reduction"


class GraphAlternative(Rewriting[AlternativeFunction]):
    """Rewrites a graph into another that computes the same, and that may be cheaper or not."""

    kind = "alternative"


@dataclass(frozen=True)
class ProgramPass(Rewriting[ProgramFunction]):
    """Rewrites a finished integer program into a cheaper one."""

    kind = "program pass"
    stage: Stage = "exact"


@dataclass(frozen=True)
class Rewritings:
    """The rewritings of a pack, or of several: each kind in the order in which they were added."""

    passes: tuple[GraphPass, ...] = ()
    reductions: tuple[GraphReduction, ...] = ()
    alternatives: tuple[GraphAlternative, ...] = ()
    program_passes: tuple[ProgramPass, ...] = ()

    def __add__(self, other: Rewritings) -> Rewritings:
        return Rewritings(
            self.passes + other.passes,
            self.reductions + other.reductions,
            self.alternatives + other.alternatives,
            self.program_passes + other.program_passes,
        )

    def __bool__(self) -> bool:
        return self != Rewritings()


class PassRegistrar:
    """Registers passes, reductions and alternatives for one pack, while its hook runs."""

    def __init__(self, origin: PackInfo) -> None:
        self._origin = origin
        self._passes: dict[str, GraphPass] = {}
        self._reductions: dict[str, GraphReduction] = {}
        self._alternatives: dict[str, GraphAlternative] = {}
        self._program_passes: dict[str, ProgramPass] = {}
        self._closed = False

    @property
    def pack(self) -> str:
        """The name of the pack that this registrar is bound to."""
        return self._origin.name

    def add(
        self,
        fn: PassFunction,
        *,
        name: str | None = None,
        last: bool = False,
        samples: bool = False,
    ) -> None:
        """Registers a pass.

        Args:
            fn: takes a `fhe_core.Graph`, whose constants are folded, and returns one of the same
                inputs and outputs that computes the same; the very graph that it was given if there
                is nothing to do. Tensors that remain keep their names.
            name: of the pass, unique in the pack; the function's own by default.
            last: after the passes of all packs, for what takes apart what these may know as a whole, as a
                loop. They run once more over what it has made.
            samples: ``fn`` takes (graph, samples), the calibration data by input name, which tell how large its
                tensors are. It does not run where there are none, nor on a model that was trained for integers.

        Raises:
            PackError: an argument is of a wrong kind, the name is taken, or the hook has already
                returned.
        """
        self._check_open("passes", name or fn)
        if not _takes(fn, 2 if samples else 1):
            raise PackError(
                f"the pass is no function of {'a graph and samples' if samples else 'one graph'}",
                where=Where(pack=self.pack),
                got=repr(fn),
                fix=f"pass a function such as `def fold(graph{', samples' if samples else ''}): ...`",
            )
        name = self._free_name(fn, name, self._passes, "pass", "passes")
        self._passes[name] = GraphPass(name, fn, self._origin, bool(last), bool(samples))

    def add_reduction(self, fn: ReductionFunction, *, name: str | None = None) -> None:
        """Registers a reduction: a rewriting that makes a part of an activation affine.

        Unlike a pass it changes what the model computes, so it runs only where somebody decided
        that it may: where an activation hardly bends, an affine function costs less than look-ups.

        Args:
            fn: takes (graph, node, live, slope, offset) and returns a `fhe_core.Graph`, or None if
                it cannot. ``node`` is one of the graph's whose one output has at each element a
                function of the same element of its one input that is no constant. ``live`` (bool),
                ``slope`` and ``offset`` (float64) are arrays that broadcast against that output,
                with 1 for the batch, as in (1, C, 1, 1). The result computes the same graph with
                that output being node(x) where ``live``, and slope * x + offset elsewhere. Where
                ``live`` holds anywhere, ``slope`` is 0 wherever it doesn't. Inputs and outputs stay,
                and tensors that remain keep their names.
            name: of the reduction, unique in the pack; the function's own by default.

        Raises:
            PackError: an argument is of a wrong kind, the name is taken, or the hook has already
                returned.
        """
        self._check_open("reductions", name or fn)
        if not _takes(fn, 5):
            raise PackError(
                "the reduction is no function of a graph, a node, live, slope and offset",
                where=Where(pack=self.pack),
                got=repr(fn),
                fix="pass a function such as `def reduce(graph, node, live, slope, offset): ...`",
            )
        name = self._free_name(fn, name, self._reductions, "reduction", "reductions")
        self._reductions[name] = GraphReduction(name, fn, self._origin)

    def add_alternative(self, fn: AlternativeFunction, *, name: str | None = None) -> None:
        """Registers an alternative: a rewriting that may make a model cheaper, or dearer.

        Like a pass it computes the same, which is checked; but it runs only where the cost of what
        it returns can be compared, in a search.

        Args:
            fn: takes a `fhe_core.Graph` that the passes have left, and samples (arrays by input
                name) that tell how large its tensors are. It returns another graph of the same
                inputs and outputs that computes the same, or None if there is nothing to do.
            name: of the alternative, unique in the pack; the function's own by default.

        Raises:
            PackError: an argument is of a wrong kind, the name is taken, or the hook has already
                returned.
        """
        self._check_open("alternatives", name or fn)
        if not _takes(fn, 2):
            raise PackError(
                "the alternative is no function of a graph and samples",
                where=Where(pack=self.pack),
                got=repr(fn),
                fix="pass a function such as `def split(graph, samples): ...`",
            )
        name = self._free_name(fn, name, self._alternatives, "alternative", "alternatives")
        self._alternatives[name] = GraphAlternative(name, fn, self._origin)

    def add_program(
        self, fn: ProgramFunction, *, name: str | None = None, stage: Stage = "exact"
    ) -> None:
        """Registers a pass over finished integer programs.

        It runs whenever a module is built, unless the caller wants none (``savings="none"``). Its results
        are compared with the program's before it, on calibration data.

        Args:
            fn: takes (program, context) and returns a program and a list of remarks; the very program
                that it was given if there is nothing to do. Nodes are replaced, never changed.
            name: of the pass, unique in the pack; the function's own by default.
            stage: "exact": every input keeps its result, and the pass is repeated while it finds more;
                "calibrated": inputs keep theirs where they do what the calibration data did;
                "final": exact, once, after all others.

        Raises:
            PackError: an argument is of a wrong kind, the name is taken, or the hook has already
                returned.
        """
        self._check_open("program passes", name or fn)
        if not _takes(fn, 2):
            raise PackError(
                "the program pass is no function of a program and its context",
                where=Where(pack=self.pack),
                got=repr(fn),
                fix="pass a function such as `def fold(program, context): ...`",
            )
        if stage not in get_args(Stage):
            raise PackError(
                f"there is no stage {stage!r}",
                where=Where(pack=self.pack),
                expected=f"one of {', '.join(get_args(Stage))}",
                got=repr(stage),
                fix="choose one of them",
            )
        name = self._free_name(fn, name, self._program_passes, "program pass", "program passes")
        self._program_passes[name] = ProgramPass(name, fn, self._origin, stage)

    def close(self) -> Rewritings:
        """Ends registration; returns what was added."""
        self._closed = True
        return Rewritings(
            tuple(self._passes.values()),
            tuple(self._reductions.values()),
            tuple(self._alternatives.values()),
            tuple(self._program_passes.values()),
        )

    def _check_open(self, plural: str, added: object) -> None:
        if self._closed:
            argument = plural.replace(" ", "_")
            raise PackError(
                f"{plural} can be registered only while `fhe_register_passes` runs",
                where=Where(pack=self.pack),
                got=repr(added),
                fix=f"register in the hook, or use `fhe_core.registered({argument}=...)` for the "
                "body of a `with`",
            )

    def _free_name(
        self, fn: object, name: object, taken: Mapping[str, object], kind: str, plural: str
    ) -> str:
        where = Where(pack=self.pack)
        # What has no name of its own, such as a functools.partial, needs one.
        name = getattr(fn, "__name__", None) if name is None else name
        if not isinstance(name, str) or not name:
            adder = {"pass": "add", "program pass": "add_program"}.get(kind, f"add_{kind}")
            raise PackError(
                f"the {kind}'s name is no text",
                where=where,
                got=repr(name),
                fix=f"give it a name, as in `passes.{adder}(fn, name='fold')`",
            )
        if name in taken:
            raise PackError(
                f"the pack registers two {plural} named {name!r}",
                where=where,
                fix="drop one, or pass `name`",
            )
        return name


def _takes(fn: object, count: int) -> bool:
    """Whether something can be called with so many arguments."""
    if not callable(fn):
        return False
    try:
        inspect.signature(fn).bind(*(None,) * count)
    except ValueError:  # a function of C may have no signature to look at
        return True
    except TypeError:
        return False
    return True
