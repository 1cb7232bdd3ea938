"""Quantized forms of the operators of ``ai.onnx.ml``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fhe_core import CompilationError, QuantizedArray, QuantizedOp, WeightChannels
from fhe_ops_contrib import linear
from fhe_ops_contrib.labels import chosen, named_in


class QuantizedScaler(QuantizedOp):
    """Scaler: a table look-up, or a step before encryption."""

    _impl_for_op_named = "Scaler"


class QuantizedBinarizer(QuantizedOp):
    """Binarizer: a table look-up, or a step before encryption."""

    _impl_for_op_named = "Binarizer"

    def reads_exactly(self, index: int) -> bool:
        return True

    def told_apart(self, index: int) -> Any:
        return self.attrs["threshold"]


class QuantizedImputer(QuantizedOp):
    """Imputer: a table look-up, or a step before encryption."""

    _impl_for_op_named = "Imputer"


class RowOp(QuantizedOp):
    """A function of whole samples, which no look-up computes: a step before encryption, or after
    decryption. In between the compiler refuses it."""

    shapes_outputs: ClassVar[bool] = True

    def can_fuse(self) -> bool:
        return False


class QuantizedNormalizer(RowOp):
    """Normalizer, on the client."""

    _impl_for_op_named = "Normalizer"


class QuantizedFeatureVectorizer(RowOp):
    """FeatureVectorizer, on the client: inputs are joined before they are encrypted as one."""

    _impl_for_op_named = "FeatureVectorizer"


class QuantizedMonomials(RowOp):
    """Products of features, on the client."""

    _impl_for_op_named = "Monomials"


class QuantizedZipMap(RowOp):
    """ZipMap, after decryption."""

    _impl_for_op_named = "ZipMap"

    def class_labels(self) -> Sequence[Any] | None:
        return named_in(self.attrs, "classlabels_int64s")


class QuantizedArrayFeatureExtractor(QuantizedOp):
    """ArrayFeatureExtractor: elements move, and keep their scale; no look-up.

    Encrypted places in a constant row, such as that of the best class among the labels, are a function
    of each place: part of a look-up, or a step after decryption.
    """

    _impl_for_op_named = "ArrayFeatureExtractor"
    keeps_scale: ClassVar[bool] = True

    def can_fuse(self) -> bool:
        row = self.constant(0)
        return row is not None and row.size == row.shape[-1]

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse():
            (places,) = q_inputs
            best = places.values.reshape(-1)
            return self.quantized(np.expand_dims(chosen(self.constant(0).reshape(-1), best), 0))
        if self.constant(1) is None:
            raise CompilationError(
                "the indices of the features are encrypted",
                where=self.where,
                fix="make them constants of the model",
            )
        x, places = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=False
        )
        # Not `call_impl`: NumPy's own functions on the tensor are moves that integers know too.
        return self.quantized(self._function(x, places))


class LinearModel(QuantizedOp):
    """Integers times clear integer coefficients; all the rest follows in float.

    With x = s (q - z) and coefficients t v for each column, x @ t v = s t (q @ v - z sum(v)): only
    q @ v is computed under encryption. Intercepts, transform and labels need no look-up where
    nothing but the output follows: they run after decryption.
    """

    #: The coefficients are an attribute. Planners know weights as inputs: the one after X.
    _coefficients: ClassVar[int] = 1
    _weights_attribute: ClassVar[str] = "coefficients"

    def weight_channels(self) -> WeightChannels | None:
        return WeightChannels(index=self._coefficients, weight_axis=1, output_axis=1)

    def weight_name(self, index: int) -> str:
        return f"{self._weights_attribute}@{self.op_instance_name}"

    def constant(self, index: int) -> Any:
        return self.weights() if index == self._coefficients else super().constant(index)

    def weights(self, features: int | None = None) -> Any:
        """The coefficients, (features, columns).

        Args:
            features: of the input; None where only the attributes are known.

        Returns:
            None if the attributes alone do not tell.
        """
        raise NotImplementedError

    def scores(self, q_inputs: Sequence[QuantizedArray]) -> Any:
        """The matrix product without intercepts, as an accumulator rescaled: (N, columns)."""
        (x,) = q_inputs
        if len(x.shape) != 2:
            raise CompilationError(
                "a linear model needs the features of a sample in one dimension",
                where=self.where,
                expected="(N, F)",
                got=f"{len(x.shape)} dimensions",
                fix="flatten the features before this node",
            )
        w = self._quantized_constant(self._coefficients, self.weights(x.shape[1]), calibrate=False)
        weights = w.qvalues - w.quantizer.zero_point
        zero = np.broadcast_to(x.quantizer.zero_point, (1, len(weights)))
        accumulator = x.qvalues @ weights
        return (accumulator.astype(np.float64) - zero @ weights) * (
            w.quantizer.scale * x.quantizer.scale
        )


class QuantizedLinearRegressor(LinearModel):
    """x @ coefficients + intercepts, and the transform."""

    _impl_for_op_named = "LinearRegressor"

    def weights(self, features: int | None = None) -> Any:
        coefficients, targets = self.attrs["coefficients"], self.attrs["targets"]
        if features is None:
            features = len(coefficients) // targets
        return linear.regressor_weights(features, coefficients, targets)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        return self.quantized(
            linear.regression(self.scores(q_inputs), attrs["intercepts"], attrs["post_transform"])
        )


class QuantizedLinearClassifier(LinearModel):
    """x @ coefficients + intercepts, the transform, and the label of the largest."""

    _impl_for_op_named = "LinearClassifier"

    def class_labels(self) -> Sequence[Any] | None:
        return named_in(self.attrs, "classlabels_ints")

    def weights(self, features: int | None = None) -> Any:
        coefficients = self.attrs["coefficients"]
        if features is None:
            # Labels do not tell: one row of coefficients has two.
            rows = len(self.attrs["intercepts"] or ())
            if not rows:
                return None
            features = len(coefficients) // rows
        return linear.classifier_weights(features, coefficients)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        return self.quantized(
            linear.classification(
                self.scores(q_inputs),
                attrs["intercepts"],
                attrs["classlabels_ints"],
                attrs["classlabels_strings"],
                attrs["post_transform"],
            )
        )


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedScaler,
    QuantizedBinarizer,
    QuantizedImputer,
    QuantizedNormalizer,
    QuantizedFeatureVectorizer,
    QuantizedZipMap,
    QuantizedArrayFeatureExtractor,
    QuantizedLinearRegressor,
    QuantizedLinearClassifier,
)
