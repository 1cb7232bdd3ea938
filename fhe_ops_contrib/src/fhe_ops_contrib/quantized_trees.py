"""Encrypted tree ensembles: exact, but for the leaves' weights in sums of several trees.

Where the client holds the features, the client compares: for each cut that the trees use it encrypts one
bit. That takes no look-up and has no rounding error; it tells the client the sorted thresholds of each
feature. With ``client_side="minimal"`` the client has a uniform quantizer of ``n_bits`` for each feature
instead, from its least to its largest threshold, and each cut takes a look-up. So it does where features
are encrypted already, as after a matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fhe_core import CompilationError, QuantizedArray, QuantizedOp
from fhe_ops_contrib.labels import named_in
from fhe_ops_contrib.tree_bits import Bits, client_bits, server_bits, spread, stepped
from fhe_ops_contrib.tree_forms import Forest
from fhe_ops_contrib.tree_payloads import Numbered, Summed
from fhe_ops_contrib.tree_plans import Planned, Planner, most_bits, sums
from fhe_ops_contrib.tree_scores import Classes, Targets

#: The client adds up what each tree gives where the server's sums would cost this much more.
_WORTH_TELLING = 2


class TreeOp(QuantizedOp):
    """Bits of passed cuts, look-ups, a sum; scores and labels after decryption."""

    encodes_inputs: ClassVar[bool] = True

    def can_fuse(self) -> bool:
        return False

    def sums(self, x: QuantizedArray, model: Targets | Classes, how: str) -> Any:
        """The aggregated scores (N, targets), in the type of the weights, after decryption.

        Raises:
            CompilationError: x has no two dimensions; the trees give a constant; some leaves leave targets out.
        """
        ensemble = model.ensemble
        if len(x.shape) != 2:
            raise CompilationError(
                "trees need the features of a sample in one dimension",
                where=self.where,
                expected="(N, F)",
                got=f"{len(x.shape)} dimensions",
                fix="flatten the features before this node",
            )
        if how in ("MIN", "MAX") and not ensemble.scored[ensemble.is_leaf].all():
            raise self.partly_scored()
        forest, bits = self._asked(x, model)
        planned = self._planned(forest, how, x.values.is_unencrypted)
        if planned.is_constant:
            raise CompilationError(
                "the trees give the same result for every input",
                where=self.where,
                fix="train them again: there is nothing to encrypt",
            )
        return planned.payload.scores(sums(planned, bits)).astype(ensemble.weights.dtype)

    def _planned(self, forest: Forest, how: str, unencrypted: bool) -> Planned:
        """How the trees are computed, and what that tells the client."""
        planner = Planner(forest)
        numbered = Numbered(forest.vectors, how)
        one = len(forest.roots) == 1
        planned = None if one or how in ("MIN", "MAX") else self._summed(planner, how)
        if planned is None or (unencrypted and self.client_side == "any"):
            apart = planner.plan(numbered)
            if planned is None or _WORTH_TELLING * apart.cost <= planned.cost:
                planned = apart
        if one:
            self._tell("has the list of all results that the tree can give")
        elif isinstance(planned.payload, Numbered):
            self._tell("adds up what trees give: it learns which leaf of each, and their weights")
        return planned

    def _summed(self, planner: Planner, how: str) -> Planned:
        vectors = planner.forest.vectors
        return planner.plan(Summed(vectors, how, most_bits(planner.forest)))

    def _asked(self, x: QuantizedArray, model: Targets | Classes) -> tuple[Forest, Bits]:
        """The normal forms, and what says which cuts are passed."""
        values, ensemble = x.values, model.ensemble
        self.notices = ()
        dtype = np.dtype(np.float64 if values.dtype == np.float64 else np.float32)
        if not values.is_unencrypted:
            low, high = np.min(x.quantizer.params.low), np.max(x.quantizer.params.high)
            levels = np.arange(low, high + 1)
            each = np.broadcast_to(levels[:, None], (len(levels), x.shape[1]))
            reals = x.quantizer.dequant(each).astype(np.float32)

            def place(feature: int, cut: float) -> float:
                after = levels[0] + np.searchsorted(reals[:, feature], cut)
                return float(after) if np.isfinite(cut) else cut

            known = {feature: levels.astype(np.float64) for feature in range(x.shape[1])}
            forest = Forest.of(ensemble, np.float32, place, known)
            return forest, server_bits(x.qvalues, forest)
        told = self.client_side == "any"
        exact = Forest.of(ensemble, dtype, missing=told and bool(ensemble.missing.any()))
        if told:
            self._tell("learns the sorted thresholds of each feature that the trees ask for")
            return exact, client_bits(values.astype(dtype), exact)
        steps = spread(exact, self.n_bits)
        self._tell(
            "learns the least and the largest threshold of each feature that the trees ask for"
        )
        numbers = np.arange(2.0**self.n_bits)
        forest = Forest.of(ensemble, dtype, steps.place, _for_each(exact, numbers))
        return forest, server_bits(stepped(values, steps, x.shape[1]), forest)

    def _tell(self, what: str) -> None:
        self.notices += (f"{self.op_instance_name}: the client {what}.",)

    def partly_scored(self) -> CompilationError:
        """The error for targets that have no score for some inputs."""
        return CompilationError(
            "some leaves score a target, and others leave it out",
            where=self.where,
            expected="weights for the same targets at all leaves of a tree",
            got="targets that have a score for some inputs only, which no sum tells from 0",
            fix="export the model with a weight for each target at each leaf",
        )


def _for_each(forest: Forest, values: Any) -> Mapping[int, Any]:
    return dict.fromkeys(forest.cuts, values)


class QuantizedTreeEnsembleClassifier(TreeOp):
    """TreeEnsembleClassifier: scores, and the label of the largest, after decryption."""

    _impl_for_op_named = "TreeEnsembleClassifier"

    def class_labels(self) -> Sequence[Any] | None:
        return named_in(self.attrs, "classlabels_int64s")

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        model = Classes.of(attrs)
        given, scored = model.ensemble.always_scored, model.ensemble.scored.any(axis=0)
        if not (model.binary or model.positive or (given == scored).all()):
            raise self.partly_scored()
        return self.quantized(model.outputs(self.sums(q_inputs[0], model, "SUM"), given))


class QuantizedTreeEnsembleRegressor(TreeOp):
    """TreeEnsembleRegressor: aggregates and transforms after decryption, sums before it."""

    _impl_for_op_named = "TreeEnsembleRegressor"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        model = Targets.of_regressor(attrs)
        return self.quantized(model.outputs(self.sums(q_inputs[0], model, model.aggregate)))


class QuantizedTreeEnsemble(TreeOp):
    """TreeEnsemble: as TreeEnsembleRegressor."""

    _impl_for_op_named = "TreeEnsemble"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        model = Targets.of_ensemble(attrs)
        return self.quantized(model.outputs(self.sums(q_inputs[0], model, model.aggregate)))


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedTreeEnsembleClassifier,
    QuantizedTreeEnsembleRegressor,
    QuantizedTreeEnsemble,
)
