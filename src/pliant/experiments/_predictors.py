"""Which diagnostic predicts plasticity? Every diagnostic against what the next task then shows."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pliant.errors import UserError, unknown_name
from pliant.experiments._claims import Claim, Difference
from pliant.experiments._experiment import Experiment
from pliant.experiments._quantities import Prediction, as_one_problem
from pliant.experiments._tables import Results
from pliant.results import LOSS_REDUCED, predictor_figure, predictor_table

_LABELS = ("labels-digits", "labels-mnist", "pixels-mnist")
OUTCOMES: Mapping[str, tuple[str, ...]] = {
    "train_accuracy": _LABELS,
    "-online_squared_error": ("regression",),
    LOSS_REDUCED: (*_LABELS, "regression"),
    "-probe_loss": (*_LABELS, "regression"),
    "probe_plasticity": (*_LABELS, "regression", "mdp-mnist"),
}
"""What is to be predicted, larger is better, and in which runs it means that."""

_FALSIFIED = ("weight_norm", "weight_effective_rank", "dead_fraction", "feature_rank")
"""What Lyle et al. correlate with plasticity in figure 3: for each they find problems with opposite signs."""

_LEARNED: Mapping[str, str] = dict.fromkeys(_LABELS, "train_accuracy")
_COUNTS = 0.3  # the smallest correlation that is called a prediction


def predictions(results: Mapping[str, Results], outcomes: Iterable[str] = OUTCOMES) -> pd.DataFrame:
    """Correlates every diagnostic with outcomes of the next task: see `pliant.results.predictor_table`.

    Use it on `stored_results(EXPERIMENTS["predictors/next-task"])` to look at more than the figure shows. Runs in which
    an outcome was not measured are left out of it.

    Args:
      results: by the label of the run.
      outcomes: names in `OUTCOMES`; all by default.

    Raises:
      UserError: if there are none.
    """
    return _joined(_table_of(results, outcome, OUTCOMES[outcome]) for outcome in outcomes)


def _table_of(results: Mapping[str, Results], outcome: str, runs: Iterable[str]) -> pd.DataFrame | None:
    """The correlations with one outcome; None if no run has it."""
    needed = {"start_probe_loss", "probe_loss"} if outcome == LOSS_REDUCED else {outcome.removeprefix("-")}
    there = [
        as_one_problem(results[run], run)
        for run in runs
        if run in results and needed <= set(results[run].metrics["metric"])
    ]
    return predictor_table(pd.concat(there), outcome) if there else None


def _joined(tables: Iterable[pd.DataFrame | None]) -> pd.DataFrame:
    there = [table for table in tables if table is not None]
    if not there:
        raise UserError(
            got="no results of this experiment", wanted="at least one run", do="Run it with `pliant reproduce`."
        )
    return pd.concat(there, ignore_index=True)


def falsified(results: Mapping[str, Results]) -> pd.DataFrame:
    """The row of the falsification study: the signs of its four statistics with probe plasticity, by condition.

    A condition is a method in a run. Signs count where the 95 % interval excludes 0.

    Args:
      results: by the label of the run.

    Returns:
      Columns `predictor`, `positive`, `negative` and `open` (numbers of conditions), and `flips`.
    """
    table = predictions(results, ["probe_plasticity"])
    table = table[table["scope"] == "within"]
    rows = []
    for name in _FALSIFIED:
        own = table[table["predictor"] == name]
        positive, negative = int((own["low"] > 0).sum()), int((own["high"] < 0).sum())
        flips = bool(own["flips"].any())
        rows.append((name, positive, negative, len(own) - positive - negative, flips))
    return pd.DataFrame(rows, columns=["predictor", "positive", "negative", "open", "flips"])


def strongest(results: Mapping[str, Results]) -> pd.DataFrame:
    """How many diagnostics predict the next task in each run, and which does so best.

    Use it for a summary: within methods it says whether a diagnostic tells which seed learns better, across methods
    whether it tells which method does. Task means are subtracted.

    Args:
      results: by the label of the run.

    Returns:
      A row for each run and scope, "pooled" (within methods) or "across". Columns `run`; `outcome`, the first of
      `OUTCOMES` that the run has; `scope`; `told`, the number of metrics whose 95 % interval excludes 0; `of`, how many
      have an interval; `predictor`, that with the largest correlation among those told, and its `partial` correlation.

    Raises:
      UserError: for a run of another experiment, or one in which the outcome was not measured.
    """
    rows = []
    for run, of_run in results.items():
        outcome = _main_outcome(run)
        if of_run.metrics.empty:  # it cannot be used
            continue
        table = predictions({run: of_run}, [outcome])
        for scope in ("pooled", "across"):
            own = table[(table["scope"] == scope) & table["partial_low"].notna()]
            told = own[(own["partial_low"] > 0) | (own["partial_high"] < 0)]
            best = told.sort_values("partial", key=abs, ascending=False)[["predictor", "partial"]].head(1)
            named = best.iloc[0].tolist() if len(best) else ["", np.nan]
            rows.append((run, outcome, scope, len(told), len(own), *named))
    return pd.DataFrame(rows, columns=["run", "outcome", "scope", "told", "of", "predictor", "partial"])


def _main_outcome(run: str) -> str:
    for outcome, runs in OUTCOMES.items():
        if run in runs:
            return outcome
    known = sorted({run for runs in OUTCOMES.values() for run in runs})
    raise unknown_name("run", run, known, do="Pass the results of predictors/next-task.")


def _figure(results: Mapping[str, Results]) -> Figure:
    """At the same task: within methods, and across them. Of each run the outcome that it is judged by."""
    table = _joined(_table_of(results, _main_outcome(run), [run]) for run in results)
    shown = table[table["scope"] != "within"]
    return predictor_figure(shown, "partial", "Which diagnostic predicts the next task?", most=30)


def _predicts(name: str, sentence: str, source: str, predictor: str, sign: int = 1) -> Claim:
    found = Prediction(predictor, _LEARNED)
    compared = Difference(found, 0.0, _COUNTS) if sign > 0 else Difference(0.0, found, _COUNTS)
    return Claim(name, sentence, source, (compared,))


_NEXT_TASK = Experiment(
    "predictors/next-task",
    "Which diagnostic predicts how well the next task is learned?",
    "Lyle et al. 2023 (arXiv 2303.01486), section 4; Wang et al. 2026 (arXiv 2605.09044); arXiv 2509.19698 and "
    "2509.22335",
    "No simple statistic explains the loss of plasticity everywhere (Lyle et al.); readiness, gradient noise, the "
    "volatility of the curvature and the rank of the Hessian are said to predict it.",
    {name: f"predictors/{name}" for name in (*_LABELS, "regression", "mdp-mnist")},
    (
        _predicts(
            "readiness-predicts",
            "Optimization readiness predicts how well the next task is learned.",
            "arXiv 2605.09044, abstract",
            "start_readiness",
        ),
        Claim(
            "readiness-beats-rank",
            "Optimization readiness predicts it better than the effective rank of the features.",
            "arXiv 2605.09044, abstract",
            (Difference(Prediction("start_readiness", _LEARNED), Prediction("effective_rank", _LEARNED), by=0.0),),
        ),
        _predicts(
            "gradient-noise-predicts",
            "Noisy gradients at the start of a task go before worse learning.",
            "arXiv 2509.19698, abstract",
            "start_readiness_reliability",  # falls as the noise grows, and is finite without a signal
        ),
        _predicts(
            "curvature-volatility-predicts",
            "A sharpness that differs between mini-batches goes before worse learning.",
            "arXiv 2509.19698, abstract",
            "start_curvature_volatility",
            sign=-1,
        ),
        _predicts(
            "hessian-rank-predicts",
            "Loss of rank of the Hessian at the start of a task goes before worse learning.",
            "arXiv 2509.22335, abstract",
            "start_hessian_rank",
        ),
        _predicts(
            "dormant-units-predict",
            "Dormant units go before worse learning.",
            "Sokar et al. 2023 (arXiv 2302.12902), section 3",
            "dormant_fraction",
            sign=-1,
        ),
        _predicts(
            "effective-rank-predicts",
            "A low effective rank of the features goes before worse learning.",
            "Dohare et al. 2024 (Nature 632), figure 4",
            "effective_rank",
        ),
    ),
    _figure,
)

EXPERIMENTS = (_NEXT_TASK,)
