"""`pliant show`: a run's table in several formats, and what is behind every name."""

import io

import pandas as pd
import pytest

from pliant import cli
from pliant.cli._guide import WHEN
from pliant.diagnostics import DIAGNOSTICS, SETS
from pliant.experiments import BENCHMARKS
from pliant.methods import METHODS, defaults, option_meanings
from pliant.networks import NETWORKS
from pliant.results import COLUMNS, RunFolder, RunRecord
from pliant.rl import AGENTS
from pliant.rl.environments import ENVIRONMENTS
from pliant.settings import meanings, options
from pliant.streams import DATASETS, STREAMS, TRANSITIONS

NAMES = {
    "method": METHODS,
    "stream": STREAMS,
    "transition": TRANSITIONS,
    "dataset": DATASETS,
    "network": NETWORKS,
    "diagnostic": DIAGNOSTICS,
    "set of diagnostics": SETS,
    "agent": AGENTS,
    "environment": ENVIRONMENTS,
}


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    folder = RunFolder.begin(tmp_path / "run", RunRecord("random-labels on digits, mlp", "train_accuracy", 0.1, {}))
    for name in ("adam", "a_b"):
        with folder.open_method(name, {}) as method:
            (block,) = method.blocks(3)
            for task in (1, 2):
                rows = [
                    ("b", name, "mlp", "d", seed, task, 10, metric, 0.1 * seed + 0.2 * task + 0.01 * (name == "a_b"))
                    for seed in block.seeds
                    for metric in ("train_accuracy", "dormant_fraction")
                ]
                block.record_task(task, pd.DataFrame(rows, columns=list(COLUMNS)), seconds=0.5)
    return str(folder.path)


def _shown(capsys, *arguments):
    assert cli.main(["show", *arguments]) == 0
    return capsys.readouterr().out


def test_everything_that_is_named_has_its_sentence():
    assert {kind: set(names) for kind, names in NAMES.items()} == {kind: set(each) for kind, each in WHEN.items()}
    for sentences in WHEN.values():
        assert all(sentence.endswith((".", "?")) and len(sentence) < 110 for sentence in sentences.values())


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_is_explained(kind, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    for name in NAMES[kind]:
        shown = _shown(capsys, name)
        assert f"{kind} {name}\n" in shown
        assert f"Use it {WHEN[kind][name]}" in " ".join(shown.split())
        assert ">>>" not in shown


def test_every_option_has_a_meaning():
    for method in METHODS.values():
        assert {name: bool(text) for name, text in option_meanings(method).items()} == dict.fromkeys(
            defaults(method), True
        ), method.name
    for name, factory in {**STREAMS, **NETWORKS, **AGENTS, **ENVIRONMENTS}.items():
        assert set(options(factory)) <= set(meanings(factory)), name
    for diagnostic in DIAGNOSTICS.values():
        assert not diagnostic.make or set(options(diagnostic.make)) <= set(meanings(diagnostic.make)), diagnostic.name


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("redo", ("threshold", "0.025", "τ; 0 resets units that are exactly silent", "--set redo.learning_rate=0.001")),
        ("label-noise", ("last_noise", "p of the last task, in [0, 1]", "--tasks", "20")),
        ("mlp", ("--use-bias", "False", "--widths", "gain", "singular values of the hidden kernels")),
        ("task-sampling", ("--micro-steps", "Granularity of a gradual transition")),
        ("mnist", ("ylecun/mnist", "--train-size")),
        ("ntk", ("part of full", "--probe-size")),
        (
            "probe-plasticity",
            ("num_steps", "2000", "updates for each", "--diagnostics probe-plasticity:num_targets=10"),
        ),
        ("basic", ("dormant, effective-rank",)),
        ("effective-rank", ("method effective-rank", "diagnostic effective-rank", "l2_strength")),
        ("redo+layernorm", ("Use redo if", "Use layernorm if", "norm=layer", "τ; 0 resets")),
    ],
)
def test_what_is_explained(name, texts, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = _shown(capsys, name)
    for text in texts:
        assert text in shown


def test_a_method_of_ones_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.py").write_text(
        "from pliant.methods import METHODS\nmine = METHODS['adam']._replace(name='own')\n"
    )
    assert "decay rate of the first moment" in _shown(capsys, "~/own.py:mine")


def test_benchmarks_say_what_each_choice_means(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    shown = _shown(capsys, "dohare/class-incremental-cifar100")
    for text in (
        "Published:",
        "Ours:",
        "Use it with `--scale smoke`",
        "rate_drops",
        "Fractions of each task after which",
    ):
        assert text in shown


def test_options_stand_as_they_are_set(capsys):
    """Lists without brackets; flags with the defaults of the problem's own runs."""
    text = _shown(capsys, "atari")
    assert text.rstrip().endswith("such as --set atari.games=pong")
    assert "│ --tasks            │ 1 " in text


def test_every_benchmark_is_explained(capsys):
    for name in BENCHMARKS:
        assert f"benchmark {name}\n" in _shown(capsys, name)


def test_csv_has_all_digits(run_folder, capsys):
    table = pd.read_csv(io.StringIO(_shown(capsys, run_folder, "--format", "csv"))).set_index("method")
    assert table.loc["adam", "last_mean"] == pytest.approx(0.4)
    assert table.loc["adam", "last_standard_error"] == pytest.approx(0.1 / 3**0.5)
    assert table.loc["adam", "last_iqm_low"] < table.loc["adam", "last_iqm"] < table.loc["adam", "last_iqm_high"]
    assert table.loc["a_b", "seconds"] == 1.0


def test_markdown(run_folder, capsys):
    title, _, header, rule, adam, other = _shown(capsys, run_folder, "--format", "markdown").splitlines()
    assert title == "random-labels on digits, mlp, 3 seeds: train accuracy"
    assert header.startswith("| method | last 2 tasks | IQM \\[95 %\\] |")
    assert rule.count("---:") == header.count("|") - 2
    assert adam.startswith("| adam | 0.400 ± 0.058 | 0.400 \\[")
    assert other.startswith("| a\\_b | 0.410 ± 0.058 |")


def test_latex(run_folder, capsys):
    lines = _shown(capsys, run_folder, "--format", "latex").splitlines()
    assert lines[1] == r"\begin{tabular}{lrrrrrrr}"
    assert lines[3].endswith(r"\\")
    assert r"IQM [95 \%]" in lines[3]
    assert lines[6].startswith(r"a\_b & 0.410 $\pm$ 0.058 & 0.410 [")
    assert lines[-1] == r"\end{tabular}"


def test_a_baseline_adds_the_comparison(run_folder, capsys):
    """The seeds of a_b are each 0.01 above those of adam, 0.3, 0.4 and 0.5; 5 of 9 pairs of seeds are, too."""
    table = _shown(capsys, run_folder, "--baseline", "adam")
    assert "Each method minus adam, paired by seed: train accuracy" in table
    assert "+0.010 [+0.010, +0.010]" in table
    assert "0.67 [0.11, 1.00]" in table
    text = _shown(capsys, run_folder, "--baseline", "adam", "--format", "latex")
    assert r"a\_b & 3 & +0.010 [+0.010, +0.010] & 0.67 [0.11, 1.00] \\" in text
    assert r"\begin{tabular}{lrrr}" in text
    csv = pd.read_csv(io.StringIO(_shown(capsys, run_folder, "--baseline", "adam", "--format", "csv")))
    assert csv.set_index("method").loc["a_b", ["num_shared_seeds", "difference"]].tolist() == pytest.approx([3, 0.01])
    assert csv.set_index("method").loc[["adam"], "difference"].isna().all()


def test_a_profile(run_folder, capsys):
    assert "Share of scores in the last five tasks [95 %]" in _shown(capsys, run_folder, "--profile")
    assert "> 0." in _shown(capsys, run_folder, "--profile", "--format", "markdown")
    csv = pd.read_csv(io.StringIO(_shown(capsys, run_folder, "--profile", "--format", "csv")))
    assert list(csv) == ["method", "threshold", "fraction", "low", "high"]
    assert csv["fraction"].between(0, 1).all()
    assert cli.main(["show", run_folder, "--profile", "--baseline", "adam", "--format", "csv"]) == cli.USER_ERROR
    assert "got --baseline adam and --profile in csv; wanted one of them" in capsys.readouterr().err


def test_other_metrics_of_a_run(run_folder, capsys):
    shown = _shown(capsys, run_folder, "--metric", "dormant_fraction", "train_accuracy", "--format", "markdown")
    title, _, header, _, adam, _ = shown.splitlines()
    assert title == "random-labels on digits, mlp, 3 seeds: last task (mean ± standard error)"
    assert header == "| method | dormant fraction | train accuracy |"
    assert adam == "| adam | 0.500 ± 0.058 | 0.500 ± 0.058 |"
    csv = pd.read_csv(io.StringIO(_shown(capsys, run_folder, "--over", "rise", "--format", "csv")))
    assert csv["mean"].tolist() == pytest.approx([0.2, 0.2])
    assert csv["error"].tolist() == pytest.approx([0.0, 0.0])
    assert cli.main(["show", run_folder, "--metric", "loss", "--profile"]) == cli.USER_ERROR
    assert "got --profile for other metrics (--metric loss); wanted one of them" in capsys.readouterr().err
    assert cli.main(["show", run_folder, "--scale", "paper"]) == cli.USER_ERROR
    assert "got --scale paper for a run folder; wanted an experiment. Leave --scale out" in capsys.readouterr().err


def test_the_record_of_an_experiment_has_what_was_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(_shown(capsys, "lyle/width").split())
    assert "measured: probe loss increase, last 5 tasks (mean ± standard error)" in shown
    assert "measured" not in _shown(capsys, "lyle/atari")
    shown = _shown(capsys, "lyle/width", "--scale", "paper", "--runs", "elsewhere")
    assert "5 × 100" in shown
    assert "measured" not in shown
    assert "Run it with `pliant reproduce lyle/width --scale paper`." in shown
    shown = _shown(capsys, "lyle/falsification", "--format", "markdown")
    assert "| easy, mnist, mlp | 0.207 ± 0.006 |" in shown, "more runs than methods go down"


def test_further_tables_of_an_experiment(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = ("predictors/next-task", "--table", "signs", "--format", "csv")
    csv = pd.read_csv(io.StringIO(_shown(capsys, *named))).set_index("predictor")
    assert csv.loc["weight_norm"].tolist() == [4, 14, 12, True]
    shown = " ".join(_shown(capsys, "lyle/falsification").split())
    assert "│ weight rank │ mlp │ -0.54 [-0.65, -0.42] │" in shown, "the record has them"


def test_unfinished_runs_are_left_out_of_further_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    damaged = tmp_path / "runs" / "experiments" / "lyle-falsification-sparse-mnist-cnn-cpu"
    damaged.mkdir(parents=True)
    (damaged / "config.json").write_text("{")
    assert cli.main(["show", "lyle/falsification", "--table", "correlations", "--format", "csv"]) == 0
    printed = capsys.readouterr()
    assert set(pd.read_csv(io.StringIO(printed.out))["problems"]) == {"easy", "hard", "cifar10", "mlp"}
    (line,) = printed.err.splitlines()
    assert line.startswith("without sparse, mnist, cnn: ")
    assert "which is damaged" in line


def test_a_baseline_must_be_in_the_run(run_folder, capsys):
    assert cli.main(["show", run_folder, "--baseline", "adamo"]) == cli.USER_ERROR
    assert "got the baseline 'adamo'; wanted one of a_b, adam. Did you mean 'adam'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("show adamoo", "got 'adamoo', which is neither a folder nor a name"),
        ("show adamoo", "Did you mean 'adamo' or"),
        ("show kumar/permuted-mnits", "Did you mean 'kumar/permuted-mnist'"),
        ("show runs/absent", "See `pliant list methods` and its like."),
        ("show redo --format csv", "got --format csv for the method 'redo'; wanted a run folder or an experiment"),
        (
            "show redo --metric loss",
            "got --metric loss for the method 'redo'; wanted a run folder or",
        ),
        ("show lyle/width --baseline adam", "got --baseline adam for the experiment 'lyle/width'; wanted a run folder"),
        ("show lyle/width --metric absent", "got no results of absent; wanted one of"),
        ("show lyle/atari --format csv", "got no results; wanted at least one run. Run it with `pliant reproduce`"),
        ("show redo --runs elsewhere", "got --runs elsewhere for the method 'redo'; wanted an experiment"),
        ("show lyle/width --table x", "got --table x for lyle/width; wanted an experiment with further tables: lyle/"),
        ("show lyle/falsification --table x", "got the table of lyle/falsification 'x'; wanted one of correlations."),
        ("show lyle/falsification --table x --over rise", "got --over rise for the table 'x'; wanted one of them"),
        ("show lyle/falsification --table correlations --scale smoke", "got no results of this experiment"),
        ("show redo --table x", "got --table x for the method 'redo'; wanted a run folder or an experiment"),
        ("show redo --profile", "got --profile for the method 'redo'; wanted a run folder"),
        ("show redo --baseline adam", "got --baseline adam for the method 'redo'; wanted a run folder"),
        ("show no.py:mine", "wanted an existing Python file"),
    ],
)
def test_what_cannot_be_shown(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments.split()) == cli.USER_ERROR
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
