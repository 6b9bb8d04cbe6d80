"""The study of *Understanding Plasticity in Neural Networks* that tries to falsify explanations by one statistic."""

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import pandas as pd

from pliant.experiments._claims import Claim, Difference
from pliant.experiments._experiment import Experiment
from pliant.experiments._figures import scatter
from pliant.experiments._lyle import INCREASE, PAPER
from pliant.experiments._quantities import Association, NotMeasuredError, Score, not_measured
from pliant.experiments._tables import Results
from pliant.results import mean_estimate

_REWARDS, _DATASETS, _NETWORKS = ("easy", "hard", "sparse"), ("mnist", "cifar10"), ("mlp", "cnn")
_CONDITIONS = {
    f"{reward}, {dataset}, {network}": f"lyle/falsification/{reward}-{dataset}-{network}"
    for reward in _REWARDS
    for dataset in _DATASETS
    for network in _NETWORKS
}


def _where(word: str) -> tuple[str, ...]:
    return tuple(label for label in _CONDITIONS if word in label.split(", "))


_AGENTS = ("adam", "adam-tuned")
_STATISTICS = {
    "weight_norm": "weight norm",
    "weight_effective_rank": "weight rank",
    "dead_fraction": "number of dead units",
    "feature_rank": "feature rank",
}


def _flips(metric: str, positive: str, negative: str) -> Claim:
    """A metric goes with plasticity loss in one group of runs, and against it in another."""
    name = _STATISTICS[metric]

    def group(word: str) -> Association:
        return Association(_AGENTS, metric, INCREASE, _where(word))

    return Claim(
        f"{name.replace(' ', '-')}-changes-sign",
        f"The {name} goes with the loss of plasticity in one group of problems ({positive}) and against it in another "
        f"({negative}).",
        "section 4.2, figure 3",
        (Difference(group(positive), 0.0, by=0.0), Difference(0.0, group(negative), by=0.0)),
    )


def _correlations(results: Mapping[str, Results]) -> pd.DataFrame:
    """Spearman's correlation of every statistic with the increase, by the problems that are pooled."""
    words = ("", *_REWARDS, *_DATASETS, *_NETWORKS)
    rows = []
    for metric, name in _STATISTICS.items():
        for word in words:
            runs = _where(word) if word else tuple(_CONDITIONS)
            with suppress(NotMeasuredError):
                found = Association(_AGENTS, metric, INCREASE, runs).by_seed(results)
                mean, low, high = mean_estimate(found.to_numpy())
                rows.append((name, word or "all", mean, *np.clip((low, high), -1.0, 1.0)))
    if not rows:
        raise not_measured("this experiment")
    return pd.DataFrame(rows, columns=["statistic", "problems", "correlation", "low", "high"])


_FALSIFICATION = Experiment(
    "lyle/falsification",
    "Does any simple statistic explain the loss of plasticity?",
    f"{PAPER}, section 4 and figure 3",
    "None: for the norm and rank of weights, dead units and the rank of features there is a problem in which it goes "
    "with the loss of plasticity, and one in which it goes against.",
    _CONDITIONS,
    (
        _flips("weight_norm", "cifar10", "mnist"),
        _flips("weight_effective_rank", "cifar10", "mnist"),
        _flips("dead_fraction", "cnn", "mlp"),
        _flips("feature_rank", "easy", "sparse"),
        *(
            Claim(
                f"{name.replace(' ', '-')}-is-weak",
                f"The {name} goes only weakly with the loss of plasticity, over all problems together.",
                "section 4.2",
                (
                    Difference(0.5, Association(_AGENTS, metric, INCREASE, tuple(_CONDITIONS)), by=0.0),
                    Difference(Association(_AGENTS, metric, INCREASE, tuple(_CONDITIONS)), -0.5, by=0.0),
                ),
            )
            for metric, name in _STATISTICS.items()
        ),
    ),
    scatter(
        "Statistics of a network against its loss of plasticity",
        INCREASE,
        ("weight norm", "weight_norm", {"cifar10": _where("cifar10"), "mnist": _where("mnist")}),
        ("weight rank", "weight_effective_rank", {"cifar10": _where("cifar10"), "mnist": _where("mnist")}),
        ("dead units", "dead_fraction", {"cnn": _where("cnn"), "mlp": _where("mlp")}),
        ("feature rank", "feature_rank", {word: _where(word) for word in ("easy", "hard", "sparse")}),
    ),
    (Score("", INCREASE),),
    tables={"correlations": _correlations},
)

EXPERIMENTS = (_FALSIFICATION,)
