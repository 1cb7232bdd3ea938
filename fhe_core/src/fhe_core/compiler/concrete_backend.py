"""The encrypted reader of an integer program: Concrete (TFHE). The only file that imports it.

Concrete measures the bounds of a circuit on sample inputs, and has silent traps where a measured range
meets a rounding: an overflow that is flagged where there is none clips too low, and one that is not flagged
flips the padding bit. Here nothing is measured. Every node is declared with the whole range of the width
that ``program.widths`` chose, which already keeps the bound that roundings need, so neither can occur, and
overflow protection is off because nothing is left to protect from.
"""

from __future__ import annotations

import atexit
import secrets
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import ArtifactError, CompilationError, InputError
from fhe_core.program.nodes import BATCH, Node, with_batch
from fhe_core.program.program import Program
from fhe_core.progress import Progress
from fhe_core.quantization.module import Cost

Array = NDArray[Any]

FUNCTION = "run"


def concrete() -> Any:
    """The module ``concrete.fhe``.

    Raises:
        CompilationError: concrete-python is not installed, or does not load.
    """
    try:
        with warnings.catch_warnings():
            # concrete imports pkg_resources, which says that it is deprecated.
            warnings.simplefilter("ignore")
            from concrete import compiler, fhe
    except ImportError as error:
        raise CompilationError(
            f"the FHE compiler cannot be imported: {error}",
            expected="concrete-python, on CPython 3.10 to 3.12",
            fix="run: pip install 'fhe-core[concrete]'",
        ) from error
    # What it does at exit ends a process that has run a circuit on the spot, with code 0: failed tests
    # pass, and output that is still buffered is lost. It stops data-flow workers, of which there are none.
    terminate = getattr(compiler, "_terminate_df_parallelization", None)
    if terminate is not None:
        atexit.unregister(terminate)
    return fhe


# -- compiling


def compile_program(program: Program, p_error: float) -> ConcreteCircuit:
    """Compile a program.

    Raises:
        CompilationError: Concrete has no parameters for it; names the widest node.
    """
    fhe = concrete()
    _check_clear(program)
    inputs = program.inputs
    names = [f"x{i}" for i in range(len(inputs))]
    function, marked = _function(program, names, fhe)
    statuses = {
        name: "encrypted" if node.attributes["encrypted"] else "clear"
        for name, node in zip(names, inputs, strict=True)
    }
    compiler = fhe.Compiler(function, statuses)
    definition = compiler._module_compiler.functions[FUNCTION]
    sample = tuple(np.zeros(_sample_shape(node), dtype=np.int64) for node in inputs)

    def declare(action: str, inputset: Any, configuration: Any, artifacts: Any) -> None:
        # In place of measuring: see the module's docstring.
        definition.trace(sample, artifacts)
        _declare_bounds(definition.graph, marked)

    definition.evaluate = declare
    configuration = fhe.Configuration(
        p_error=p_error,
        global_p_error=None,
        parameter_selection_strategy="multi",
        # PRECISION_AND_NORM2 partitions are up to a fifth cheaper, but Concrete 2.11's optimizer panics
        # on some circuits with them, and takes the whole process with it.
        multi_parameter_strategy=fhe.MultiParameterStrategy.PRECISION,
        dump_artifacts_on_unexpected_failures=False,
        loop_parallelize=True,
        compress_evaluation_keys=True,
        compress_input_ciphertexts=True,
    )
    try:
        circuit = compiler.compile([sample], configuration)
        server = circuit.server
    except Exception as error:
        raise _no_parameters(program, error) from error
    _clean_up_after(server)
    statistics = dict(circuit.statistics)
    cost = Cost(
        complexity=float(statistics["complexity"]),
        pbs_count=int(statistics["programmable_bootstrap_count"]),
        max_bit_width=max(node.width for node in program.nodes),
        p_error=float(p_error),
        global_p_error=float(statistics["global_p_error"]),
    )
    return ConcreteCircuit(program, server, cost)


def _check_clear(program: Program) -> None:
    """Refuse what Concrete has no operation for: arithmetic on clear values alone.

    Raises:
        CompilationError: names the node.
    """
    clear = {
        id(node)
        for node in program.inputs
        if not node.attributes["encrypted"] and node.op == "input"
    }
    for node in program.nodes:
        if node.inputs and all(id(source) in clear for source in node.inputs):
            raise CompilationError(
                "a clear input is transformed before it meets an encrypted one",
                where=node.where,
                expected="clear inputs that are added to encrypted values or subtracted from them",
                got=f"{node.op} of clear values",
                fix="encrypt that input too (leave out encrypted=), or make it a constant",
            )


def _sample_shape(node: Node) -> tuple[int, ...]:
    return tuple(1 if n == BATCH else n for n in node.shape)


def _said(error: Exception) -> str:
    """What Concrete says, without the stack that it appends."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _no_parameters(program: Program, error: Exception) -> CompilationError:
    looked_up = [node.inputs[0] for node in program.lookups] or list(program.nodes)
    widest = max(looked_up, key=lambda node: node.width)
    return CompilationError(
        f"Concrete cannot compile the circuit: {_said(error)}",
        where=widest.where,
        expected="look-ups of at most 8 bits or so, and small weights",
        got=f"a look-up of {widest.width} bits at the widest place",
        fix="use fewer bits (n_bits), keep fewer in rounding=, or allow a larger p_error",
    )


def _declare_bounds(graph: Any, marked: Mapping[Any, tuple[int, int]]) -> None:
    bounds = {}
    for node in graph.query_nodes(ordered=True):
        if node in marked:
            low, high = marked[node]
        else:
            # Only constants are not marked.
            value = np.asarray(node())
            low, high = int(value.min(initial=0)), int(value.max(initial=0))
        bounds[node] = {"min": np.int64(low), "max": np.int64(high)}
    graph.update_with_bounds(bounds)


def _range(node: Node) -> tuple[int, int]:
    half = 1 << (node.width - 1)
    return (-half, half - 1) if node.signed else (0, 2 * half - 1)


def _function(
    program: Program, names: Sequence[str], fhe: Any
) -> tuple[Callable[..., Any], dict[Any, tuple[int, int]]]:
    """A Python function that Concrete traces, and the ranges of the nodes that it makes."""
    marked: dict[Any, tuple[int, int]] = {}

    def traced(*arguments: Any) -> Any:
        values: dict[int, Any] = {}
        supplied = iter(arguments)
        for node in program.nodes:
            if node.op == "input":
                made = next(supplied)
                marked[made.computation] = _range(node)
            else:
                sources = [_source(values[id(n)], n, node, marked) for n in node.inputs]
                made = _EMITTERS[node.op](fhe, node, sources)
                _mark(made, sources, node, marked)
            values[id(node)] = made
        outputs = [_output(fhe, node, values[id(node)], marked) for node in program.outputs]
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    # Concrete reads the parameters' names and the code's place.
    source = f"def {FUNCTION}({', '.join(names)}):\n    return traced({', '.join(names)})\n"
    scope: dict[str, Any] = {"traced": traced}
    exec(compile(source, __file__, "exec"), scope)
    return scope[FUNCTION], marked


#: Operations that move elements: Concrete wants one type before and after.
_LAYOUT = {"reshape", "transpose", "broadcast", "index", "take", "concatenate", "pad"}


def _source(value: Any, source: Node, node: Node, marked: dict[Any, Any]) -> Any:
    """What ``node`` reads of ``source``: as it is, or in the signedness of what it moves it to."""
    if node.op not in _LAYOUT or source.signed == node.signed:
        return value
    # An encoding is modular, so adding nothing converts it.
    converted = value + np.int64(0)
    marked[converted.computation] = _range(node)
    return converted


def _mark(made: Any, sources: Sequence[Any], node: Node, marked: dict[Any, Any]) -> None:
    """Give every traced node between the sources and the result the range of the result."""
    known = {id(source.computation) for source in sources}
    stack = [made]
    while stack:
        tracer = stack.pop()
        computation = tracer.computation
        if id(computation) in known or computation in marked:
            continue
        # An offset too: declared with bits of its own it would widen all that shares its width.
        if computation.operation.value != "constant" or node.op == "shift":
            low, high = _range(node)
            if node.op == "round":
                low, high = _range(node.inputs[0])
                dropped = node.attributes["dropped"]
                high = ((high + 1) >> dropped << dropped) - (1 << dropped)
            marked[computation] = (low, high)
        stack.extend(tracer.input_tracers)


def _output(fhe: Any, node: Node, value: Any, marked: dict[Any, Any]) -> Any:
    if node.op != "input":
        return value
    # A circuit has to compute something.
    made = fhe.identity(value)
    marked[made.computation] = _range(node)
    return made


def _constant(values: Any) -> Any:
    return np.asarray(values, dtype=np.int64)


def _shape_of(node: Node) -> tuple[int, ...]:
    return _sample_shape(node)


def _emit_shift(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    # Modulo 2^(k + 1), as the circuit computes: the padding bit is one of the k + 1 bits.
    half = 1 << node.width
    return sources[0] + ((_constant(node.attributes["offset"]) + half) % (2 * half) - half)


def _emit_matmul(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    weights = _constant(node.attributes["weights"])
    return weights @ sources[0] if node.attributes["left"] else sources[0] @ weights


def _emit_conv(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    return fhe.conv(
        sources[0],
        _constant(node.attributes["weights"]),
        strides=tuple(node.attributes["strides"]),
        dilations=tuple(node.attributes["dilations"]),
        group=int(node.attributes["group"]),
    )


def _emit_pad(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    shape = _shape_of(node)
    widths = node.attributes["widths"]
    source = _sample_shape(node.inputs[0])
    inside = tuple(slice(b, b + n) for n, (b, _) in zip(source, widths, strict=True))
    padded = fhe.zeros(shape)
    padded[inside] = sources[0]
    # Assignment makes a new tracer, which Concrete follows to from the old one by itself, and marks do not.
    padded = padded.last_version
    border = np.broadcast_to(_constant(node.attributes["value"]), shape).copy()
    border[inside] = 0
    return padded + border if border.any() else padded


def _emit_index(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    # Concrete has neither `...` nor new axes: every axis by itself, then a reshape.
    key = with_batch(node.attributes["key"], 1)
    axes = [part for part in key if part is not None]
    at = axes.index(Ellipsis) if Ellipsis in axes else len(axes)
    before, behind = axes[:at], axes[at + 1 :]
    between = [slice(None)] * (len(node.inputs[0].shape) - len(before) - len(behind))
    picked = sources[0][(*before, *between, *behind)]
    return picked.reshape(_shape_of(node)) if None in key else picked


def _emit_take(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    """Constant indices along one axis: slices where they are regular, joined where they are not."""
    indices, axis = node.attributes["indices"], node.attributes["axis"]
    before = (slice(None),) * axis
    length = _sample_shape(node.inputs[0])[axis]
    flat = [int(i) % length for i in np.reshape(indices, -1)]
    if np.ndim(indices) == 0:
        return sources[0][(*before, flat[0])]
    parts = [sources[0][(*before, slice(i, i + 1))] for i in flat]
    joined = np.concatenate(tuple(parts), axis=axis) if len(parts) > 1 else parts[0]
    return joined.reshape(_shape_of(node))


def _emit_round(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    exact = node.attributes["exact"]
    return fhe.round_bit_pattern(
        sources[0],
        lsbs_to_remove=int(node.attributes["dropped"]),
        overflow_protection=False,
        exactness=fhe.Exactness.EXACT if exact else fhe.Exactness.APPROXIMATE,
    )


def _look_up(key: Any, tables: Array, which: Array, first: int, dropped: int) -> Any:
    """What Concrete evaluates to build its tables: ``key`` is the unshifted, rounded value."""
    index = (np.asarray(key) >> dropped) - first
    return tables[which, np.clip(index, 0, tables.shape[1] - 1)]


def _emit_lookup(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    from concrete.fhe.dtypes import Integer
    from concrete.fhe.representation import Node as Computation
    from concrete.fhe.tracing import Tracer

    (key,) = sources
    source = node.inputs[0]
    output = deepcopy(key.output)
    output.dtype = Integer(is_signed=node.signed, bit_width=node.width)
    tables, which = node.attributes["tables"], node.attributes["which"]
    shape = _shape_of(node)
    many = len(tables) > 1
    which = np.ascontiguousarray(np.broadcast_to(which, shape)) if many else np.asarray(0)
    computation = Computation.generic(
        "tlu",
        [deepcopy(key.output)],
        output,
        _look_up,
        kwargs={
            "tables": tables,
            "which": which,
            "first": int(node.attributes["first"]),
            "dropped": int(source.attributes["dropped"]) if source.op == "round" else 0,
        },
    )
    return Tracer(computation, [key])


_EMITTERS: dict[str, Callable[[Any, Node, Sequence[Any]], Any]] = {
    "add": lambda fhe, node, sources: sources[0] + sources[1],
    "subtract": lambda fhe, node, sources: sources[0] - sources[1],
    "negative": lambda fhe, node, sources: -sources[0],
    "shift": _emit_shift,
    "scale": lambda fhe, node, sources: sources[0] * _constant(node.attributes["factor"]),
    "matmul": _emit_matmul,
    "conv": _emit_conv,
    "sum": lambda fhe, node, sources: np.sum(
        sources[0], axis=node.attributes["axes"], keepdims=node.attributes["keepdims"]
    ),
    "reshape": lambda fhe, node, sources: sources[0].reshape(_shape_of(node)),
    "transpose": lambda fhe, node, sources: np.transpose(sources[0], node.attributes["axes"]),
    "broadcast": lambda fhe, node, sources: np.broadcast_to(sources[0], _shape_of(node)),
    "index": _emit_index,
    "take": _emit_take,
    "concatenate": lambda fhe, node, sources: np.concatenate(
        tuple(sources), axis=node.attributes["axis"]
    ),
    "pad": _emit_pad,
    "round": _emit_round,
    "lookup": _emit_lookup,
}


# -- running


class ConcreteCircuit:
    """A compiled program with the keys of this process, made on first use.

    Attributes:
        cost: see ``Cost``.
    """

    def __init__(self, program: Program, server: Any, cost: Cost) -> None:
        self.program = program
        self.cost = cost
        self.server = server
        self._keys: ClientKeys | None = None

    @property
    def specs(self) -> bytes:
        """What a client needs to make keys, encrypt and decrypt."""
        specs: bytes = self.server.client_specs.serialize()
        return specs

    def archive(self) -> bytes:
        """The circuit as a zip archive."""
        return server_to_bytes(self.server)

    def execute(self, inputs: Mapping[str, Array], progress: Progress) -> list[Array]:
        """Encrypt, run and decrypt, a sample at a time. Integers in, integers out."""
        if self._keys is None:
            keys = ClientKeys(self.specs)
            with progress.stage("generating keys"):
                keys.generate()
            self._keys = keys
        names = [node.name for node in self.program.inputs]
        shapes = [_sample_shape(node) for node in self.program.inputs]
        count = len(next(iter(inputs.values())))
        rows: list[list[Array]] = []
        with progress.stage("encrypted inference", total=count) as advance:
            for i in range(count):
                sample = [
                    np.reshape(inputs[name][i], shape)
                    for name, shape in zip(names, shapes, strict=True)
                ]
                values = self._keys.encrypt(sample)
                results = run_server(self.server, values, self._keys.evaluation)
                rows.append(self._keys.decrypt(results))
                advance(1)
        return [
            np.concatenate(
                [np.reshape(row[i], _sample_shape(node)) for row in rows],
                axis=node.shape.index(BATCH),
            )
            - offset
            for i, (node, offset) in enumerate(
                zip(self.program.outputs, self.program.offsets, strict=True)
            )
        ]


class ClientKeys:
    """The keys of one client, and what they do. Made from client specs alone."""

    def __init__(self, specs: bytes) -> None:
        fhe = concrete()
        try:
            self.client = fhe.Client(fhe.ClientSpecs.deserialize(specs))
        except Exception as error:
            raise ArtifactError(
                f"the client's specification cannot be read: {_said(error)}",
                fix="save the model again",
            ) from error

    def generate(self) -> None:
        """New secret keys, from the operating system's randomness."""
        self.client.keygen(
            force=True,
            secret_seed=secrets.randbits(128),
            encryption_seed=secrets.randbits(128),
        )

    def load(self, data: bytes) -> None:
        """Keys that ``serialize`` gave."""
        fhe = concrete()
        try:
            keys = fhe.Keys.deserialize(data)
        except Exception as error:
            raise InputError(
                f"these are no keys: {_said(error)}", fix="give the secret_keys of a client"
            ) from error
        self.client._keys = keys

    def serialize(self) -> bytes:
        data: bytes = self.client.keys.serialize()
        return data

    @property
    def generated(self) -> bool:
        return bool(self.client.keys.are_generated)

    @property
    def evaluation(self) -> Any:
        return self.client.evaluation_keys

    def encrypt(self, sample: Sequence[Array]) -> list[Any]:
        values = self.client.encrypt(*sample)
        return list(values) if isinstance(values, tuple) else [values]

    def decrypt(self, values: Sequence[Any]) -> list[Array]:
        """The integers in an inference's results.

        Raises:
            InputError: the values are no results of this circuit.
        """
        try:
            results = self.client.decrypt(*values)
        except Exception as error:
            raise InputError(
                f"these results cannot be decrypted: {_said(error)}",
                expected="what the server of the same model returned",
                fix="use the client and the server that were saved together",
            ) from error
        parts = results if isinstance(results, tuple) else (results,)
        return [np.asarray(part, dtype=np.int64) for part in parts]


def run_server(server: Any, values: Sequence[Any], evaluation_keys: Any) -> list[Any]:
    """One encrypted inference: ciphertexts to ciphertexts.

    Raises:
        InputError: the values are no inputs of this circuit.
    """
    try:
        results = server.run(*values, evaluation_keys=evaluation_keys)
    except Exception as error:
        raise InputError(
            f"the circuit cannot run on these ciphertexts: {_said(error)}",
            expected="what a client of the same model encrypted",
            fix="use the client and the server that were saved together",
        ) from error
    return list(results) if isinstance(results, tuple) else [results]


# -- bytes


def value_to_bytes(value: Any) -> bytes:
    data: bytes = value.serialize()
    return data


def value_from_bytes(data: bytes) -> Any:
    """A ciphertext from its bytes.

    Raises:
        InputError: it is none.
    """
    fhe = concrete()
    try:
        return fhe.Value.deserialize(data)
    except Exception as error:
        raise InputError(
            f"these bytes are no ciphertext: {_said(error)}",
            fix="give what encrypt() or run() returned",
        ) from error


def evaluation_keys_to_bytes(keys: Any) -> bytes:
    data: bytes = keys.serialize()
    return data


def evaluation_keys_from_bytes(data: bytes) -> Any:
    """Evaluation keys from their bytes.

    Raises:
        InputError: they are none.
    """
    fhe = concrete()
    try:
        return fhe.EvaluationKeys.deserialize(data)
    except Exception as error:
        raise InputError(
            f"these bytes are no evaluation keys: {_said(error)}",
            fix="give the client's evaluation_keys",
        ) from error


def server_to_bytes(server: Any) -> bytes:
    """The circuit's archive: a zip with the shared library that runs it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "circuit.zip"
        server.save(str(place))
        return place.read_bytes()


def server_from_bytes(archive: bytes) -> Any:
    """The circuit of an archive. It holds native code: verify where it comes from first.

    Raises:
        ArtifactError: it cannot be loaded.
    """
    fhe = concrete()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "circuit.zip"
        place.write_bytes(archive)
        try:
            server = fhe.Server.load(str(place))
        except Exception as error:
            raise ArtifactError(
                f"the circuit cannot be loaded: {_said(error)}",
                fix="save the model again on this kind of machine",
            ) from error
    _clean_up_after(server)
    return server


def _clean_up_after(server: Any) -> None:
    """Remove the folder that Concrete unpacks a circuit into, when the circuit goes."""
    folder = str(server._library.get_output_dir_path())
    weakref.finalize(server, shutil.rmtree, folder, ignore_errors=True)
