"""The study of predictors: a diagnostic whose sign depends on the stream, one that predicts everywhere, and noise."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.experiments import BENCHMARKS, NotMeasuredError, Results, falsified, predictions, strongest
from pliant.experiments._predictors import OUTCOMES
from pliant.problems import make_plan


@pytest.fixture(scope="module")
def results():
    """The norm is good in one stream and bad in the other, dead units are bad in both, ranks are noise."""
    draw, found = np.random.default_rng(0), {}
    for name, sign in (("labels-digits", 1), ("mdp-mnist", -1)):
        rows = []
        for method in ("adam", "redo", "adamo"):
            for seed in range(5):
                for task in range(1, 11):
                    y = draw.standard_normal()
                    values = {"probe_plasticity": y, "weight_norm": sign * y, "dead_fraction": -y}
                    values |= {"feature_rank": draw.standard_normal(), "weight_effective_rank": 1.0, "probe_loss": y}
                    values |= {"start_probe_loss": y + task, "train_accuracy": draw.random()}
                    rows += [(method, seed, task, metric, value) for metric, value in values.items()]
        metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
        found[name] = Results(metrics, "train_accuracy", 10)
    return found


def test_the_row_of_the_falsification_study(results):
    found = falsified(results).set_index("predictor")
    assert found.loc["weight_norm"].tolist() == [3, 3, 0, True]
    assert found.loc["dead_fraction"].tolist() == [0, 6, 0, False]
    assert found.loc["weight_effective_rank"].tolist() == [0, 0, 6, False]
    assert not found.loc["feature_rank", "flips"]


def test_the_strongest_predictors(results):
    """Labels are judged by accuracy, which is noise; the MDP by plasticity, which the norm and dead units predict."""
    found = strongest(results).set_index(["run", "scope"])
    assert set(found["outcome"]) == {"train_accuracy", "probe_plasticity"}
    assert found.loc[("mdp-mnist", "pooled"), ["predictor", "partial"]].tolist() == ["weight_norm", pytest.approx(-1)]
    assert found.loc[("mdp-mnist", "pooled"), "told"] >= 2


def test_every_outcome_is_correlated_in_its_runs(results):
    found = predictions(results)
    pairs = found.groupby("outcome")["problem"].unique().map(list).to_dict()
    both = ["labels-digits", "mdp-mnist"]
    assert pairs == {
        "train_accuracy": both[:1],
        "loss_reduced": both[:1],
        "-probe_loss": both[:1],
        "probe_plasticity": both,
    }
    norm = found[(found["predictor"] == "weight_norm") & (found["outcome"] == "probe_plasticity")]
    assert set(norm["scope"]) == {"within", "pooled", "across"}
    assert norm.loc[norm["scope"] == "pooled", "partial"].round(6).tolist() == [1.0, -1.0]


def test_without_results():
    with pytest.raises(UserError, match="no results of this experiment"):
        predictions({})


def test_of_one_method_nothing_is_told(results):
    """As of a run whose second method has not begun."""
    own = results["mdp-mnist"]
    alone = {"mdp-mnist": dataclasses.replace(own, metrics=own.metrics[own.metrics["method"] == "adam"])}
    with pytest.raises(NotMeasuredError, match="no results of this experiment"):
        strongest(alone)
    assert falsified(alone)["predictor"].tolist() == falsified(results)["predictor"].tolist()
    other = results["labels-digits"].metrics
    both = alone | {"labels-digits": dataclasses.replace(own, metrics=other[other["method"] == "redo"])}
    with pytest.raises(NotMeasuredError, match="two methods, two tasks"):
        predictions(both, (each for each in ["probe_plasticity"]), scopes=["pooled"])


def test_statistics_are_of_the_runs_with_plasticity(results):
    """A statistic that only another run has measured is left out."""
    own = results["mdp-mnist"].metrics
    lacking = dataclasses.replace(results["mdp-mnist"], metrics=own[own["metric"] != "feature_rank"])
    other = results["labels-digits"].metrics
    without = dataclasses.replace(results["labels-digits"], metrics=other[other["metric"] != "probe_plasticity"])
    found = falsified({"mdp-mnist": lacking, "labels-digits": without})
    assert found["predictor"].tolist() == ["weight_norm", "weight_effective_rank", "dead_fraction"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outcomes": ["accuracy"]}, "got the outcome 'accuracy'; wanted one of"),
        ({"predictors": ["weight_nrom"]}, "got the metric 'weight_nrom'; wanted one of .* Did you mean 'weight_norm'"),
        ({"scopes": ["between"]}, "got the scope 'between'; wanted one of"),
    ],
)
def test_names_that_are_unknown(results, arguments, message):
    with pytest.raises(UserError, match=message):
        predictions(results, **arguments)


def test_runs_of_another_experiment(results):
    with pytest.raises(UserError, match="elsewhere"):
        strongest({"elsewhere": results["mdp-mnist"]})


@pytest.mark.parametrize("name", ["labels-digits", "regression"])
def test_every_diagnostic_suits_its_stream(name):
    plan = make_plan(BENCHMARKS[f"predictors/{name}"].configs["cpu"])
    assert len(plan.methods) == 6
    assert not any(method.unmeasured for method in plan.methods)


def test_outcomes_are_of_benchmarks():
    assert {f"predictors/{run}" for runs in OUTCOMES.values() for run in runs} <= set(BENCHMARKS)
