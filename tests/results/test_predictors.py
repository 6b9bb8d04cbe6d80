import numpy as np
import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.results import TASK_NUMBER, predictor_pairs, predictor_table
from pliant.results._predictors import _flips

COLUMNS = ["problem", "method", "network", "dataset", "seed", "task", "step", "metric", "value"]
SEEDS, TASKS = range(5), range(1, 13)


def table(values, seeds=SEEDS, tasks=TASKS, methods=("a",), problem="p", dataset="d", network="n"):
    """Metrics from `values(method, seed, task) -> {metric: value}`."""
    rows = [
        (problem, method, network, dataset, seed, task, 10 * task, metric, value)
        for method in methods
        for seed in seeds
        for task in tasks
        for metric, value in values(method, seed, task).items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def noise(*place):
    return float(np.random.default_rng(place).standard_normal())


def row(found, predictor, **conditions):
    chosen = found[found["predictor"] == predictor]
    for name, value in conditions.items():
        chosen = chosen[chosen[name] == value]
    (only,) = chosen.to_dict("records")
    return only


def test_what_is_joined_with_what():
    """The end of task t and the start of task t + 1 stand before what is learned in t + 1."""

    def values(_, seed, task):
        return {"dead_fraction": 10 * task, "start_probe_loss": 100 * task, "probe_loss": task, "train_accuracy": -task}

    found = predictor_pairs(table(values, seeds=[3], tasks=[1, 2, 3]), "train_accuracy")
    each = {name: own[["after", "x", "y"]].values.tolist() for name, own in found.groupby("predictor")}
    assert each["dead_fraction"] == [[1, 10, -2], [2, 20, -3]]
    assert each["start_probe_loss"] == [[0, 100, -1], [1, 200, -2], [2, 300, -3]]
    assert each["train_accuracy"] == [[1, -1, -2], [2, -2, -3]]
    found = predictor_pairs(table(values, seeds=[3], tasks=[1, 2, 3]), predictors=["dead_fraction"])
    assert found[["after", "x", "y"]].values.tolist() == [[1, 10, 198], [2, 20, 297]]
    found = predictor_pairs(table(values, seeds=[3], tasks=[1, 2]), "-probe_loss", ["dead_fraction"])
    assert found[["after", "x", "y"]].values.tolist() == [[1, 10, -2]]


def test_plasticity_of_a_next_task_belongs_to_the_same_moment():
    """As in the falsification study of Lyle et al.: what is measured with it is no predictor of it."""
    values = {"probe_plasticity": 0.5, "probe_final_loss": 0.1, "weight_norm": 3.0, "start_weight_norm": 2.0}
    found = predictor_pairs(table(lambda *_: values, seeds=[0], tasks=[1, 2]), "probe_plasticity")
    joined = set(map(tuple, found[["predictor", "after"]].values.tolist()))
    assert joined == {("weight_norm", 1), ("start_weight_norm", 1), ("weight_norm", 2)}


@pytest.mark.parametrize("outcome", ["probe_plasticity", "-probe_plasticity"])
def test_an_outcome_does_not_predict_itself(outcome):
    """Nor does what is measured with it, whichever sign it is given."""

    def values(_, seed, task):
        return {"probe_plasticity": task, "probe_final_loss": -task, "dead_fraction": seed + task}

    found = predictor_pairs(table(values, seeds=[0, 1], tasks=[1, 2]), outcome)
    assert set(found["predictor"]) == {"dead_fraction"}


def test_layers_and_counts_are_no_predictors_unless_named():
    values = {"train_accuracy": 0.5, "weight_norm/head": 1.0, "env_steps": 5.0, "diverged": 0.0}
    metrics = table(lambda *_: values, seeds=[0], tasks=[1, 2])
    assert set(predictor_pairs(metrics, "train_accuracy")["predictor"]) == {"train_accuracy"}
    assert len(predictor_pairs(metrics, "train_accuracy", ["weight_norm/head"])) == 1


def test_a_perfect_predictor_and_noise():
    def values(_, seed, task):
        y = noise(0, seed, task)
        return {"train_accuracy": y, "start_true": y**3, "start_false": -y, "start_noise": noise(1, seed, task)}

    found = predictor_table(table(values), "train_accuracy")
    for statistic in ("correlation", "partial"):
        assert row(found, "start_true")[statistic] == pytest.approx(1.0)
        assert row(found, "start_false")[statistic] == pytest.approx(-1.0)
    of_noise = row(found, "start_noise")
    assert of_noise["low"] < 0 < of_noise["high"]
    assert of_noise["partial_low"] < 0 < of_noise["partial_high"]
    assert (of_noise["num_points"], of_noise["num_seeds"], of_noise["num_dropped"]) == (60, 5, 0)
    assert not found["flips"].any()
    assert set(found["scope"]) == {"within"}


def test_a_trend_alone_is_no_better_than_the_task_number():
    def values(_, seed, task):
        return {"train_accuracy": -task + noise(0, seed, task), "weight_norm": task + noise(1, seed, task)}

    found = predictor_table(table(values), "train_accuracy")
    trend, baseline = row(found, "weight_norm"), row(found, TASK_NUMBER)
    assert trend["high"] < -0.5
    assert baseline["correlation"] < trend["correlation"]
    assert np.isnan(baseline["partial"])
    assert trend["partial_low"] < 0 < trend["partial_high"]


def test_simpsons_paradox_shows_as_opposite_signs_within_and_across():
    """Within each method a larger norm is better; methods with larger norms are worse."""

    def values(method, seed, task):
        own = noise(0, seed, task, ord(method))
        level = 10 * "abcde".index(method)
        return {"train_accuracy": own - level, "start_norm": own + level}

    found = predictor_table(table(values, methods="abcde"), "train_accuracy")
    within = found[(found["predictor"] == "start_norm") & (found["scope"] == "within")]
    pooled = row(found, "start_norm", scope="pooled")
    assert pooled["method"] == "(pooled)"
    assert min(pooled["low"], pooled["partial_low"]) > 0.9
    assert pooled["num_points"] == 5 * 5 * 12
    across = row(found, "start_norm", scope="across")
    assert (within["low"] > 0.9).all()
    assert across["correlation"] == pytest.approx(-1.0)
    assert across["partial"] < -0.9
    assert across["method"] == "(across)"
    assert not found["flips"].any()  # the scopes are different questions
    for scope in ("within", "across"):
        alone = predictor_table(table(values, methods="abcde"), "train_accuracy", scopes=[scope])
        pd.testing.assert_frame_equal(alone, found[found["scope"] == scope].reset_index(drop=True))


def test_a_sign_that_flips_between_streams_is_marked():
    def values(sign):
        def of(_, seed, task):
            y = noise(0, seed, task)
            return {
                "train_accuracy": y,
                "start_flips": sign * y + 0.1 * noise(1, seed, task),
                "start_holds": y + 0.1 * noise(2, seed, task),
                "start_noise": noise(3, seed, task, sign + 1),
            }

        return of

    both = pd.concat([table(values(1), dataset="mnist"), table(values(-1), dataset="cifar10")])
    found = predictor_table(both, "train_accuracy")
    assert found.groupby("predictor")[["flips", "partial_flips"]].all().loc["start_flips"].all()
    others = found[found["predictor"] != "start_flips"]
    assert not others["flips"].any()
    assert not others["partial_flips"].any()
    assert row(found, "start_flips", dataset="mnist")["low"] > 0
    assert row(found, "start_flips", dataset="cifar10")["high"] < 0
    alone = predictor_table(table(values(-1)), "train_accuracy")
    assert not alone["flips"].any()


@pytest.mark.parametrize(("p_value", "flips"), [(0.02, False), (0.004, True)])
def test_flips_are_corrected_for_the_number_of_conditions(p_value, flips):
    """Of ten conditions, one is positive and one negative: 10 · 0.02 is no longer below 0.05, 10 · 0.004 is."""
    conditions = pd.DataFrame(
        {
            "scope": "within",
            "predictor": "norm",
            "correlation": [0.5, -0.5, *[0.1] * 8],
            "p_value": [p_value, p_value, *[0.9] * 8],
        }
    )
    unknown = conditions.assign(p_value=np.nan)  # is not a test
    found = _flips(pd.concat([conditions, unknown]), "correlation", "p_value", 0.05)
    assert found.all() == found.any() == flips


def test_a_constant_is_nan_and_does_not_crash():
    found = predictor_table(
        table(lambda _, seed, task: {"train_accuracy": noise(seed, task), "start_rank": 3.0}, methods="abc"),
        "train_accuracy",
    )
    for scope in ("within", "across"):
        chosen = found[(found["predictor"] == "start_rank") & (found["scope"] == scope)]
        assert chosen[["correlation", "partial", "low", "high"]].isna().all(axis=None)
        assert (chosen["num_points"] > 0).all()


def test_what_is_not_finite_is_dropped_and_counted():
    """A seed that diverges has no outcome, and one diagnostic is infinite once."""

    def values(_, seed, task):
        y = noise(0, seed, task)
        diverged = seed == 4 and task > 6
        infinite = seed == 0 and task == 2
        return {"train_accuracy": np.nan if diverged else y, "start_norm": np.inf if infinite else 2 * y}

    found = row(predictor_table(table(values), "train_accuracy"), "start_norm")
    assert (found["num_points"], found["num_dropped"]) == (53, 7)
    assert found["correlation"] == pytest.approx(1.0)


def test_fewer_than_three_seeds_have_no_interval():
    found = predictor_table(
        table(lambda _, s, t: {"train_accuracy": noise(s, t), "start_x": noise(s, t, 1)}, seeds=range(2)),
        "train_accuracy",
    )
    assert np.isfinite(row(found, "start_x")["correlation"])
    assert found[["low", "high", "p_value", "partial_low"]].isna().all(axis=None)


def test_two_methods_are_not_correlated_across():
    found = predictor_table(
        table(lambda m, s, t: {"train_accuracy": noise(s, t, ord(m)), "start_x": noise(s, t, 1)}, methods="ab"),
        "train_accuracy",
    )
    assert np.isnan(row(found, "start_x", scope="across")["correlation"])


def test_across_methods_by_hand():
    """Means of the predictor 1, 2, 3, 4 and of the outcome 2, 1, 4, 3."""
    outcome = dict(zip("abcd", (2.0, 1.0, 4.0, 3.0), strict=True))

    def values(method, seed, task):
        shift = seed + task  # the same for all methods
        return {"train_accuracy": outcome[method] + shift, "start_x": "abcd".index(method) + 10 * shift}

    across = row(predictor_table(table(values, methods="abcd"), "train_accuracy"), "start_x", scope="across")
    assert across["correlation"] == pytest.approx(0.6)
    assert across["partial"] == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize(
    ("change", "outcome", "message"),
    [
        (lambda m: m.drop(columns=["seed", "value"]), "train_accuracy", "got a table without seed, value; wanted"),
        (lambda m: m, "train_acuracy", "Did you mean 'train_accuracy'"),
        (lambda m: m, "loss_reduced", "Run with --diagnostics start-loss,probe-loss"),
        (lambda m: pd.concat([m, m]), "train_accuracy", "got two values of 'train_accuracy' at the same moment"),
        (lambda m: m[m["task"] == 1], "train_accuracy", "got metrics in which no task follows a measurement"),
    ],
)
def test_what_cannot_be_correlated(change, outcome, message):
    metrics = table(lambda *_: {"train_accuracy": 1.0}, seeds=[0], tasks=[1, 2])
    with pytest.raises(UserError, match=message):
        predictor_table(change(metrics), outcome)


def test_unknown_predictors_and_a_confidence_out_of_range():
    metrics = table(lambda *_: {"train_accuracy": 1.0}, seeds=[0], tasks=[1, 2])
    with pytest.raises(UserError, match="got the metric 'dormant'"):
        predictor_table(metrics, "train_accuracy", ["dormant"])
    with pytest.raises(UserError, match="got confidence=95; wanted a number in"):
        predictor_table(metrics, "train_accuracy", confidence=95)
    with pytest.raises(UserError, match="got the scope 'between'; wanted one of across, pooled, within"):
        predictor_table(metrics, "train_accuracy", scopes=["between"])
    with pytest.raises(UserError, match="got metrics of one method for the scopes across; wanted at least two"):
        predictor_table(metrics, "train_accuracy", scopes=["across"])
