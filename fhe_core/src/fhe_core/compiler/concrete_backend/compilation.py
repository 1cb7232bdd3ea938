"""Compiles integer programs to circuits, and says what one costs."""

from __future__ import annotations

from typing import Any

import numpy as np

from fhe_core.compiler.concrete_backend.circuit import ConcreteCircuit
from fhe_core.compiler.concrete_backend.emission import (
    FUNCTION,
    declare_bounds,
    function,
    sample_shape,
)
from fhe_core.compiler.concrete_backend.installation import concrete, said
from fhe_core.compiler.concrete_backend.native import made_folders, native
from fhe_core.errors import CompilationError
from fhe_core.program.narrowing import accumulator_name, narrower
from fhe_core.program.program import Program
from fhe_core.quantization.module import Cost


def compile_program(program: Program, p_error: float) -> ConcreteCircuit:
    """Compile a program.

    Raises:
        CompilationError: Concrete has no parameters for it; names the widest node.
    """
    fhe = concrete()
    inputs = program.inputs
    names = [f"x{i}" for i in range(len(inputs))]
    traced, marked = function(program, names, fhe)
    statuses = {
        name: "encrypted" if node.attributes["encrypted"] else "clear"
        for name, node in zip(names, inputs, strict=True)
    }
    compiler = fhe.Compiler(traced, statuses)
    definition = compiler._module_compiler.functions[FUNCTION]
    sample = tuple(np.zeros(sample_shape(node), dtype=np.int64) for node in inputs)

    def declare(action: str, inputset: Any, configuration: Any, artifacts: Any) -> None:
        # In place of measuring: see `emission`.
        definition.trace(sample, artifacts)
        declare_bounds(definition.graph, marked)

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
    with native(), made_folders() as made:
        try:
            circuit = compiler.compile([sample], configuration)
            server = circuit.server
        except Exception as error:
            raise _no_parameters(program, error) from error
        made.belong_to(server)
    statistics = dict(circuit.statistics)
    cost = Cost(
        complexity=float(statistics["complexity"]),
        pbs_count=int(statistics["programmable_bootstrap_count"]),
        max_bit_width=max(node.width for node in program.nodes),
        p_error=float(p_error),
        global_p_error=float(statistics["global_p_error"]),
    )
    return ConcreteCircuit(program, server, cost)


def _no_parameters(program: Program, error: Exception) -> CompilationError:
    """What is said where Concrete fails: it is the widest look-up that parameters are hardest to find for."""
    looked_up = [node.inputs[0] for node in program.lookups] or list(program.nodes)
    widest = max(looked_up, key=lambda node: node.width)
    name, full = accumulator_name(widest), widest
    while full.op == "round":
        (full,) = full.inputs
    fewer = {name: max(1, widest.width - 1)}
    ways = [
        f"keep fewer of its bits: rounding={fewer}",
        narrower(widest),
        "allow a larger p_error",
    ]
    return CompilationError(
        f"Concrete cannot compile the circuit: {said(error)}",
        where=widest.where,
        expected="look-ups of at most 8 bits or so, and small weights",
        got=f"at the widest place a look-up of {widest.width} bits, of the {full.width} bits of {name!r}",
        fix="; or ".join(filter(None, ways)),
    )
