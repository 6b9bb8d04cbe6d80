"""`pliant tune`: what its words mean. Nothing is trained but in the last test."""

import pytest

from pliant import cli, tuning
from pliant.errors import UserError
from pliant.rl import AgentConfig
from pliant.tuning import TuningFolder


@pytest.fixture
def planned(monkeypatch, tmp_path):
    """What would be tuned."""
    found = []

    def look(tuned, plan, path, data_dir, *, report, leave_out):
        found.append((tuned, [method.method.name for method in plan.methods], path, leave_out))
        raise UserError(got="a tuning", wanted="no training", do="Go on.")

    monkeypatch.setattr(tuning, "tune_methods", look)
    monkeypatch.chdir(tmp_path)
    return found


def test_a_stream(planned, capsys):
    words = "tune random-labels --methods adam redo --set redo.every=7 --trials 4 --tasks 2 --out here"
    assert cli.main(words.split()) == cli.USER_ERROR
    ((tuned, methods, path, leave_out),) = planned
    assert (tuned.trials, tuned.tuning_seeds, tuned.config.seeds, tuned.config.tasks) == (4, 3, 10, 2)
    assert tuned.fixed == ("redo.every=7",)
    assert (methods, str(path), leave_out) == (["adam", "redo"], "here", None)
    assert "tuning: here" in capsys.readouterr().out


def test_an_agent(planned):
    assert cli.main("tune cartpole --methods adam --seeds 3 --env-steps 8192".split()) == cli.USER_ERROR
    ((tuned, _, path, _),) = planned
    assert isinstance(tuned.config, AgentConfig)
    assert tuned.config.seeds == 3
    assert path.parts[0] == "runs"
    assert path.name.startswith("tune-cartpole-")


def test_a_benchmark_brings_its_choices_but_neither_seeds_nor_a_grid(planned):
    """What it sets for a method is where that starts; it is not fixed."""
    words = "tune isometry/continual-minatar --scale smoke --methods adam adamo"
    assert cli.main(words.split()) == cli.USER_ERROR
    ((tuned, _, path, _),) = planned
    assert tuned.config.settings
    assert (tuned.config.grid, tuned.config.seeds, tuned.fixed) == ((), 10, ())
    assert path.name.startswith("tune-isometry-continual-minatar-smoke-")


def test_all_methods(planned, capsys):
    words = "tune random-labels --methods all --network cnn --tasks 1 --train-size 40"
    assert cli.main(words.split()) == cli.USER_ERROR
    ((_, methods, _, leave_out),) = planned
    assert "adam" in methods
    assert "two-hot" not in methods
    assert "without two-hot: got" in capsys.readouterr().out
    leave_out("mine", "a reason")
    assert capsys.readouterr().out == "without mine: a reason\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tune random-labels --trials 0", "got trials=0"),
        ("tune random-labels --methods adam --grid learning_rate=1,2", "got --grid learning_rate=1,2 for a tuning"),
        ("tune random-labels --methods adamoo", "Did you mean 'adamo'"),
        ("tune kumar/permuted-mnits", "Did you mean 'kumar/permuted-mnist'"),
        ("show .", "has no config.json"),
    ],
)
def test_what_is_refused(words, message, planned, capsys):
    assert cli.main(words.split()) == cli.USER_ERROR
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.splitlines()) == 1
    assert not planned


@pytest.mark.whole
def test_from_the_words_to_the_table_and_the_page(tmp_path, capsys, monkeypatch):
    words = "tune random-labels --methods adam --trials 2 --tuning-seeds 1 --seeds 1 --tasks 1 --epochs 1 --widths 8"
    assert cli.main([*words.split(), "--out", str(tmp_path / "tune")]) == 0
    printed = capsys.readouterr().out
    assert "adam, 2 trials: task 1 of 1" in printed
    assert "adam, defaults: task 1 of 1" in printed
    assert "tuned [95 %]" in printed
    assert TuningFolder(tmp_path / "tune").selected("adam") in (0, 1)
    pytest.importorskip("plotly", reason="the extra report is not installed")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "--tuned", "tune"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('<section class="run"') == 1
    assert "Tuned comparison" in page
    assert "learning_rate=" in page
    assert cli.main(["report", "--tuned", "tune/selected"]) == cli.USER_ERROR
    assert "got tune/selected, which holds no tune.json" in capsys.readouterr().err
