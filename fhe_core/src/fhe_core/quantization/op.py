"""``QuantizedOp``: the base of all quantized operators.

A subclass names the ONNX op whose NumPy implementation it stands for; inputs, optional inputs and
attributes follow from that function's signature. Three cases:

1. the op is a function of each element: nothing more is needed;
2. it works on integers: override ``q_impl``;
3. it does one or the other, by its place in the graph: override ``can_fuse`` too, and ask it in ``q_impl``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError, SignatureError, Where
from fhe_core.program.batch import Sized
from fhe_core.program.tensor import Tensor, call, of_size
from fhe_core.quantization.array import QuantizedArray
from fhe_core.quantization.plan import Plan
from fhe_core.quantization.quantizers import (
    QuantizationOptions,
    QuantizationParameters,
    QuantizationStats,
)
from fhe_core.registry import OpSignature
from fhe_core.registry.stateful import as_function


@dataclass(frozen=True)
class WeightChannels:
    """An op's freedom to scale its accumulators: one scale for each output channel of its weights.

    Attributes:
        index: which input the weights are.
        weight_axis: the axis of the weights that counts output channels.
        output_axis: the same axis in the accumulator.
        bias: which input is added to each output channel as it is, if one is.
    """

    index: int
    weight_axis: int
    output_axis: int
    bias: int | None = None


@functools.lru_cache(maxsize=1024)
def _signature(function: Callable[..., Any]) -> OpSignature:
    """The function's signature, which reading takes longer than all else about a node."""
    return OpSignature.from_callable(function)


class QuantizedOp:
    """One operator of a quantized graph.

    Args:
        n_bits: width of the op's output when it is quantized.
        op_instance_name: the ONNX node's name, for errors and for the plan.
        int_input_names: the unique integer tensors that its variable inputs are computed from.
        constant_inputs: arrays of the inputs that are constant, by position.
        input_quant_opts: how its output is quantized where no plan says more.
        plan: the plan of the whole graph, or None outside of one.
        input_names, output_names: ONNX names, the keys of the plan.
        where: the place that errors name.
        impl: the NumPy implementation, where the class has none of its own.
        attrs: the node's attributes.

    Raises:
        SignatureError: there is no implementation, or an attribute that it does not have.
    """

    #: The ONNX op that this class quantizes.
    _impl_for_op_named: ClassVar[str] = ""
    #: An implementation to use instead of the registered one.
    impl: ClassVar[Callable[..., Any] | None] = None

    #: Positions of the inputs that may be encrypted, the others being constants of the model; None: all may.
    encryptable: ClassVar[tuple[int, ...] | None] = None

    # What the planner may do around this op.
    #: All encrypted inputs are to be quantized with one scale, and the result has it too.
    shares_scale: ClassVar[bool] = False
    #: Of an op that shares a scale: the result consists of elements of the inputs. Where all of them are
    #: computed before encryption, and no weights of their own take up its units, it is computed there too.
    joins_elements: ClassVar[bool] = False
    #: Of an op that shares a scale: what an input is beyond the range of the result does not matter.
    saturates_inputs: ClassVar[bool] = False
    #: The result consists of elements of the input: it keeps the input's scale.
    keeps_scale: ClassVar[bool] = False
    #: The result follows from the shapes of the inputs alone, whatever is in them.
    reads_shapes: ClassVar[bool] = False
    #: After the last integer arithmetic it runs on the client, in float, unless all is to stay on the server.
    shapes_outputs: ClassVar[bool] = False
    #: It turns model inputs into integers in a way of its own: they come as real values, of any size.
    encodes_inputs: ClassVar[bool] = False

    def __init__(
        self,
        n_bits: int,
        op_instance_name: str = "",
        int_input_names: set[str] | None = None,
        constant_inputs: Mapping[int, Any] | None = None,
        input_quant_opts: QuantizationOptions | None = None,
        *,
        plan: Plan | None = None,
        input_names: Sequence[str] = (),
        output_names: Sequence[str] = (),
        where: Where | None = None,
        impl: Callable[..., Any] | None = None,
        **attrs: Any,
    ) -> None:
        self.n_bits = n_bits
        #: ``minimal`` where the client is to learn as little as possible of the model; else ``any``.
        self.client_side = "any"
        #: The constants that depend on the size of the batch, by the ``id`` of their array.
        self.sized: Mapping[int, Sized] = {}
        #: What the user should know of this op's quantized form, a sentence each; set by ``q_impl``.
        self.notices: tuple[str, ...] = ()
        self.op_instance_name = op_instance_name
        self._int_input_names = set(int_input_names or ())
        self.constant_inputs = dict(constant_inputs or {})
        self.input_quant_opts = input_quant_opts or QuantizationOptions(n_bits)
        self.plan = plan
        self.input_names = tuple(input_names)
        self.output_names = tuple(output_names)
        #: Element types of the inputs in the float model; empty until calibration has seen them.
        self.input_types: tuple[np.dtype[Any] | None, ...] = ()
        #: Beyond these ends the values of its result make no difference to what reads it.
        self.result_ends: tuple[float, float] = (-np.inf, np.inf)
        self.where = where or Where(node=op_instance_name or None, op=self._impl_for_op_named)
        # `type(self).impl`: a function in a class body must not become a bound method.
        self._function = as_function(type(self).impl or impl or self._registered())
        self.signature = _signature(self._function)
        unknown = sorted(set(attrs) - set(self.signature.attributes))
        if unknown:
            raise SignatureError(
                f"unknown attributes {', '.join(unknown)}",
                where=self.where,
                expected=", ".join(self.signature.attributes) or "no attributes",
                got=", ".join(unknown),
                fix="remove them, or add them to the implementation's signature after `*`",
            )
        self.attrs = {**self.signature.attributes, **attrs}
        #: The first output's parameters as they were handed out: see ``as_output``.
        self._first: list[QuantizationParameters | None] = []

    def _registered(self) -> Callable[..., Any]:
        from fhe_core.registry import get_registry

        specs = [s for s in get_registry().ops() if s.op_type == self._impl_for_op_named and s.impl]
        if not specs:
            raise SignatureError(
                f"{type(self).__name__} has no implementation",
                where=self.where,
                expected="a registered NumPy implementation of its _impl_for_op_named, or `impl`",
                fix="install the pack that has it, or set `impl` in the class",
            )
        newest: Callable[..., Any] = max(specs, key=lambda s: s.since_version).impl  # type: ignore[assignment]
        return newest

    # -- metadata

    @property
    def _params_name_to_input_idx(self) -> dict[str, int]:
        """Position of each input by the name of its parameter."""
        return {name: i for i, name in enumerate(self.signature.input_names)}

    @property
    def _authorized_attr_names(self) -> set[str]:
        return set(self.signature.attributes)

    @property
    def _default_attrs(self) -> dict[str, Any]:
        return dict(self.signature.attributes)

    @classmethod
    def fusion(cls) -> str:
        """``always``, ``never`` or ``conditional``: what ``can_fuse`` may answer."""
        if cls.can_fuse is not QuantizedOp.can_fuse:
            return "conditional"
        return "always" if cls.q_impl is QuantizedOp.q_impl else "never"

    @property
    def output_quant_params(self) -> QuantizationParameters | None:
        """Scale and zero point of the (first) output, as the plan has them."""
        return self.output_params(0)

    @property
    def output_quant_stats(self) -> QuantizationStats | None:
        """The calibrated range of the (first) output; None outside of a plan."""
        return self._output_stats(0)

    def _output_stats(self, index: int) -> QuantizationStats | None:
        if self.plan is None or index >= len(self.output_names):
            return None
        return self.plan.stats.get(self.output_names[index])

    def output_params(self, index: int) -> QuantizationParameters | None:
        """Scale and zero point of one output, as the plan has them, or as the op itself fixes them."""
        if self.plan is None or index >= len(self.output_names):
            return self.output_quantization(index)
        tensor = self.plan.tensors.get(self.output_names[index])
        parameters = tensor.parameters if tensor else None
        if index == 0:
            self._first.append(parameters)
        return parameters

    # -- what the planner may ask

    def weight_channels(self) -> WeightChannels | None:
        """Where this op's weights have a scale for each output channel; None where they have not."""
        return None

    def output_quantization(self, index: int = 0) -> QuantizationParameters | None:
        """Scale, zero point and integers that this node itself fixes for an output, all scalars.

        For ops that quantize, as models trained for integers have them: every real value of the output is
        to be one of ``scale * (integer - zero_point)``, with ``low <= integer <= high``. The plan then
        keeps these numbers, and neither calibration nor ``n_bits`` has a say. In a model with such an op
        the plan also keeps the scales on which constant weights lie. None: the planner decides.
        """
        return None

    def reads_exactly(self, index: int) -> bool:
        """Whether this node compares an input with others, or looks it up, and never measures it.

        Of numbers such as categories: one beyond the calibrated range is not the nearest one within. Where
        the client computes this op, before it encrypts, that input is not confined to its range.
        """
        return False

    def told_apart(self, index: int) -> Any:
        """Values of an input that is read exactly of which this node makes different things: an array, or None.

        Such as the categories of an encoder, or the constants of a comparison. Those that calibration did not
        see are tried on the client's part of the model, so that the plan has room for what becomes of them.
        """
        return None

    # -- what the outputs mean, for whoever scores them

    def class_axis(self, shape: tuple[int, ...]) -> int | None:
        """The axis of the first input along which elements are scores of classes, the largest the answer.

        For ops that turn scores into a decision or into probabilities, as ArgMax and Softmax do. None: there is
        no such axis.

        Args:
            shape: of that input, with the batch dimension 1.
        """
        return None

    def class_labels(self) -> Sequence[Any] | None:
        """What the op calls its classes, in the order of their scores; None where it names none.

        Outputs that are no floats are then such names, and float outputs, or where there are none the input,
        have a score for each class in their last axis.
        """
        return None

    def gives_whole_numbers(self, whole: Sequence[bool]) -> bool:
        """Whether the results are whole numbers for any input, though they may be floats.

        Args:
            whole: of each input, whether it consists of these.
        """
        return False

    def reach(self, x: NDArray[Any]) -> tuple[float, float]:
        """The ends beyond which the values of this op's only encrypted input make no difference to the result.

        Asked once, before ranges are chosen, which then leave out what lies beyond.

        Args:
            x: its values in the float model on some samples, infinities among them.
        """
        return -np.inf, np.inf

    def input_ends(
        self, index: int, result: tuple[float, float], ranges: Sequence[tuple[float, float]]
    ) -> tuple[float, float]:
        """The ends beyond which an input makes no difference, if the result does not beyond its own.

        Args:
            index: of the input.
            result: the ends of the result.
            ranges: the least and the greatest of the finite values of each input, in the float model.
        """
        return -np.inf, np.inf

    # -- fusion

    def can_fuse(self) -> bool:
        """Whether this op, here, is a function of each element of one integer tensor.

        Asked when the producers of the inputs are known. Ops with a ``q_impl`` of their own and no answer
        of their own do not fuse.
        """
        return type(self).q_impl is QuantizedOp.q_impl

    # -- computation

    def __call__(self, *q_inputs: QuantizedArray) -> Any:
        """``q_impl`` with this node's attributes.

        Raises:
            CompilationError: an input is encrypted that has to be constant.
        """
        self.require_constants(isinstance(array.values, Tensor) for array in q_inputs)
        self._first.clear()
        return self.q_impl(*q_inputs, **self.attrs)

    def require_constants(self, encrypted: Iterable[bool]) -> None:
        """Refuses encrypted inputs that are not ``encryptable``.

        Args:
            encrypted: of each input that is not constant, in order; False for what shapes alone decide.

        Raises:
            CompilationError: names the first.
        """
        if self.encryptable is None:
            return
        for index, is_encrypted in zip(self._variable_positions(), encrypted, strict=False):
            if is_encrypted and index not in self.encryptable:
                name = self.input_name(index)
                may_be = ", ".join(map(self.input_name, self.encryptable))
                raise CompilationError(
                    f"the input {name!r} is encrypted, and has to be a constant here",
                    where=self.where,
                    expected=f"encrypted values in {may_be or 'no input'} alone",
                    got=f"{name!r} that is an input of the model, or computed from one",
                    fix=f"make {name!r} a constant of the model, or compute it before encryption",
                )

    def _variable_positions(self) -> Iterator[int]:
        """The places of the inputs that are not constant."""
        count = len(self.input_names) or len(self.signature.input_names)
        left_out = {i for i, name in enumerate(self.input_names) if not name}
        return (i for i in range(count) if i not in self.constant_inputs and i not in left_out)

    def input_name(self, index: int) -> str:
        """What the op's signature calls an input."""
        names = self.signature.input_names
        return (
            names[index] if index < len(names) else f"{self.signature.variadic or 'input'} {index}"
        )

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        """The op on quantized inputs: by default the NumPy implementation on real values.

        Args:
            q_inputs: the inputs that are not constant, in order.

        Returns:
            A ``QuantizedArray``, or a tuple of them.
        """
        inputs = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=False
        )
        return self.quantized(self.call_impl(*inputs, **attrs))

    def call_impl(self, *inputs: Any, **attrs: Any) -> Any:
        """The NumPy implementation, on arrays or on the tensors of a float group."""
        attrs = self.with_outputs_wanted(attrs)
        if any(isinstance(x, Tensor) for x in inputs):
            given = (of_size(self.sized[id(x)]) if id(x) in self.sized else x for x in inputs)
            return call(self._function, *given, **attrs)
        return self._function(*inputs, **attrs)

    def with_outputs_wanted(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """``attrs``, and which outputs the node has, for an implementation that asks for that."""
        name = self.signature.outputs_wanted
        wanted = {name: tuple(map(bool, self.output_names))} if name and self.output_names else {}
        return {**attrs, **wanted}

    def quantized(self, result: Any) -> Any:
        """Results of the op (real values) with the quantizers that the plan has for them."""
        if isinstance(result, tuple):
            return tuple(self._output(i, part) for i, part in enumerate(result))
        return self._output(0, result)

    def _output(self, index: int, values: Any) -> QuantizedArray:
        return QuantizedArray(
            self.n_bits,
            values,
            value_is_float=True,
            options=self.input_quant_opts,
            stats=self._output_stats(index),
            params=self.output_params(index),
        )

    def as_output(self, index: int, array: QuantizedArray) -> QuantizedArray:
        """An output as ``q_impl`` returned it, with the quantizer of that output.

        ``output_quant_params``, ``output_quant_stats`` and ``quantized`` of one array mean the first output. An
        op that uses them for each of several gets, for real values, the quantizer of their own output here.

        Raises:
            CompilationError: something has asked for the integers already, which are the first output's.
        """
        stats = self.output_quant_stats
        handed = [*self._first, None] if index else []
        if not any(array.asks_for(stats, params) for params in handed):
            return array
        if array.is_planned:
            raise CompilationError(
                f"{type(self).__name__}.q_impl quantized output {index} with the quantizer of output 0",
                where=self.where,
                expected=f"self.output_params({index}), which the plan has for it",
                got="self.output_quant_params, which is the first output's",
                fix="return self.quantized((first, second)), a tuple of real values",
            )
        return self._output(index, array.values)

    def constant(self, index: int) -> Any:
        """The array of a constant input, or None where the input is absent or not constant."""
        return self.constant_inputs.get(index)

    def constant_at(self, index: int, batch: int) -> Any:
        """A constant input as it is for a batch of this size; None where it is absent or not constant."""
        array = self.constant(index)
        return self.sized[id(array)].at(batch) if id(array) in self.sized else array

    def _prepare_inputs_with_constants(
        self, *q_inputs: QuantizedArray, calibrate: bool, quantize_actual_values: bool
    ) -> list[Any]:
        """All inputs by position, the constant ones among them, absent optional ones as None.

        Args:
            calibrate: choose parameters from the values at hand, and not from the plan.
            quantize_actual_values: ``QuantizedArray``s, to compute on ``qvalues``; else real values
                (arrays, or tensors of a float group). Integer constants (shapes, indices) stay arrays.
        """
        variable = iter(q_inputs)
        count = len(self.input_names) or len(q_inputs) + len(self.constant_inputs)
        prepared: list[Any] = []
        for index in range(count):
            if self.input_names and not self.input_names[index]:
                prepared.append(None)
            elif index in self.constant_inputs:
                array = np.asarray(self.constant_inputs[index])
                if quantize_actual_values and array.dtype.kind == "f":
                    prepared.append(self._quantized_constant(index, array, calibrate))
                else:
                    prepared.append(array)
            else:
                q_input = next(variable)
                if calibrate and not isinstance(q_input.values, Tensor):
                    q_input = QuantizedArray(q_input.n_bits, q_input.values)
                prepared.append(q_input if quantize_actual_values else q_input.values)
        return prepared

    def _quantized_constant(self, index: int, array: Any, calibrate: bool) -> QuantizedArray:
        channels = self.weight_channels()
        axis = channels.weight_axis if channels and channels.index == index else None
        if self.plan is not None and not calibrate:
            # Only constants whose integers are used enter the plan: a bias does not.
            plan, name = self.plan, self.weight_name(index)
            return QuantizedArray(
                plan.weight_bits(name),
                array,
                params=lambda: plan.weight(name, array, axis).parameters,
            )
        options = QuantizationOptions(self.n_bits, signed=True, symmetric=True)
        return QuantizedArray(
            self.n_bits, array, options=options, stats=QuantizationStats.of(array, axis)
        )

    def weight_name(self, index: int) -> str:
        """The plan's name for a constant input at this node."""
        name = self.input_names[index] if index < len(self.input_names) else str(index)
        return f"{name}@{self.op_instance_name}"
