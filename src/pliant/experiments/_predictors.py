"""Which diagnostic predicts plasticity? Every diagnostic against what the next task then shows."""

from collections.abc import Iterable, Mapping

import pandas as pd
from matplotlib.figure import Figure

from pliant.errors import UserError
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
    tables = []
    for outcome in outcomes:
        needed = {"start_probe_loss", "probe_loss"} if outcome == LOSS_REDUCED else {outcome.removeprefix("-")}
        there = [
            as_one_problem(results[run], run)
            for run in OUTCOMES[outcome]
            if run in results and needed <= set(results[run].metrics["metric"])
        ]
        if there:
            tables.append(predictor_table(pd.concat(there), outcome))
    if not tables:
        raise UserError(
            got="no results of this experiment", wanted="at least one run", do="Run it with `pliant reproduce`."
        )
    return pd.concat(tables, ignore_index=True)


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


def _figure(results: Mapping[str, Results]) -> Figure:
    """At the same task: within methods, and across them."""
    table = predictions(results)
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
