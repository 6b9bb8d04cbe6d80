"""Which diagnostic predicts plasticity? Every diagnostic against what the next task then shows."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pliant.errors import unknown_name
from pliant.experiments._claims import Claim, Difference
from pliant.experiments._experiment import Experiment
from pliant.experiments._quantities import NotMeasuredError, Prediction, as_one_problem
from pliant.experiments._tables import Results
from pliant.results import LOSS_REDUCED, SCOPES, predictor_figure, predictor_pairs, predictor_table

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

_OF_METHODS = ("pooled", "across")  # methods taken together, and against each other
_LEARNED: Mapping[str, str] = dict.fromkeys(_LABELS, "train_accuracy")
_COUNTS = 0.3  # the smallest correlation that is called a prediction


def predictions(
    results: Mapping[str, Results],
    outcomes: Iterable[str] = OUTCOMES,
    predictors: Sequence[str] | None = None,
    scopes: Sequence[str] = SCOPES,
) -> pd.DataFrame:
    """Correlates every diagnostic with outcomes of the next task: see `pliant.results.predictor_table`.

    Use it on `stored_results(EXPERIMENTS["predictors/next-task"])` to look at more than the figure shows. Runs in which
    an outcome was not measured are left out of it.

    Args:
      results: by the label of the run.
      outcomes: names in `OUTCOMES`; all by default.
      predictors: metrics; all by default.
      scopes: within methods, pooled or across them; all by default.

    Raises:
      NotMeasuredError: if there are none.
      UserError: for an unknown outcome, predictor or scope.
    """
    outcomes = tuple(outcomes)
    for outcome in outcomes:
        if outcome not in OUTCOMES:
            raise unknown_name("outcome", outcome, OUTCOMES, do="Choose among these.")
    return _joined(_table_of(results, outcome, OUTCOMES[outcome], predictors, scopes) for outcome in outcomes)


def _table_of(
    results: Mapping[str, Results],
    outcome: str,
    runs: Iterable[str],
    predictors: Sequence[str] | None = None,
    scopes: Sequence[str] = SCOPES,
) -> pd.DataFrame | None:
    """The correlations with one outcome; None if no run has it."""
    needed = {"start_probe_loss", "probe_loss"} if outcome == LOSS_REDUCED else {outcome.removeprefix("-")}
    there = [
        as_one_problem(results[run], run)
        for run in runs
        if run in results and needed <= set(results[run].metrics["metric"])
    ]
    if not there:
        return None
    metrics = pd.concat(there)
    pairs = predictor_pairs(metrics, outcome, predictors)
    num_methods = pairs.groupby("problem")["method"].nunique().max()
    if pairs.empty or ("within" not in scopes and num_methods < 2):  # of runs that have just begun
        return None
    return predictor_table(metrics, outcome, predictors, scopes=scopes)


def _joined(tables: Iterable[pd.DataFrame | None]) -> pd.DataFrame:
    there = [table for table in tables if table is not None]
    if not there:
        raise _nothing_to_correlate()
    return pd.concat(there, ignore_index=True)


def _nothing_to_correlate() -> NotMeasuredError:
    return NotMeasuredError(
        got="no results of this experiment that can be correlated",
        wanted="a run of this experiment with two methods, two tasks, and its outcome",
        do="Run it with `pliant reproduce`.",
    )


def falsified(results: Mapping[str, Results]) -> pd.DataFrame:
    """The row of the falsification study: the signs of its four statistics with probe plasticity, by condition.

    A condition is a method in a run. Signs count where the 95 % interval excludes 0.

    Args:
      results: by the label of the run.

    Returns:
      A row for each of the four that was measured. Columns `predictor`, `positive`, `negative` and `open` (numbers of
      conditions), and `flips`.
    """
    runs = [results[run].metrics for run in OUTCOMES["probe_plasticity"] if run in results]
    own_names = [set(metrics["metric"]) for metrics in runs]
    measured = set().union(*(names for names in own_names if "probe_plasticity" in names))
    statistics = [name for name in _FALSIFIED if name in measured]
    table = predictions(results, ["probe_plasticity"], statistics, ["within"])
    rows = []
    for name in statistics:
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
      NotMeasuredError: if no run has its outcome.
      UserError: for a run of another experiment.
    """
    rows = []
    for run, of_run in results.items():
        outcome = _main_outcome(run)
        table = _table_of({run: of_run}, outcome, [run], scopes=_OF_METHODS)
        if table is None:
            continue
        for scope in _OF_METHODS:
            own = table[(table["scope"] == scope) & table["partial_low"].notna()]
            told = own[(own["partial_low"] > 0) | (own["partial_high"] < 0)]
            best = told.sort_values("partial", key=abs, ascending=False)[["predictor", "partial"]].head(1)
            named = best.iloc[0].tolist() if len(best) else ["", np.nan]
            rows.append((run, outcome, scope, len(told), len(own), *named))
    if not rows:
        raise _nothing_to_correlate()
    return pd.DataFrame(rows, columns=["run", "outcome", "scope", "told", "of", "predictor", "partial"])


def _main_outcome(run: str) -> str:
    for outcome, runs in OUTCOMES.items():
        if run in runs:
            return outcome
    known = sorted({run for runs in OUTCOMES.values() for run in runs})
    raise unknown_name("run", run, known, do="Pass the results of predictors/next-task.")


def _figure(results: Mapping[str, Results]) -> Figure:
    """At the same task: within methods, and across them. Of each run the outcome that it is judged by."""
    shown = _joined(_table_of(results, _main_outcome(run), [run], scopes=_OF_METHODS) for run in results)
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
    tables={"predictors": strongest, "signs": falsified},
)

EXPERIMENTS = (_NEXT_TASK,)
