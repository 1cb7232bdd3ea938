"""How far values reach on data that nobody saw, from how far they reached on N samples (extreme values).

What is wanted is a limit that one answer in 10,000 passes, or fewer, from some hundred samples or from five. So
the tail has to be continued beyond the data, and the error of its estimate belongs to it:

- Of each sample the largest value of a channel counts (block maxima: Gumbel, 1958), so that correlated
  elements of an image count once.
- Channels have a mean and a deviation each, and share the form of their tail: their values, each measured by
  the mean and the deviation of the other samples, are one sample of what a new value will be. Deviations of few
  samples are moderated by those of all channels (Smyth, 2004), and scored by Student's distribution.
- The largest of these values are a power of their scores (Weibull-type tails: Beirlant et al., 1996): 1 for
  normal ones, 2 for exponential ones, 0 for bounded ones. The power is estimated where the sample has its
  largest values, drawn to that of normal values where these are few, and taken a deviation too high.

A heavy tail does not show in few samples: no method tells it from a light one then. But inputs and look-ups
saturate, so accumulators are bounded, and what is planned is never more than the bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: With fewer, Student's distribution has no deviation: then a bound is all there is.
_LEAST_SAMPLES = 5
#: The power of normal values, and how many large values its prior counts for.
_POWER, _PRIOR = 1.0, 6.0
_LEAST_POWER = 0.1
#: The largest values that the power is estimated from: this many times the root of their number.
_USED = 1.5
_MOST_FREEDOM = 1000.0
#: What channels have in common counts at most this many times what each one's own samples do: where they are
#: correlated, they agree and are wrong together.
_SHARED = 3


@dataclass(frozen=True)
class Tail:
    """The distribution of large values of some channels.

    Attributes:
        mean, deviation: of each channel.
        largest: measured values, in deviations from the mean, the largest first.
        count: how many there were, of all channels.
        power: of the score, that continues them.
        freedom: degrees of, of Student's distribution.
    """

    mean: Array
    deviation: Array
    largest: Array
    count: int
    power: float
    freedom: float

    @classmethod
    def of(cls, values: Array) -> Tail | None:
        """The tail of (samples, channels); None where these are too few samples to tell."""
        count, channels = values.shape
        if count < _LEAST_SAMPLES:
            return None
        mean = values.mean(axis=0, dtype=np.float64)
        distance = values - mean
        square = (distance**2).sum(axis=0) / (count - 1)
        prior, expected = _prior(square, count - 1)
        # Each value from the mean, and in deviations, of the other samples.
        others = ((count - 1) * square - distance**2 * count / (count - 1)) / (count - 2)
        others = (prior * expected + (count - 2) * np.maximum(others, 0)) / (prior + count - 2)
        distance *= count / (count - 1)
        scaled = np.divide(distance, np.sqrt(others), out=distance, where=others > 0).reshape(-1)
        used = min(max(5, round(_USED * math.sqrt(scaled.size))), (scaled.size + 2) // 3)
        places = np.argsort(-scaled, kind="stable")[:used]
        deviation = np.sqrt((prior * expected + (count - 1) * square) / (prior + count - 1))
        freedom = min(prior + count - 2, _MOST_FREEDOM)
        tail = cls(mean, deviation, scaled[places], scaled.size, _POWER, freedom)
        return tail._with_power(len(np.unique(places // channels)))

    def _with_power(self, samples: int) -> Tail:
        """With a power that is estimated from the largest values, which came from so many samples."""
        scores = np.array([self._score(_place(i, self.count)) for i in range(len(self.largest))])
        usable = (self.largest > 0) & (scores > 0)
        if usable.sum() < 2:
            return self
        values, scores = np.log(self.largest[usable]), np.log(scores[usable])
        found = float((values[:-1].mean() - values[-1]) / (scores[:-1].mean() - scores[-1]))
        power = (samples * found + _PRIOR * _POWER) / (samples + _PRIOR)
        return replace(self, power=max(power * (1 + 1 / math.sqrt(samples + _PRIOR)), _LEAST_POWER))

    @property
    def _anchor(self) -> tuple[float, float]:
        """The least of the largest values, and its score: what the tail is continued from."""
        last = len(self.largest) - 1
        return float(self.largest[last]), self._score(_place(last, self.count))

    def reach(self, probability: float) -> Array:
        """The value that a sample passes with a probability, on average over the channels: (channels,)."""
        value, score = self._anchor
        grown = max(self._score(probability) / score, 1.0) ** self.power if score > 0 else 1.0
        return np.asarray(self.mean + self.deviation * max(value, 0.0) * grown)

    def passed(self, limits: Array) -> float:
        """In how many channels a sample is expected to pass their limits."""
        room = np.asarray(limits - self.mean, np.float64)
        varies = np.broadcast_to(self.deviation > 0, room.shape)
        distance = np.divide(room, self.deviation, out=np.full(room.shape, np.inf), where=varies)
        value, score = self._anchor
        if value <= 0 or score <= 0:
            return 0.0
        scores = score * np.maximum(distance / value, 1.0) ** (1 / self.power)
        return float(self._beyond(scores[np.isfinite(scores)]).sum())

    def _score(self, probability: float) -> float:
        """Student's quantile (Gaver, Kafadar, 1984)."""
        square = NormalDist().inv_cdf(min(probability, 0.5)) ** 2
        f = self.freedom
        return math.sqrt(f * math.expm1(min(square * (f - 1.5) / (f - 1) ** 2, 700.0)))

    def _beyond(self, scores: Array) -> Array:
        """The probability of each score, and of all beyond it."""
        f = self.freedom
        normal = np.sqrt(np.log1p(scores**2 / f) * (f - 1) ** 2 / (f - 1.5))
        return np.array([0.5 * math.erfc(each / math.sqrt(2)) for each in normal])


def _place(rank: int, count: int) -> float:
    """The probability that the value of a rank, 0 for the largest, is passed."""
    return (rank + 0.5) / count


def _prior(squares: Array, freedom: int) -> tuple[float, float]:
    """How many degrees of freedom the channels' variances have in common, and the variance that they tend to.

    From how much their logarithms vary beyond what their estimates do, with trigamma(x) = 1 / (x - 1/2).
    """
    logs = np.log(squares[squares > 0])
    if len(logs) < 2:
        return 0.0, 0.0
    beyond = float(logs.var(ddof=1)) - 2 / (freedom - 1)
    most = _SHARED * freedom
    common = min(1 + 2 / beyond, most) if beyond > 0 else most
    bias = freedom / (freedom - 1) * (common - 1) / common
    return common, float(np.exp(logs.mean())) * bias
