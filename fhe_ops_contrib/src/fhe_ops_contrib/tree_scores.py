"""From the leaves of tree ensembles to scores, labels and predictions.

Whole-array functions only, from the scores on: they run after decryption, where the compiler traces them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fhe_ops_contrib._checks import Array, misfit
from fhe_ops_contrib.ensembles import Ensemble, Group
from fhe_ops_contrib.labels import chosen, class_labels
from fhe_ops_contrib.transforms import transform
from fhe_ops_contrib.tree_attributes import base_values, listed_trees, numbered_trees

_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
#: Weights that are aggregated at a time.
_CHUNK = 2**18
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def aggregated(ensemble: Ensemble, leaves: Array, how: str) -> tuple[Array, Array]:
    """Scores from leaves (N, trees): (N, targets), and which of them any leaf gave; the others are 0.

    The second is (N, targets), or (targets,) where it is the same for all samples.

    Sums are rounded once to the type of the weights. ONNX Runtime rounds them after each tree, in an order that
    depends on its threads: so where votes are even, its label does too.
    """
    count = ensemble.weights.shape[1]
    scored, given = ensemble.scored, ensemble.always_scored
    if not ensemble.scored_alike:
        given = _parts(lambda rows: scored[rows].any(axis=0), leaves, count)
    if how in ("MIN", "MAX"):
        worst, best = (np.inf, np.min) if how == "MIN" else (-np.inf, np.max)
        weights = np.where(scored, ensemble.weights, worst)
        scores = np.where(given, _parts(lambda rows: best(weights[rows], axis=0), leaves, count), 0)
        return scores.astype(ensemble.weights.dtype), given
    groups = ensemble.groups
    if len(groups) == 1 and groups[0].weights.shape[1] == count:
        scores = _summed(groups[0], leaves)
    else:
        scores = np.zeros((len(leaves), count))
        for group in groups:
            scores[:, group.targets] = _summed(group, leaves)
    if how == "AVERAGE":
        scores = scores / leaves.shape[1]
    return scores.astype(ensemble.weights.dtype), given


def _summed(group: Group, leaves: Array) -> Array:
    """The sums (N, targets) of a group's weights, tree by tree: so a sum is the same in all batches."""
    weights, trees = group.weights, group.trees
    if leaves.shape[0] * weights.shape[1] == 1:
        # Of a single column NumPy would sum in pairs.
        found = weights.reshape(-1).take(leaves[0] if trees is None else leaves[0].take(trees))
        return np.add.accumulate(found)[-1:].reshape(1, 1)
    leaves = leaves if trees is None else leaves.take(trees, axis=1)
    return _parts(lambda rows: weights.take(rows, axis=0).sum(axis=0), leaves, weights.shape[1])


def _parts(function: Callable[[Array], Array], leaves: Array, targets: int) -> Array:
    """A function of leaves (trees, n) for so many samples at a time, of which it gives (n, targets)."""
    step = max(1, _CHUNK // max(1, leaves.shape[1] * targets))
    if len(leaves) <= step:
        return function(leaves.T)
    return np.concatenate([function(leaves[i : i + step].T) for i in range(0, len(leaves), step)])


@dataclass(frozen=True)
class Targets:
    """What a TreeEnsembleRegressor or a TreeEnsemble makes of its leaves."""

    ensemble: Ensemble
    aggregate: str
    post_transform: str
    base: Array | None = None

    @classmethod
    def of_regressor(cls, attributes: Mapping[str, Any]) -> Targets:
        """From the node's attributes. Raises ModelError where they contradict each other."""
        op = "TreeEnsembleRegressor"
        ids = attributes["target_ids"]
        wanted = attributes["n_targets"]
        targets = int(wanted) if wanted is not None else int(max(ids or [0])) + 1
        aggregate = attributes["aggregate_function"]
        if aggregate not in _AGGREGATES:
            raise _unknown(op, "aggregate_function", aggregate, _AGGREGATES)
        ensemble = numbered_trees(
            attributes, op=op, of="target", targets=targets, aggregate=aggregate
        )
        base = base_values(attributes, op=op, allowed=(1, targets))
        return cls(ensemble, aggregate, attributes["post_transform"], base)

    @classmethod
    def of_ensemble(cls, attributes: Mapping[str, Any]) -> Targets:
        """From the node's attributes, where choices are numbers."""
        named: list[str] = []
        for name, choices in (("aggregate_function", _AGGREGATES), ("post_transform", _TRANSFORMS)):
            number = attributes[name]
            if not 0 <= number < len(choices):
                raise _unknown("TreeEnsemble", name, number, range(len(choices)))
            named.append(choices[number])
        aggregate, post_transform = named
        return cls(listed_trees(attributes, aggregate=aggregate), aggregate, post_transform)

    def outputs(self, scores: Array) -> Array:
        """Predictions from aggregated scores: (N, targets) float32, or float64 as the weights are.

        A single target is changed by no transform but PROBIT: so does ONNX Runtime.
        """
        change = transform(self.post_transform, self.ensemble.op)
        if self.base is not None:
            scores = scores + self.base.astype(scores.dtype)
        if scores.shape[1] > 1 or self.post_transform == "PROBIT":
            scores = change(scores)
        single = self.ensemble.op == "TreeEnsembleRegressor"
        return scores.astype(np.float32) if single else scores


@dataclass(frozen=True)
class Classes:
    """What a TreeEnsembleClassifier makes of its leaves.

    Attributes:
        labels: int64 or text.
        positive: whether no weight is negative.
        used: the classes that leaves have weights for.
    """

    ensemble: Ensemble
    labels: Array
    post_transform: str
    base: Array | None
    positive: bool
    used: tuple[int, ...]

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Classes:
        """From the node's attributes. Raises ModelError where they contradict each other."""
        op = "TreeEnsembleClassifier"
        labels, _ = class_labels(
            attributes["classlabels_int64s"],
            attributes["classlabels_strings"],
            op=op,
            ints_name="classlabels_int64s",
        )
        count = len(labels)
        ensemble = numbered_trees(attributes, op=op, of="class", targets=count, aggregate="SUM")
        base = base_values(attributes, op=op, allowed=(count,) if count > 2 else (1, count))
        used = tuple(np.flatnonzero(ensemble.scored.any(axis=0)).tolist())
        positive = bool((ensemble.weights >= 0).all())
        return cls(ensemble, labels, attributes["post_transform"], base, positive, used)

    @cached_property
    def _whole_base(self) -> Array | None:
        """A base value for each class."""
        if self.base is None:
            return None
        return np.pad(self.base, (0, len(self.labels) - len(self.base)))

    @property
    def binary(self) -> bool:
        """Whether one score says which of two classes it is."""
        return len(self.labels) <= 2 and len(self.used) == 1

    def outputs(self, scores: Array, given: Array) -> tuple[Array, Array]:
        """Labels (N,) and transformed scores (N, classes) float32, from sums (N, classes).

        Args:
            given: whether any leaf gave a class its score: (N, classes), or (classes,) for all samples.

        Two classes of which leaves score only one are told apart by that score s, as in ONNX Runtime: the
        second is the label where s > 0.5, or s > 0 if a weight is negative. The scores are the pair
        (1 - s, s), or (-s, s) if a weight is negative, transformed no further; for LOGISTIC, the logistic
        of (-s, s); (0, s) transformed, where it is the second class that leaves score. Where leaves score
        both, Runtime's labels are none of the model's: here it is the larger one's, as ONNX's reference
        has it.
        """
        op = self.ensemble.op
        change = transform(self.post_transform, op)
        if self.binary:
            return self._of_one(scores)
        base = self._whole_base
        if base is not None:
            scores = scores + base.astype(scores.dtype)
        elif not given.all():
            best = np.argmax(np.where(given, scores, -np.inf), axis=1)
            return chosen(self.labels, best), change(scores).astype(np.float32)
        best = np.argmax(scores, axis=1)
        return chosen(self.labels, best), change(scores).astype(np.float32)

    def _of_one(self, scores: Array) -> tuple[Array, Array]:
        (place,) = self.used
        change = transform(self.post_transform, self.ensemble.op)
        score = scores[:, place : place + 1]
        if self.base is not None and (place < len(self.base)):
            score = score + self.base[place : place + 1].astype(scores.dtype)
        if len(self.labels) == 1:
            return self._of_one_label(score)
        is_second = np.greater(score[:, 0], 0.5 if self.positive else 0)
        labels = chosen(self.labels, is_second)
        if place == 1:
            pair = np.concatenate([score * 0, score], axis=1)
            return labels, change(pair).astype(np.float32)
        if self.post_transform == "LOGISTIC" or not self.positive:
            pair = np.concatenate([-score, score], axis=1)
        else:
            pair = np.concatenate([1 - score, score], axis=1)
        changed = change(pair) if self.post_transform in ("LOGISTIC", "PROBIT") else pair
        return labels, changed.astype(np.float32)

    def _of_one_label(self, score: Array) -> tuple[Array, Array]:
        """With one class alone the label is 1 or 0, and its score stays as it is."""
        if self.labels.dtype.kind != "i":
            raise misfit(
                self.ensemble.op,
                "one class alone has no opposite",
                expected="two labels in 'classlabels_strings', or integers",
                got="one text",
                fix="name both classes",
            )
        change = transform(self.post_transform, self.ensemble.op)
        changed = change(score) if self.post_transform == "PROBIT" else score
        return np.greater(score[:, 0], 0).astype(np.int64), changed.astype(np.float32)


def _unknown(op: str, attribute: str, got: Any, choices: Any) -> Exception:
    return misfit(
        op,
        f"the attribute {attribute!r} names nothing that there is",
        expected=", ".join(map(str, choices)),
        got=repr(got),
        fix=f"correct {attribute!r}",
    )
