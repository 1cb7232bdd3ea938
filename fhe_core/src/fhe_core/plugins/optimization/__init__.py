"""Optimisation passes over integer programs: a finished program need not compute all that was recorded.

    constant folding                    look-ups with one answer for every input
    affine look-up folding              look-ups that an unrounded accumulator can do without
    dead-code elimination               look-ups that no output depends on
    common-subexpression elimination    equal look-ups, exact roundings and products, computed once and copied
    dead-channel elimination            outputs of products that nothing reads
    dead-neuron pruning                 look-ups with one answer on the calibration data       (not exact)
    negacyclic look-up                  look-ups of half a table: nothing to do, they were planned so

Layout moves past a look-up when it is recorded, to the side that has fewer elements. What a look-up reads
of copies, or what is dropped behind it, is found here: copies are equal, dropped is unread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fhe_core

# Each pass is imported when it first runs: whoever lists operators pays for none of them.
if TYPE_CHECKING:
    from fhe_core.program.pipeline import PassContext
    from fhe_core.program.program import Program
    from fhe_core.program.remarks import Remark

    Result = tuple[Program, list[Remark]]


@fhe_core.hookimpl
def fhe_register_passes(passes: Any) -> None:
    for each in (fold_constants, share_nodes, share_elements, eliminate_dead_channels):
        passes.add_program(each, stage="exact")
    passes.add_program(prune_dead_neurons, stage="calibrated")
    passes.add_program(remark_negacyclic_lookups, stage="final")


def fold_constants(program: Program, context: PassContext) -> Result:
    from fhe_core.plugins.optimization.constant_folding import without_known_answers

    return without_known_answers(program)


def share_nodes(program: Program, context: PassContext) -> Result:
    from fhe_core.plugins.optimization.common_subexpressions import shared_nodes

    return shared_nodes(program)


def share_elements(program: Program, context: PassContext) -> Result:
    from fhe_core.plugins.optimization.common_subexpressions import shared_elements

    return shared_elements(program)


def eliminate_dead_channels(program: Program, context: PassContext) -> Result:
    from fhe_core.plugins.optimization.dead_channels import without_dead_channels

    return without_dead_channels(program)


def prune_dead_neurons(program: Program, context: PassContext) -> Result:
    from fhe_core.plugins.optimization.dead_neurons import without_dead_neurons

    return without_dead_neurons(program, context.samples)


def remark_negacyclic_lookups(program: Program, context: PassContext) -> Result:
    from fhe_core.plugins.optimization.negacyclic import remarks

    return program, remarks(program)
