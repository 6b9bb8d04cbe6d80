"""`pliant plot`: any metric of one run or several."""

import pandas as pd
import pytest

from pliant import cli, results
from pliant.results import COLUMNS, RunFolder, RunRecord


def _make(path, **changes):
    record = RunRecord("random-labels on digits, mlp", "train_accuracy", 0.1, {})._replace(**changes)
    with RunFolder.begin(path, record).open_method("adam", {}) as method:
        (block,) = method.blocks(2)
        for task in (1, 2):
            rows = [
                ("b", "adam", "mlp", "d", seed, task, 10, metric, value + 0.1 * seed)
                for seed in block.seeds
                for metric, value in (("train_accuracy", 0.5), ("weight_norm/dense_0/kernel", 30.0), ("loss", 2.0))
            ]
            block.record_task(task, pd.DataFrame(rows, columns=list(COLUMNS)), seconds=1.0)
    return str(path)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Figures are kept, not written."""
    figures = {}

    def keep(figure, path):
        figures[path.name] = figure
        return path.with_suffix(".png"), path

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "save_figure", keep)
    return figures


def test_any_metric(drawn, tmp_path, capsys):
    _make(tmp_path / "run")
    assert cli.main(["plot", "run", "--metric", "weight_norm/dense_0/kernel"]) == 0
    assert "figure: run/weight_norm-dense_0-kernel.png" in capsys.readouterr().out
    axes = drawn["weight_norm-dense_0-kernel"].axes[0]
    assert axes.get_ylabel() == "weight norm/dense 0/kernel"
    assert len(axes.lines) == 1  # no line of chance, which is the headline's
    assert axes.get_ylim()[0] > 29
    assert cli.main(["plot", "run"]) == 0
    assert len(drawn["train_accuracy"].axes[0].lines) == 2


def test_runs_with_other_headlines_share_a_metric(drawn, tmp_path, capsys):
    _make(tmp_path / "one")
    _make(tmp_path / "two", headline="loss")
    assert cli.main(["plot", "one", "two"]) == cli.USER_ERROR
    assert "wanted runs with one headline metric. Choose one with --metric." in capsys.readouterr().err
    assert cli.main(["plot", "one", "two", "--metric", "loss", "--out", "both"]) == 0
    assert [line.get_label() for line in drawn["both"].axes[0].lines] == ["one: adam", "two: adam"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --metric los", "got the metric 'los'; wanted one of loss, train_accuracy, weight_norm/dense_0/kernel. "),
        ("run --metric los", "Did you mean 'loss'? Give one of run."),
        ("run --metric loss --picture dormant", "wanted one of them"),
        ("", "got no run folder"),
        ("~/run", "no config.json"),
    ],
)
def test_what_cannot_be_drawn(drawn, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    _make(tmp_path / "run")
    assert cli.main(["plot", *arguments.split()]) == cli.USER_ERROR
    assert message in capsys.readouterr().err
    assert not drawn


def test_home_in_paths(drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    _make(tmp_path / "run")
    assert cli.main(["plot", "~/run"]) == 0
    assert f"figure: {tmp_path}/run/train_accuracy.png" in capsys.readouterr().out
