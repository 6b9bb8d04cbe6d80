"""Which diagnostic predicts plasticity? Rank correlations with what is learned in the next task.

    python docs/what_predicts.py [RUN_DIR] [NAME ...]

Trains six methods with five seeds in five streams, measures diagnostics after every task and at the start of every
task, and correlates them with what the next task shows: accuracy (or error), loss reduced, loss left, and probe
plasticity (Lyle et al. 2023, equation 4). See `pliant.results.predictor_table`. With names, only these streams are run;
a stream that was run before is only read. RUN_DIR (runs/what-predicts) gets predictors-OUTCOME.csv, and two figures for
each outcome: the correlation, and the correlation at the same task.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import pliant
from pliant.results import LOSS_REDUCED, RunFolder, predictor_figure, predictor_table, save_figure
from pliant.xla import guard

TASKS, SEEDS = 10, 5
METHODS = ("adam", "l2-init", "redo", "shrink-perturb", "layernorm", "adamo")
DIAGNOSTICS = (
    "standard,jacobian,ntk,hessian-top,readiness,gradient-noise,curvature-volatility,hessian-rank",
    "probe-plasticity:num_steps=500:num_targets=5",
)
_SMALL = {"widths": (64, 64), "train_size": 1500}
RUNS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "labels-digits": ("random-labels", _SMALL | {"dataset": "digits"}),
    "labels-mnist": ("random-labels", _SMALL | {"dataset": "mnist"}),
    "pixels-mnist": ("permuted-pixels", _SMALL | {"dataset": "mnist", "epochs": 5}),
    "regression": (
        "slowly-changing-regression",
        {
            "widths": (20,),
            "use_bias": True,
            "batch_size": 1,
            "epochs": 1,
            "learning_rate": 0.003,
            "settings": ("slowly-changing-regression.change=all", "slowly-changing-regression.num_examples=5000"),
        },
    ),
    "mdp-mnist": (
        "classification-mdp",
        {
            "agent": "dqn",
            "dataset": "mnist",
            "widths": (64, 64),
            "batch_size": 32,
            "env_steps": 5000,
            "settings": ("classification-mdp.variant=hard", "classification-mdp.redraw=true"),
        },
    ),
}
"""Streams by name: the problem, and what differs from its defaults."""

OUTCOMES: Mapping[str, Sequence[str]] = {
    "train_accuracy": ("labels-digits", "labels-mnist", "pixels-mnist"),
    "-online_squared_error": ("regression",),
    LOSS_REDUCED: ("labels-digits", "labels-mnist", "pixels-mnist", "regression"),
    "-probe_loss": ("labels-digits", "labels-mnist", "pixels-mnist", "regression"),
    "probe_plasticity": tuple(RUNS),
}
"""What is to be predicted, larger is better, and in which streams it means that."""

FALSIFIED = ("weight_norm", "weight_effective_rank", "dead_fraction", "feature_rank")
"""What Lyle et al. correlate with plasticity in figure 3: for each they find problems with opposite signs."""


def train(name: str, folder: Path, **changes: Any) -> RunFolder:
    """Trains all methods in a stream, or continues."""
    problem, choices = RUNS[name]
    shared = {"methods": METHODS, "seeds": SEEDS, "tasks": TASKS, "diagnostics": DIAGNOSTICS}
    asked = shared | choices | changes
    return pliant.run(problem, out=folder / name, diagnose_after=tuple(range(1, asked["tasks"] + 1)), **asked)


def metrics_of(folder: Path, names: Sequence[str]) -> pd.DataFrame:
    """The metrics of streams that were run, the stream's name as the problem."""
    found = [RunFolder(folder / name).metrics.assign(problem=name) for name in names if (folder / name).exists()]
    return pd.concat(found) if found else pd.DataFrame()


def falsified(table: pd.DataFrame) -> pd.DataFrame:
    """The row of the falsification study: in how many conditions each of its four has which sign.

    Args:
      table: from `predictor_table`.
    """
    rows = []
    for name in FALSIFIED:
        own = table[(table["predictor"] == name) & (table["scope"] == "within")]
        low, high = own["low"], own["high"]
        rows.append(
            {
                "predictor": name,
                "positive": int((low > 0).sum()),
                "negative": int((high < 0).sum()),
                "open": int((~(low > 0) & ~(high < 0)).sum()),
                "flips": bool(own["flips"].any()),
            }
        )
    return pd.DataFrame(rows)


def report(folder: Path) -> None:
    """Writes the tables and figures of all streams that were run."""
    for outcome, names in OUTCOMES.items():
        metrics = metrics_of(folder, names)
        if metrics.empty:
            continue
        table = predictor_table(metrics, outcome)
        name = outcome.replace("-", "minus-").replace("_", "-")
        table.to_csv(folder / f"predictors-{name}.csv", index=False)
        for statistic in ("correlation", "partial"):
            figure = predictor_figure(table, statistic)  # type: ignore[arg-type]
            print(save_figure(figure, folder / f"predictors-{name}-{statistic}")[0])
        if outcome == "probe_plasticity":
            print(falsified(table).to_string(index=False))


if __name__ == "__main__":
    guard.use_every_core()
    arguments = sys.argv[1:]
    into = Path(arguments.pop(0) if arguments and arguments[0] not in RUNS else "runs/what-predicts")
    for each in arguments or RUNS:
        train(each, into)
    report(into)
