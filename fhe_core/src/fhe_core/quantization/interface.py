"""What a model's opset, inputs and outputs have to be, that it can be encrypted."""

from __future__ import annotations

from fhe_core.errors import CompilationError, FheError, UnsupportedOpError, Where
from fhe_core.graph.ir import Graph, ValueInfo
from fhe_core.graph.validity import NEWEST_OPSET, OLDEST_COMPILED_OPSET


def interface_errors(graph: Graph) -> list[FheError]:
    """Everything about a simplified graph's opset, inputs and outputs that keeps it from compiling."""
    return [*_opset_errors(graph), *_input_errors(graph), *_output_errors(graph)]


def _opset_errors(graph: Graph) -> list[FheError]:
    opset = graph.opsets.get("", OLDEST_COMPILED_OPSET)
    if opset >= OLDEST_COMPILED_OPSET:
        return []
    first = next((node.where() for node in graph.nodes if not node.domain), None)
    return [
        UnsupportedOpError(
            f"opset {opset} runs in float but does not compile",
            where=first,
            expected=f"opset {OLDEST_COMPILED_OPSET} or newer",
            got=f"opset {opset}",
            fix=f"export the model with an opset from {OLDEST_COMPILED_OPSET} to {NEWEST_OPSET}",
        )
    ]


def _input_errors(graph: Graph) -> list[FheError]:
    """What keeps inputs from being encrypted: a circuit has tensors of fixed shapes."""
    errors: list[FheError] = []
    if not graph.inputs:
        errors.append(
            CompilationError(
                "the model has no graph inputs, and so nothing to encrypt",
                fix="export the model with its data as inputs",
            )
        )
    for info in graph.inputs:
        if info.dtype is None:
            errors.append(_text_error(info, graph))
            continue
        if info.dtype.kind not in "fiub":
            reason = "encrypted inputs must be numeric, of a type of NumPy's own"
            fix = "export the model with a float32 or integer input"
        elif not info.shape:
            reason = "encrypted inputs must have a batch dimension"
            fix = "export the model with the input's shape, its first dimension the batch"
        elif not all(isinstance(size, int) for size in info.shape[1:]):
            reason = "encrypted inputs must have fixed dimensions, the batch aside"
            fix = "export the model with a number for each dimension but the first"
        else:
            continue
        errors.append(CompilationError(f"input {info.name!r} is {info}: {reason}", fix=fix))
    return errors


def _text_error(info: ValueInfo, graph: Graph) -> FheError:
    """What is said of an input of text: categories are for the client to number."""
    reader = next((node for node in graph.nodes if info.name in node.reads), None)
    sizes = ", ".join("?" if size is None else str(size) for size in info.shape or ())
    what = "text, or a map" if info.shape is None else f"text[{sizes}]"
    encoder = f", as {reader.name!r} ({reader.op_type}) does in the model" if reader else ""
    return CompilationError(
        f"input {info.name!r} is {what}: encrypted inputs must be numeric",
        fix=f"number the categories before the model{encoder}, and export it from there on with an "
        "int64 input",
    )


def _output_errors(graph: Graph) -> list[FheError]:
    return [
        CompilationError(
            f"the output {name!r} is constant, so there is nothing to decrypt",
            where=Where(node=name),
            fix="remove that output from the model, or check that it depends on the inputs",
        )
        for name in graph.output_names
        if name in graph.constants
    ]
