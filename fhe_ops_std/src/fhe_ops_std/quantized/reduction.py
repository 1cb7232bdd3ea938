"""Sums and means along axes: integers added up, scaled in the next look-up."""

from __future__ import annotations

from typing import Any

import numpy as np

from fhe_core import CompilationError, QuantizedArray, QuantizedOp


class QuantizedReduceSum(QuantizedOp):
    """The sum along constant axes."""

    _impl_for_op_named = "ReduceSum"
    mean = False

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        inputs = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        x = inputs[0]
        axes = attrs["axes"] if "axes" in attrs else (inputs[1] if len(inputs) > 1 else None)
        if axes is not None and not isinstance(axes, (np.ndarray, tuple, list)):
            raise CompilationError(
                "the axes of a sum are encrypted",
                where=self.where,
                fix="make them constants of the model",
            )
        rank = len(x.shape)
        if axes is None or not np.size(axes):
            if attrs.get("noop_with_empty_axes"):
                return self.quantized(x.values)
            axes = range(rank)
        along = tuple(int(axis) % rank for axis in axes)
        if 0 in along:
            raise CompilationError(
                "a sum runs over the batch",
                where=self.where,
                expected="axes among the dimensions of one sample",
                got=f"axes {along}",
                fix="sum over the other axes",
            )
        keep = bool(attrs["keepdims"])
        total = x.qvalues.sum(axis=along, keepdims=keep)
        sample = (1, *x.shape[1:])
        offset = np.broadcast_to(x.quantizer.zero_point, sample).sum(axis=along, keepdims=keep)
        count = int(np.prod([x.shape[axis] for axis in along])) if self.mean else 1
        real = (total.astype(np.float64) - offset) * (x.quantizer.scale / count)
        return self.quantized(real)


class QuantizedReduceMean(QuantizedReduceSum):
    """The mean along constant axes."""

    _impl_for_op_named = "ReduceMean"
    mean = True


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedReduceSum, QuantizedReduceMean)
