"""The table of a tuning, from metrics that were made by hand."""

import math

import pandas as pd
import pytest

from pliant import cli
from pliant.results import COLUMNS, RunFolder, RunRecord
from pliant.tuning import Trial, TuningFolder, TuningRecord, tuning_cells, tuning_table

TRIALS = {
    # value, border, scores of two tuning seeds
    "a": [(0.1, [], (0.5, 0.7)), (0.2, ["x"], (0.9, 0.9)), (0.3, [], (math.nan, 1.0))],
    "b_c": [(0.1, [], (0.8, 0.8)), (0.2, [], (0.8, 0.8)), (0.3, [], (0.1, 0.1))],
    "unfinished": [(0.1, [], (0.5,))],
}
FRESH = {
    # defaults, selected
    "a": ((0.4, 0.5, 0.6), (0.7, 0.9, 0.8)),
    "b_c": ((0.6, 0.6, 0.7), (0.6, 0.6, 0.7)),
}


def write(folder, part, methods, first_seed):
    """Metrics of one task; methods by folder, label and the scores of their seeds."""
    run = RunFolder.begin(folder.path / part, RunRecord("t", folder.record.headline, None, {}))
    for name, scores_of in methods.items():
        with run.open_method(name, {}) as method:
            (block,) = method.blocks(max(map(len, scores_of.values())), first_seed)
            rows = [
                ("p", label, "mlp", "d", seed, 1, 1, metric, value)
                for label, scores in scores_of.items()
                for seed, score in zip(block.seeds, scores, strict=False)
                for metric, value in ((folder.record.headline, score), ("diverged", float(math.isnan(score))))
            ]
            block.record_task(1, pd.DataFrame(rows, columns=list(COLUMNS)), 1.0)


def make(path, headline="train_accuracy"):
    folder = TuningFolder.begin(path, TuningRecord("a title", headline, 1, 3, 2))
    for name, trials in TRIALS.items():
        stored = [Trial({"x": value}, border, "trials", f"{name}[x={value}]") for value, border, _ in trials]
        folder.begin_method(name, stored)
    of_trials = {name: {f"{name}[x={value}]": scores for value, _, scores in trials} for name, trials in TRIALS.items()}
    write(folder, "trials", of_trials, 1000)
    for number, part in enumerate(("defaults", "selected")):
        write(folder, part, {name: {name: scores[number]} for name, scores in FRESH.items()}, 0)
    return TuningFolder(path)


def test_rows(tmp_path):
    table = tuning_table(make(tmp_path)).set_index("method")
    assert list(table.index) == ["a", "b_c", "unfinished"]
    assert table.loc["a", ["selected", "border", "is_default"]].tolist() == ["x=0.2", "x", False]
    assert table.loc["b_c", ["selected", "border", "is_default"]].tolist() == ["x=0.1", "", True]
    assert table.loc["a", ["best_trial", "median_trial", "worst_trial"]].tolist() == pytest.approx([0.9, 0.75, 0.6])
    assert table["num_unsound"].tolist() == [1, 0, 0]
    assert table.loc["a", ["default", "tuned", "gain"]].tolist() == pytest.approx([0.5, 0.8, 0.3])
    half = 4.30265 * (0.01 / 3) ** 0.5
    assert table.loc["a", ["tuned_low", "tuned_high"]].tolist() == pytest.approx([0.8 - half, 0.8 + half], rel=1e-4)
    assert table["rank"].tolist()[:2] == [1, 2]
    assert table["default_rank"].tolist()[:2] == [2, 1]
    assert table.loc["unfinished", ["rank", "tuned", "gain", "best_trial"]].isna().all()


def test_of_errors_the_lower_is_better(tmp_path):
    table = tuning_table(make(tmp_path, "train_squared_error")).set_index("method")
    assert list(table.index) == ["b_c", "a", "unfinished"]
    assert table["selected"].tolist() == ["x=0.3", "x=0.1", ""]
    assert table.loc["a", ["best_trial", "worst_trial"]].tolist() == pytest.approx([0.6, 0.9])


def test_cells(tmp_path):
    header, first, second, third = tuning_cells(tuning_table(make(tmp_path)))
    assert first[header.index("selected")] == "x=0.2*"
    assert second[header.index("selected")] == "the defaults: x=0.1"
    assert first[header.index("gain [95 %]")] == "+0.300 [+0.052, +0.548]"
    assert first[header.index("trials: worst, median, best")] == "0.600, 0.750, 0.900 (1 of 3 diverged)"
    assert third[1:] == ["–"] * 5 + ["–, –, –", "–"]


def test_show(tmp_path, capsys):
    make(tmp_path)
    for format, text in (("table", "+0.300"), ("csv", "a,3,0.8"), ("markdown", "| b\\_c |"), ("latex", r"b\_c & ")):
        assert cli.main(["show", str(tmp_path), "--format", format]) == 0
        assert text in capsys.readouterr().out
    assert cli.main(["show", str(tmp_path / "selected"), "--baseline", "b_c"]) == 0
    assert cli.main(["show", str(tmp_path), "--baseline", "a"]) == cli.USER_ERROR
    assert "got --baseline a for a tuning; wanted a run folder. Look at what was selected" in capsys.readouterr().err


def test_methods_are_compared_on_the_seeds_that_all_have(tmp_path):
    """Another method has a fourth seed, in which it is bad: the three that are shared decide."""
    folder = make(tmp_path)
    write(folder, "selected", {"d": {"d": (0.95, 0.95, 0.95, 0.0)}}, 0)
    folder.begin_method("d", [Trial({"x": 0.1}, [], "trials-2", "d[x=0.1]")])
    table = tuning_table(TuningFolder(tmp_path)).set_index("method")
    assert table.loc["d", ["rank", "num_seeds"]].tolist() == [1, 3]
    assert table.loc["d", "tuned"] == pytest.approx(0.95)
    assert table.loc["a", ["rank", "num_seeds"]].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("file", "content", "lacking"),
    [
        ("tune.json", "{}", "title, headline, num_tasks, num_trials, num_tuning_seeds"),
        ("tune.json", "[]", "title, headline"),
        ("spaces/a.json", "{}", "trials"),
        ("spaces/a.json", "[]", "trials"),
        ("spaces/a.json", '{"trials": []}', "trials"),
        ("spaces/a.json", '{"trials": [{"values": {}}]}', "border, part, label"),
        ("spaces/a.json", '{"trials": [1]}', "values, border, part, label"),
    ],
)
def test_damaged_files_are_named(file, content, lacking, tmp_path, capsys):
    make(tmp_path)
    (tmp_path / file).write_text(content)
    assert cli.main(["show", str(tmp_path)]) == cli.USER_ERROR
    assert f"{file}, which is damaged: it lacks {lacking}" in capsys.readouterr().err
