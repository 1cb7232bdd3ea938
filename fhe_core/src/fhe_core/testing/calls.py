"""A node and its inputs: what the checks run, here and in ``onnx.reference``."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fhe_core.graph.model import load_model
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.steps import Step
from fhe_core.registry import OpSpec, Registry
from fhe_core.registry.schema import OpSchema, history, newest_opset, schema_at
from fhe_core.testing.onnx_cases import NodeCase, cases_of
from fhe_core.testing.sample import Sample
from fhe_core.testing.subject import Subject

# An op without inputs still needs a model with one.
_UNUSED = {"unused": np.zeros(1, np.float32)}


class NotJudged(Exception):
    """ONNX has no answer to a call; the text says why."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operator, as a model of one node.

    Attributes:
        node: with its attributes; the names of its inputs and outputs are kept.
        opset: of the node's domain.
        inputs: arrays in the order of the node's inputs, None for one that is left out.
        expected: the results, None for one that the node does not ask for; None if nobody knows.
        name: for messages.
        rtol, atol: how far results may be from the expected ones; ONNX's for its own cases.
    """

    node: onnx.NodeProto
    opset: int
    inputs: tuple[Any, ...]
    expected: tuple[Any, ...] | None = None
    name: str = ""
    rtol: float = 1e-3
    atol: float = 1e-6

    @classmethod
    def of_case(cls, case: NodeCase) -> Call:
        """The call that one of ONNX's own cases makes, at the case's opset."""
        return cls(
            case.node, case.opset, case.inputs, case.outputs, case.name, case.rtol, case.atol
        )

    @classmethod
    def of_sample(cls, sample: Sample, spec: OpSpec) -> Call:
        """The call of an author's sample."""
        names = [f"x{i}" if value is not None else "" for i, value in enumerate(sample.inputs)]
        node = helper.make_node(
            spec.op_type,
            names,
            [f"y{i}" for i in range(sample.outputs)],
            domain=spec.domain,
            **sample.attributes,
        )
        inputs = tuple(None if value is None else _locked(value) for value in sample.inputs)
        opset = sample.opset or spec.since_version
        return cls(node, opset, inputs, sample.expected, sample.name)

    @property
    def given(self) -> dict[str, Any]:
        """The arrays by the name of the node's input, without those left out."""
        pairs = zip(self.node.input, self.inputs, strict=False)
        return {name: value for name, value in pairs if name and value is not None}

    @property
    def fed(self) -> dict[str, Any]:
        """What a model of this call is fed: ``given``, or something, as a model has an input."""
        return self.given or _UNUSED

    @property
    def attributes(self) -> dict[str, Any]:
        """The node's attributes as Python values."""
        return {entry.name: helper.get_attribute_value(entry) for entry in self.node.attribute}

    @property
    def schema(self) -> OpSchema | None:
        """The version of the op that the opset means; None where ONNX has none."""
        return schema_at(self.node.domain, self.node.op_type, self.opset)

    def at(self, opset: int) -> Call:
        """The same call in a model of another opset."""
        return replace(self, opset=opset)

    def on(self, *inputs: Any) -> Call:
        """The same call on other arrays, of which nobody knows the results."""
        return replace(self, inputs=inputs, expected=None)

    def model(self, constants: Collection[str] = ()) -> onnx.ModelProto:
        """A model of this node alone; the inputs named in ``constants`` are its initializers."""
        outputs = [helper.make_empty_tensor_value_info(name) for name in self.node.output if name]
        initializers = [
            numpy_helper.from_array(value, name)
            for name, value in self.given.items()
            if name in constants
        ]
        graph = helper.make_graph(
            [self.node], "one_node", self.declared(constants), outputs, initializers
        )
        opset = helper.make_opsetid(self.node.domain, self.opset)
        model = helper.make_model(graph, opset_imports=[opset])
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for output in model.graph.output:
            if not output.type.WhichOneof("value"):  # an op that ONNX does not know
                output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        return model

    def declared(self, constants: Collection[str] = ()) -> list[onnx.ValueInfoProto]:
        """The inputs of the model, of which it has at least one."""
        given = {name: value for name, value in self.given.items() if name not in constants}
        return [
            helper.make_tensor_value_info(name, _element_type(value), value.shape)
            for name, value in (given or _UNUSED).items()
        ]

    def run(self, registry: Registry) -> tuple[Any, ...]:
        """What the registered function answers, one array for each output that the node has."""
        module = NumpyModule(self.model(), registry=registry)
        return tuple(module.run(self.fed).values())

    def step(self, registry: Registry) -> Step:
        """The node with its function and the arguments by name, to call the function directly."""
        (step,) = NumpyModule(self.model(), registry=registry).steps
        return step

    def reference(self) -> tuple[Any, ...]:
        """What ``onnx.reference`` answers.

        Raises:
            NotJudged: it fails, or implements another version of the op than this opset means.
        """
        from onnx.reference import ReferenceEvaluator

        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                evaluator = ReferenceEvaluator(self.model())
                self._check_version(evaluator.rt_nodes_[0])
                results = evaluator.run(None, {k: v.copy() for k, v in self.given.items()})
        except NotJudged:
            raise
        except Exception as error:
            raise NotJudged(f"onnx.reference: {_one_line(error)}") from error
        return tuple(np.asarray(result) for result in results)

    def _check_version(self, implementation: object) -> None:
        """Passes what implements this version of the op.

        ``onnx.reference`` runs older models with what it has, Softmax-1 with Softmax-13. A class
        named after a version is meant for it, and an op's function is the version's own; the other
        classes implement the newest, which an older one may agree with.
        """
        name = type(implementation).__name__
        if name == "OpFunction" or name.rpartition("_")[2].isdigit():
            return
        own = self.schema
        versions = history(self.node.domain, self.node.op_type)
        if own is not None and not _extends(versions[-1], own):
            raise NotJudged(f"onnx.reference has {versions[-1]} alone, not {own}")

    def inferred(self) -> tuple[tuple[Any, tuple[int | None, ...] | None], ...]:
        """Type and shape of each output as ONNX's inference says; None for what it leaves open.

        Raises:
            NotJudged: the node does not take arrays of these types or shapes.
        """
        # Whole numbers decide shapes: those of Reshape, the axes of a reduction.
        constants = [n for n, value in self.given.items() if value.dtype.kind in "iu"]
        try:
            load_model(self.model())  # which inference would crash on if it were none
            inferred = onnx.shape_inference.infer_shapes(
                self.model(constants), check_type=True, strict_mode=True, data_prop=True
            )
        except Exception as error:
            raise NotJudged(f"ONNX refuses it: {_one_line(error)}") from error
        return tuple(_type_and_shape(info) for info in inferred.graph.output)


def calls_of(subject: Subject) -> tuple[Call, ...]:
    """ONNX's own calls of an operator at the newest opset that the pack serves, then its samples."""
    return (*onnx_calls(subject), *sample_calls(subject))


def onnx_calls(subject: Subject) -> tuple[Call, ...]:
    """ONNX's own calls of an operator that the pack serves.

    At the newest opset; a case of an older version of the op stays at its own.
    """
    spec = subject.rows[-1]
    newest = schema_at(spec.domain, spec.op_type, subject.opset)
    calls = (Call.of_case(case) for case in cases_of(spec.op_type, spec.domain))
    placed = [call.at(subject.opset) if call.schema == newest else call for call in calls]
    return tuple(call for call in placed if _serves(subject, call))


def _serves(subject: Subject, call: Call) -> bool:
    return any(
        row.serves(call.opset) and row.impl_pack == subject.pack.name for row in subject.rows
    )


def sample_calls(subject: Subject) -> tuple[Call, ...]:
    """The calls of the author's samples."""
    return tuple(Call.of_sample(sample, subject.rows[-1]) for sample in subject.samples)


def is_known(subject: Subject) -> bool:
    """Whether ONNX itself defines the operator."""
    return newest_opset(subject.rows[-1].domain) is not None


def _locked(value: Any) -> np.ndarray:
    """The array itself, not to be written to: the next test reads it too."""
    array = np.asarray(value).view()
    array.setflags(write=False)
    return array


def _extends(newer: OpSchema, older: OpSchema) -> bool:
    """Whether ``newer`` is ``older`` with more optional inputs and attributes, nothing else."""
    known = {name: newer.attributes.get(name) for name in older.attributes}
    more = newer.inputs[len(older.inputs) :]
    return (
        known == dict(older.attributes)
        and [p.kind for p in newer.inputs[: len(older.inputs)]] == [p.kind for p in older.inputs]
        and all(parameter.kind == "optional" for parameter in more)
    )


def _element_type(value: Any) -> int:
    if value.dtype.kind in "OUS":
        return int(onnx.TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(value.dtype))


def _type_and_shape(info: onnx.ValueInfoProto) -> tuple[Any, tuple[int | None, ...] | None]:
    tensor = info.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return dtype, None
    dims = (dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return dtype, tuple(dims)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"
