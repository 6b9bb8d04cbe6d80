"""Which configurations of a method are tried, and which of them is selected."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pliant.results import rounded
from pliant.settings import Value
from pliant.tuning._space import value_at
from pliant.types import Range

SAMPLER_SEED = 0
"""Of the scrambled Sobol sequence: the same trials for everybody."""


def make_trials(
    space: Mapping[str, Range], default: Mapping[str, Value], num_trials: int, seed: int = SAMPLER_SEED
) -> list[dict[str, Value]]:
    """The configurations of a method that are tried: its defaults first, then points of a scrambled Sobol sequence.

    With more trials the first ones stay the same. A space of few values has fewer different points than asked for; each
    is tried once.

    Args:
      space: what is tuned, by name.
      default: the defaults of these.
      num_trials: ≥ 1.
      seed: of the scrambling.

    Example:
      >>> from pliant.types import LogUniform
      >>> trials = make_trials({"learning_rate": LogUniform(1e-4, 1e-2)}, {"learning_rate": 0.001}, 4)
      >>> len(trials), trials[0]
      (4, {'learning_rate': 0.001})
    """
    from scipy.stats import qmc  # takes a second

    first = {name: default[name] for name in space}
    trials = {tuple(first.items()): first}
    if space and num_trials > 1:
        power = math.ceil(math.log2(num_trials))
        points = qmc.Sobol(len(space), rng=np.random.default_rng(seed)).random_base2(power)
        for point in points[: num_trials - 1]:
            trial = {name: value_at(of, place) for (name, of), place in zip(space.items(), point, strict=True)}
            trials.setdefault(tuple(trial.items()), trial)
    return list(trials.values())


def programs(trials: Sequence[Mapping[str, Value]], shaping: Sequence[str]) -> list[list[int]]:
    """Groups the trials that one compiled program can run: they agree in everything that shapes it.

    Args:
      trials: of a method.
      shaping: the hyperparameters that shape the program.

    Returns:
      The places of the trials of each program; that of the defaults first.

    Example:
      >>> programs([{"k": 2, "rate": 0.1}, {"k": 3, "rate": 0.1}, {"k": 2, "rate": 0.2}], ["k"])
      [[0, 2], [1]]
    """
    groups: dict[tuple[Value, ...], list[int]] = {}
    for place, trial in enumerate(trials):
        groups.setdefault(tuple(trial[name] for name in shaping if name in trial), []).append(place)
    return list(groups.values())


class Scored(NamedTuple):
    """What a trial has reached on the tuning seeds."""

    score: float
    """Mean over seeds and the last five tasks."""
    num_diverged: int
    """Seeds with parameters that are not finite."""

    @property
    def is_sound(self) -> bool:
        """Whether the score is a number and no seed has diverged."""
        return math.isfinite(self.score) and not self.num_diverged


def select(scored: Sequence[Scored], *, lower_is_better: bool) -> int:
    """The place of the best trial; of those that are equal in six digits the first, so that the defaults win ties.

    Trials with a diverged seed, or without a finite score, come after all others.

    Example:
      >>> select([Scored(0.5, 0), Scored(0.9, 1), Scored(float("nan"), 0), Scored(0.7, 0)], lower_is_better=False)
      3
    """

    def order(place: int) -> tuple[bool, float]:
        score = float(rounded(np.array(scored[place].score)))
        cost = score if lower_is_better else -score
        return not scored[place].is_sound, cost if math.isfinite(cost) else math.inf

    return min(range(len(scored)), key=order)
