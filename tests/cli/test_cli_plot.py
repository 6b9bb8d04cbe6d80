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


def test_the_profile_of_one_run_and_of_two(drawn, tmp_path, capsys):
    for name in ("a", "b"):
        _make(tmp_path / name)
    assert cli.main(["plot", "a", "--profile"]) == 0
    assert "profile: a/train_accuracy-profile.png" in capsys.readouterr().out
    assert drawn["train_accuracy-profile"].axes[0].get_xlabel() == "τ of train accuracy"
    assert cli.main(["plot", "a", "b", "--profile", "--metric", "loss", "--out", "both"]) == 0
    axes = drawn["both"].axes[0]
    assert [line.get_label() for line in axes.lines] == ["a: adam", "b: adam"]
    assert axes.get_ylabel() == "share of scores below τ"
    assert cli.main(["plot", "a", "--profile", "--picture", "ntk"]) == cli.USER_ERROR
    assert "got --profile and --picture ntk; wanted one of them" in capsys.readouterr().err


def test_runs_with_other_headlines_share_a_metric(drawn, tmp_path, capsys):
    _make(tmp_path / "one")
    _make(tmp_path / "two", headline="loss")
    assert cli.main(["plot", "one", "two"]) == cli.USER_ERROR
    assert "wanted runs with one headline metric. Choose one with --metric." in capsys.readouterr().err
    assert cli.main(["plot", "one", "two", "--metric", "loss", "--out", "both"]) == 0
    assert [line.get_label() for line in drawn["both"].axes[0].lines] == ["one: adam", "two: adam"]


def _make_agents(path, games=("asterix", "freeway"), *, with_curves=True):
    """Two seeds in three tasks of 10 updates, each with a point in its middle."""
    record = RunRecord("ppo in minatar, mlp", "episode_return", None, {"environment": {"environments": games}})
    with RunFolder.begin(path, record).open_method("adam", {}) as method:
        (block,) = method.blocks(2)
        for task in (1, 2, 3):
            rows = [
                ("b", "adam", "mlp", "d", seed, task, step, metric, value)
                for seed in block.seeds
                for step in (10 * task - 5, 10 * task)
                for metric, value in (
                    ("environment", task % len(games)),
                    ("episode_return", float(step)),
                    *([("dead_phase", float(seed == 1))] if step == 10 * task else []),
                )
            ]
            points = pd.DataFrame(rows, columns=list(COLUMNS))
            at_end = points[points["step"] == 10 * task]
            block.record_task(task, at_end, 1.0, points[points["metric"] != "dead_phase"] if with_curves else None)
    return str(path)


def test_learning_curves_by_environment(drawn, tmp_path, capsys):
    _make_agents(tmp_path / "run")
    assert cli.main(["plot", "run"]) == 0
    printed = capsys.readouterr().out
    assert "figure: run/episode_return.png (and .pdf)\nlearning curves: run/episode_return-curves.png" in printed
    panels = {axes.get_title(): axes.lines[-1].get_xdata().tolist() for axes in drawn["episode_return-curves"].axes}
    assert list(panels) == ["freeway", "asterix"]
    assert panels["asterix"] == [5, 10]
    assert panels["freeway"][:2] + panels["freeway"][3:] == [5, 10, 15, 20]


def test_metrics_without_curves_are_drawn_by_environment(drawn, tmp_path):
    """Of what is recorded at the ends of tasks alone, in several environments, these are the points."""
    for name, with_curves, metric in (("a", True, "dead_phase"), ("b", False, "episode_return")):
        _make_agents(tmp_path / name, with_curves=with_curves)
        assert cli.main(["plot", name, "--metric", metric]) == 0
        assert [axes.lines[-1].get_xdata().tolist() for axes in drawn[f"{metric}-curves"].axes] == [[10, 20], [10]]
    _make_agents(tmp_path / "one", ("asterix",), with_curves=False)
    drawn.clear()
    assert cli.main(["plot", "one"]) == 0
    assert list(drawn) == ["episode_return"]


def test_learning_curves_of_several_runs(drawn, tmp_path):
    _make_agents(tmp_path / "a")
    _make_agents(tmp_path / "b", ("freeway", "asterix"))  # in the other order
    assert cli.main(["plot", "a", "b", "--out", "both"]) == 0
    for axes in drawn["both-curves"].axes:
        labels = [line.get_label() for line in axes.lines if line.get_label().endswith("adam")]
        assert labels == ["a: adam", "b: adam"]
    _make_agents(tmp_path / "without", ("freeway",), with_curves=False)
    drawn.clear()
    assert cli.main(["plot", "a", "without", "--out", "both"]) == 0
    assert list(drawn) == ["both"]


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
