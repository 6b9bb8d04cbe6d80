import numpy as np
import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.results import predictor_figure, predictor_table, save_figure
from strict_types import unchecked

COLUMNS = ["problem", "method", "network", "dataset", "seed", "task", "step", "metric", "value"]


@pytest.fixture(scope="module")
def found():
    """`start_flips` changes its sign with the data set; `start_holds` does not; `start_rank` is constant."""
    draw = np.random.default_rng(0)
    rows = []
    for dataset, sign in (("mnist", 1), ("cifar10", -1)):
        for method in "abc":
            for seed in range(5):
                for task in range(1, 9):
                    y = draw.standard_normal()
                    values = {"train_accuracy": y, "start_flips": sign * y, "start_holds": 2 * y, "start_rank": 1.0}
                    rows += [("p", method, "n", dataset, seed, task, task, name, each) for name, each in values.items()]
    return predictor_table(pd.DataFrame(rows, columns=COLUMNS), "train_accuracy")


def test_rows_columns_and_marks(found):
    figure = predictor_figure(found, title="$x$")
    axes = figure.axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["start holds", "train accuracy", "⇅ start flips"]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    methods = [f"{dataset} {method}" for dataset in ("mnist", "cifar10") for method in "abc"]
    of_all = [f"{dataset} {scope} methods" for scope in ("within", "across") for dataset in ("mnist", "cifar10")]
    assert columns == [*methods, *of_all]
    drawn = axes.images[0].get_array()
    np.testing.assert_allclose(drawn[0], 1.0)
    np.testing.assert_allclose(drawn[2, :6], [1, 1, 1, -1, -1, -1])
    texts = {text.get_position(): text for text in axes.texts}
    assert texts[0, 2].get_text() == "+1.0"
    assert texts[3, 2].get_text() == "−1.0"
    assert texts[0, 2].get_weight() == "bold"
    assert {texts[column, 1].get_weight() for column in range(6)} != {"bold"}
    assert "signs flip" in figure.get_supxlabel()


def test_several_outcomes_have_columns_of_their_own(found):
    both = pd.concat([found, found.assign(outcome="probe_plasticity", partial=-found["partial"])])
    axes = predictor_figure(both[both["scope"] == "across"]).axes
    columns = [label.get_text() for label in axes[0].get_xticklabels()]
    assert columns == [
        f"{dataset} {outcome} across methods"
        for outcome in ("train accuracy", "probe plasticity")
        for dataset in ("mnist", "cifar10")
    ]
    assert axes[1].get_ylabel() == "rank correlation at the same task with the outcome"


def test_the_plain_correlation_has_its_own_flips(found):
    changed = found.assign(flips=False)
    rows = [label.get_text() for label in predictor_figure(changed, "correlation").axes[0].get_yticklabels()]
    assert "start flips" in rows
    assert rows[-1] == "(task number)"
    assert predictor_figure(found, "correlation").axes[1].get_ylabel() == "rank correlation with train accuracy"


def test_the_best_rows_alone(found):
    figure = predictor_figure(found, "correlation", most=1)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["start holds", "(task number)"]


def test_it_is_saved(found, tmp_path):
    for path in save_figure(predictor_figure(found), tmp_path / "predictors"):
        assert path.stat().st_size > 0


def test_what_cannot_be_drawn(found):
    with pytest.raises(UserError, match="got statistic='rank'; wanted 'correlation' or 'partial'"):
        unchecked(predictor_figure)(found, "rank")
    with pytest.raises(UserError, match="got no partial that is a number"):
        predictor_figure(found[found["predictor"] == "start_rank"])
