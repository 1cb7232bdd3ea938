"""Support vector machines on integers.

Without support vectors a machine is a linear model. With them, graph passes have put the kernels into a
node of its own, a layer with one look-up a support vector, and the votes into another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fhe_core import CompilationError, QuantizedArray, QuantizedOp
from fhe_ops_contrib import machine_ops, svm
from fhe_ops_contrib.labels import class_labels, named_in
from fhe_ops_contrib.quantized import LinearModel, RowOp
from fhe_ops_contrib.quantized_distances import squared_distances


class LinearMachine(LinearModel):
    """A machine that has its coefficients for the features themselves."""

    def machine(self) -> svm.Machine:
        """What the attributes describe."""
        raise NotImplementedError

    def weights(self, features: int | None = None) -> Any:
        machine = self.machine()
        if machine.vectors is not None:
            raise CompilationError(
                "the machine was not split into kernels, sums and votes",
                where=self.where,
                expected="a node without support vectors",
                got=f"{len(machine.vectors)} support vectors",
                fix="compile the model with this pack's graph passes",
            )
        return machine.weights

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: self.attrs[name] for name in names}


class QuantizedSVMRegressor(LinearMachine):
    """x @ coefficients + rho, and the sign."""

    _impl_for_op_named = "SVMRegressor"

    def machine(self) -> svm.Machine:
        names = ("coefficients", "kernel_params", "kernel_type", "n_supports", "rho")
        return svm.regressor_machine(**self._given(*names, "support_vectors"))

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        scores = self.scores(q_inputs) + self.machine().offsets
        return self.quantized(
            svm.svm_regression(scores, attrs["one_class"], attrs["post_transform"])
        )


class QuantizedSVMClassifier(LinearMachine):
    """x @ coefficients + rho for each class, the transform and the label."""

    _impl_for_op_named = "SVMClassifier"

    def class_labels(self) -> Sequence[Any] | None:
        return named_in(self.attrs, "classlabels_ints")

    def labels(self) -> Any:
        """The class labels."""
        ints, strings = self.attrs["classlabels_ints"], self.attrs["classlabels_strings"]
        return class_labels(ints, strings, op="SVMClassifier", ints_name="classlabels_ints")[0]

    def machine(self) -> svm.Machine:
        names = ("coefficients", "kernel_params", "kernel_type", "rho", "support_vectors")
        given = self._given(*names, "vectors_per_class")
        return svm.classifier_machine(len(self.labels()), **given)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        machine = self.machine()
        scores = self.scores(q_inputs) + machine.offsets
        return self.quantized(
            svm.linear_classification(
                scores, self.labels(), machine.weights, attrs["post_transform"]
            )
        )


class QuantizedSVMKernel(LinearModel):
    """The kernels with the support vectors: a matrix product or distances, and a look-up for each."""

    _impl_for_op_named = "SVMKernel"
    _weights_attribute: ClassVar[str] = "support_vectors"

    def weight_channels(self) -> Any:
        # Distances to all vectors share the squares, and so one scale.
        return None if self.attrs["kernel_type"] == "RBF" else super().weight_channels()

    def weights(self, features: int | None = None) -> Any:
        return machine_ops.kernel_and_vectors(**self.attrs)[1].T

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        kernel, vectors = machine_ops.kernel_and_vectors(**attrs)
        if kernel.name != "RBF":
            return self.quantized(kernel.of_products(self.scores(q_inputs)))
        (x,) = q_inputs
        held = self._quantized_constant(self._coefficients, vectors, calibrate=False)
        squares = np.maximum(squared_distances(x, held), 0.0)
        return self.quantized(kernel.of_distances(squares))


class QuantizedSVMVotes(RowOp):
    """Votes, probabilities and labels, after decryption."""

    _impl_for_op_named = "SVMVotes"

    def class_labels(self) -> Sequence[Any] | None:
        return named_in(self.attrs, "classlabels_ints")


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedSVMRegressor, QuantizedSVMClassifier)
OWN_CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedSVMKernel, QuantizedSVMVotes)
