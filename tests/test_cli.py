"""The command line, in processes of its own where signals or exit codes of the system are concerned."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import pliant
from pliant import cli
from pliant.__main__ import INTERRUPTED, UNREAD
from pliant.experiments import BENCHMARKS
from pliant.results import RunFolder

COMMAND = [sys.executable, "-m", "pliant"]
PATIENCE = 600  # seconds, for what takes a few where nobody else computes
SMALL = "--methods adam adamo --seeds 2 --tasks 6 --epochs 6 --widths 32 32 --train-size 400".split()


@pytest.fixture(autouse=True)
def _this_process(monkeypatch, tmp_path):
    """In-process calls leave JAX's devices and caches as the tests have them."""
    monkeypatch.setattr(cli.guard, "use_every_core", lambda: None)
    monkeypatch.setattr(cli.guard, "cache_compilations", lambda: None)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)


def _environment(tmp_path):
    return os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "COLUMNS": "160"}


@pytest.fixture
def begin():
    """Begins processes, which end with the test, whatever happens."""
    begun = []

    def begin(command, **options):
        begun.append(subprocess.Popen(command, **options))
        return begun[-1]

    yield begin
    for process in begun:
        with process:  # closes its pipes, and waits
            process.kill()


def _metrics(folder):
    return RunFolder(folder).metrics.sort_values(["method", "seed", "task", "metric"], ignore_index=True)


def _wait_for_task(folder, method, task, process):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        log = folder / "run.log"
        if log.exists() and f"{method}: task {task} of" in log.read_text():
            return
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"{method} never came to task {task}: {process.communicate()}")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    done = subprocess.run(
        [*COMMAND, "run", *SMALL, "--out", "run"],
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


def test_run_ends_with_table_and_figure(uninterrupted):
    folder, printed = uninterrupted
    for text in ("last 5 tasks", "first task", "dormant", "isometry dev.", "seconds", "adam", "adamo", "±"):
        assert text in printed
    assert "figure: run/train_accuracy.png" in printed
    assert (folder / "train_accuracy.png").stat().st_size > 10_000
    assert (folder / "train_accuracy.pdf").exists()


@pytest.mark.parametrize(("method", "task"), [("adam", 2), ("adamo", 3)])
def test_kill_9_and_the_same_command_again(uninterrupted, tmp_path, method, task, begin):
    command = [*COMMAND, "run", *SMALL, "--out", str(tmp_path / "run")]
    options = {"env": _environment(tmp_path), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = begin(command, **options)
    _wait_for_task(tmp_path / "run", method, task, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(_metrics(tmp_path / "run")) < len(_metrics(uninterrupted[0]))

    again = subprocess.run(command, timeout=PATIENCE, check=False, **options)
    assert again.returncode == 0, again.stderr
    assert "continues after task" in (tmp_path / "run" / "run.log").read_text()
    pd.testing.assert_frame_equal(_metrics(tmp_path / "run"), _metrics(uninterrupted[0]), check_exact=True)


def test_two_processes_train_two_methods_of_one_run(uninterrupted, tmp_path, begin):
    """Both start at once and one is killed; a third process is refused a method that is in use."""
    out, options = tmp_path / "run", {"env": _environment(tmp_path), "stderr": subprocess.PIPE, "text": True}
    commands = {
        method: [*COMMAND, "run", *SMALL, "--out", str(out), "--methods", method] for method in ("adam", "adamo")
    }
    processes = {method: begin(command, **options) for method, command in commands.items()}
    for method, process in processes.items():
        _wait_for_task(out, method, 2, process)
    refused = subprocess.run([*commands["adam"]], timeout=PATIENCE, check=False, **options)
    processes["adamo"].kill()
    processes["adamo"].communicate()
    _, printed = processes["adam"].communicate(timeout=PATIENCE)
    assert processes["adam"].returncode == 0, printed
    if refused.returncode:  # it came while the first was running
        assert "got adam in " in refused.stderr
        assert "on which another process is running" in refused.stderr
    again = subprocess.run(commands["adamo"], timeout=PATIENCE, check=False, **options)
    assert again.returncode == 0, again.stderr
    pd.testing.assert_frame_equal(_metrics(out), _metrics(uninterrupted[0]), check_exact=True)
    assert set(pd.read_csv(out / "summary.csv")["method"]) == {"adam", "adamo"}


def test_ctrl_c_keeps_finished_tasks(uninterrupted, tmp_path, begin):
    command = [*COMMAND, "run", *SMALL, "--out", str(tmp_path / "run")]
    process = begin(command, env=_environment(tmp_path), stderr=subprocess.PIPE, text=True)
    _wait_for_task(tmp_path / "run", "adam", 2, process)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=PATIENCE)
    assert process.returncode == INTERRUPTED
    assert "interrupted. A run keeps its finished tasks" in printed
    assert "Traceback" not in printed
    kept = _metrics(tmp_path / "run")
    assert kept["task"].max() >= 1
    whole = _metrics(uninterrupted[0]).merge(kept[["method", "task"]].drop_duplicates())
    pd.testing.assert_frame_equal(kept, whole, check_exact=True)


@pytest.mark.parametrize("arguments", [["run", "--help"], ["list", "streams"], ["list", "streams", "--plain"]])
def test_a_reader_that_leaves_is_no_error(arguments):
    """As in `pliant run --help | head`."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run([*COMMAND, *arguments], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (process.returncode, process.stderr) == (UNREAD, "")


ANSWERING = """
from pliant import __main__ as command
command._answer_interrupts()
print("answers", flush=True)
command.main()
"""


@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.0, 4.0])
def test_ctrl_c_at_any_time_exits_with_130(tmp_path, seconds, begin):
    """While Python imports, XLA compiles, the first chunks run: from when interrupts are answered, and then later."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", ANSWERING, "run", "--out", str(tmp_path / "run")]
    process = begin(command, env=_environment(tmp_path), **pipes)
    assert process.stdout.readline() == "answers\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=PATIENCE)
    assert process.returncode == INTERRUPTED
    assert "pliant: interrupted" in printed
    assert "Traceback" not in printed


def test_ctrl_c_is_answered_where_nobody_reads_the_answer(tmp_path, begin):
    """As in `pliant run 2>&1 | tee log`: the interrupt ends tee as well."""
    reads, writes = os.pipe()
    command = [*COMMAND, "run", "--out", str(tmp_path / "run")]
    process = begin(command, env=_environment(tmp_path), stderr=writes)
    os.close(writes)
    os.close(reads)
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == INTERRUPTED


def test_ctrl_c_does_not_wait_for_a_compiled_program(begin):
    program = """
import jax, jax.numpy as jnp
from pliant.__main__ import _answer_interrupts
_answer_interrupts()
print("computes", flush=True)
jax.jit(lambda: jax.lax.while_loop(lambda x: x < 1, lambda x: 0.5 * x, jnp.float32(0.5)))().block_until_ready()
"""
    process = begin([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "computes\n"
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == INTERRUPTED


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"pliant {pliant.__version__}\n"


def test_names_with_brackets_are_printed_as_they_are(tmp_path, capsys):
    arguments = "run --methods adam --seeds 1 --tasks 1 --epochs 1 --widths 8 --train-size 100 --out exp[/a]1"
    assert cli.main(arguments.split()) == 0
    assert "figure: exp[/a]1/train_accuracy.png" in capsys.readouterr().out


def test_a_users_method_that_fails_while_training(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from pliant.methods import METHODS\nfrom pliant.optimizers import adam\n"
        "def fails(updates, state, params=None, **extra):\n"
        "    raise RuntimeError('no luck')\n"
        "def optimizer(wiring, *, learning_rate):\n"
        "    return adam(learning_rate)._replace(update=fails)\n"
        "mine = METHODS['adam']._replace(name='mine', optimizer=optimizer)\n"
    )
    arguments = "run --methods mine.py:mine --seeds 1 --tasks 1 --epochs 1 --widths 8 --train-size 100 --out run"
    assert cli.main(arguments.split()) == cli.USER_ERROR
    assert "got RuntimeError in 'mine.py', line 4: no luck" in capsys.readouterr().err


def test_show_and_plot(uninterrupted, capsys):
    folder, printed = uninterrupted
    (folder / "train_accuracy.png").unlink()
    assert cli.main(["plot", str(folder)]) == 0
    assert (folder / "train_accuracy.png").exists()
    assert cli.main(["show", str(folder)]) == 0
    shown = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if "│ adam" in line]
    assert len(rows) == 2
    assert all(row in shown for row in rows)


def test_a_picture_of_every_method(uninterrupted, tmp_path, capsys):
    folder = str(uninterrupted[0])
    assert cli.main(["plot", folder, "--picture", "dormant"]) == 0
    printed = capsys.readouterr().out
    for method in ("adam", "adamo"):
        assert f"picture: {folder}/dormant-{method}.png (and .pdf)" in printed
        assert (uninterrupted[0] / f"dormant-{method}.pdf").exists()
    assert cli.main(["plot", folder, "--picture", "dormant", "--method", "adam", "--out", "mine.v1"]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.v1-adam.pdf", "mine.v1-adam.png"]


def test_methods_without_what_is_drawn_are_left_out(uninterrupted, capsys):
    shutil.copytree(uninterrupted[0], "copy")
    folder = RunFolder("copy")
    with folder.open_method("adam", folder.methods["adam"]) as method:
        method.blocks()[0].record_arrays(1, {"ntk/eigenvalues": np.array([[2.0, 1.0], [3.0, 1.0]])})
    assert cli.main(["plot", "copy", "--picture", "ntk"]) == 0
    printed = capsys.readouterr().out
    assert "picture: copy/ntk-adam.png" in printed
    assert "without adamo: got no ntk/eigenvalues in the arrays" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--picture hessian", "Run with --diagnostics hessian-density"),
        ("--picture hesian", "Did you mean 'hessian'"),
        ("--picture dormant --method adamm", "Did you mean 'adam'"),
        ("elsewhere --picture dormant", "got 2 run folders"),
        ("--method adam", "got --method adam without --picture"),
    ],
)
def test_pictures_that_cannot_be_drawn(uninterrupted, arguments, message, capsys):
    assert cli.main(["plot", str(uninterrupted[0]), *arguments.split()]) == cli.USER_ERROR
    assert message in capsys.readouterr().err


DIAGNOSTIC_NAMES = """
dormant dead grama saturated revival effective-rank srank stable-rank feature-rank weight-spectra isometry-deviation
weight-norm distance-from-init update-norm gradient-norm ntk jacobian hessian-top hessian-density gradient-cosine
representation-change churn probe-plasticity excess-loss-plasticity sample-plasticity brownian-twin
start-loss probe-loss readiness gradient-noise curvature-volatility hessian-rank
"""
METHOD_NAMES = """
sgd adam adam-tuned adamw weight-decay l2 layernorm layernorm-weight-decay muon adamo adamo-maxmin
gram-penalty parseval newton-schulz newton-schulz-maxmin fire l2-init l2-init-decoupled
wasserstein-init infer feature-init spectral effective-rank spectral-norm-layer weight-norm
unit-sphere nap weight-clipping full-reset reset-distill head-reset last-k-reset optimizer-reset
shrink-perturb hare-tortoise plasticity-injection soft-reset redo redo-scheduled continual-backprop
regrama snr selective-weight-reinit adam-per-weight upgd dash maxmin crelu fourier leaky
smooth-leaky rational aid residual mixture-of-experts rmsprop cyclic-lr rewarmed-lr c-chain two-hot hl-gauss
"""


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("methods", set(METHOD_NAMES.split())),
        (
            "streams",
            {
                "random-labels",
                "permuted-pixels",
                "label-shuffle",
                "class-incremental",
                "five-plus-one",
                "class-pairs",
                "label-noise",
                "warm-start",
                "slowly-changing-regression",
                "random-teacher",
                "upgd-toy",
                "random-seq2seq",
                "bigram-cipher",
            },
        ),
        ("transitions", {"abrupt", "output-interpolation", "input-interpolation", "task-sampling"}),
        ("benchmarks", set(BENCHMARKS)),
        ("datasets", {"digits", "mnist", "cifar10", "cifar100", "emnist", "emnist-balanced", "tiny-imagenet"}),
        (
            "networks",
            {
                "mlp",
                "residual-mlp",
                "moe-mlp",
                "cnn",
                "lyle-cnn",
                "kumar-cnn",
                "octax-cnn",
                "resnet18",
                "vit",
                "lyle-vit",
                "t5",
                "t5-pretrained",
            },
        ),
        ("diagnostics", set(DIAGNOSTIC_NAMES.split())),
    ],
)
def test_list(kind, names, capsys):
    assert cli.main(["list", kind, "--plain"]) == 0
    listed = set(capsys.readouterr().out.split())
    assert listed == names
    assert cli.main(["list", kind]) == 0
    described = capsys.readouterr().out
    assert all(name in described for name in names)


def test_settings_may_be_repeated_or_several(tmp_path, capsys):
    arguments = "run --methods adamo --seeds 1 --tasks 1 --epochs 1 --widths 8 --train-size 100".split()
    settings = "--set adamo.isometry_strength=0.03 adamo.b1=0.8 --set mlp.norm=layer --out run".split()
    assert cli.main([*arguments, *settings]) == 0
    recorded = (tmp_path / "run" / "methods" / "adamo" / "config.json").read_text()
    for text in ('"isometry_strength": 0.03', '"b1": 0.8', '"norm": "layer"'):
        assert text in recorded


def test_a_users_own_method(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from pliant.methods import METHODS\nmine = METHODS['adam']._replace(name='my-own')\n"
    )
    arguments = "run --methods mine.py:mine --seeds 1 --tasks 1 --epochs 1 --widths 8 --train-size 100 --out run"
    assert cli.main(arguments.split()) == 0
    assert "my-own" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --methods adma", "got the method 'adma'"),
        ("run --set adamo.strength=1", "got the hyperparameter of 'adamo' 'strength'"),
        ("run --dataset mnist --data-dir .", "--data-dir or PLIANT_DATA"),
        ("run --data-dir .", "for 'digits', which are embedded; wanted a data set that is read from it"),
        ("run upgd-toy --data-dir .", "for 'upgd-toy', whose data are generated"),
        ("run --dataset my-data", "Data of your own need their folder"),
        ("run --dataset mnist", "no connection to the Hugging Face hub"),
        ("run --tasks 0", "got tasks=0"),
        ("run label-shufle", "Did you mean 'label-shuffle'"),
        ("run permuted-pixels --scale cpu", "got the benchmark 'permuted-pixels'"),
        ("run kumar/permuted-mnist --data-dir .", "--data-dir or PLIANT_DATA"),
        ("run bigram-cipher", "got the network 'mlp' for bigram-cipher"),
        ("run class-incremental", "wanted at most its 10 classes in total"),
        ("show .", "no config.json"),
        ("plot nowhere", "no config.json"),
    ],
)
def test_user_errors_are_one_message(arguments, message, capsys):
    assert cli.main(arguments.split()) == cli.USER_ERROR
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert "Traceback" not in printed.err
    assert not printed.out


@pytest.mark.parametrize("arguments", [["run", "--sedes", "3"], ["list", "animals"], ["run", "--scale", "huge"], []])
def test_wrong_words_exit_with_2(arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == cli.USER_ERROR


def test_a_benchmark_brings_its_own_defaults(tmp_path, capsys):
    """What is given on the command line wins; settings of methods that are left out go with them."""
    arguments = "run isometry/random-label-cifar10/mlp --scale smoke --methods adam adamo --tasks 3 --steps 4 --seeds 1"
    assert cli.main([*arguments.split(), "--set", "adamo.isometry_every=2"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("isometry-random-label-cifar10-mlp-smoke-")
    config = RunFolder(folder).configuration["config"]
    benchmark = BENCHMARKS["isometry/random-label-cifar10/mlp"].configs["smoke"]
    assert (config["stream"], config["learning_rate"]) == ("random-labels", benchmark.learning_rate)
    assert config["steps"] == 4
    settings = {name: method["config"]["settings"] for name, method in RunFolder(folder).methods.items()}
    assert settings == {"adam": [], "adamo": ["adamo.isometry_strength=0.001", "adamo.isometry_every=2"]}
    assert "3 tasks" in capsys.readouterr().out


def test_show_a_method(capsys):
    assert cli.main(["show", "full-reset+layernorm"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Nikishin et al. 2022" in shown
    assert all(part in shown for part in ("learning_rate", "0.001", "norm=layer", "task changes", "every_tasks=0"))


def test_show_a_benchmark(capsys):
    assert cli.main(["show", "kumar/permuted-mnist"]) == 0
    printed = capsys.readouterr().out
    assert "Published:" in printed
    assert "Ours:" in printed
    assert "10000" in printed


def test_several_runs_in_one_figure(uninterrupted, tmp_path, capsys):
    folder = str(uninterrupted[0])
    assert cli.main(["plot", folder, folder]) == cli.USER_ERROR
    shutil.copytree(folder, "copy")
    assert cli.main(["plot", folder, "copy", "--out", str(tmp_path / "both")]) == 0
    assert (tmp_path / "both.png").stat().st_size > 10_000
    other = "run permuted-pixels --methods adam --seeds 1 --tasks 1 --epochs 1 --widths 8 --train-size 100 --out other"
    assert cli.main(other.split()) == 0
    assert cli.main(["plot", folder, "other"]) == cli.USER_ERROR
    assert "wanted runs with one headline metric" in capsys.readouterr().err
    assert cli.main(["plot"]) == cli.USER_ERROR


def test_a_users_own_stream_network_and_diagnostic(tmp_path, capsys):
    (tmp_path / "own.py").write_text(
        "from pliant.networks import mlp\n"
        "from pliant.streams import random_labels\n"
        "from pliant.types import Diagnostic, Measured\n"
        "def stream(dataset, *, num_tasks, labels='iid'):\n"
        "    return random_labels(dataset, num_tasks=num_tasks, labels=labels)\n"
        "def net(input_shape, num_outputs, *, wide=8):\n"
        "    return mlp(input_shape, num_outputs, widths=(wide,))\n"
        "def fails(subject):\n"
        "    raise RuntimeError('no luck')\n"
        "MEASURED = Measured({'head_sum': 1.0})\n"
        "head = Diagnostic('head', '', 'cheap', lambda s: s.params['head']['kernel'].sum(), lambda _: MEASURED)\n"
        "bad = head._replace(summarize=fails)\n"
    )
    arguments = "run ./own.py:stream --network own.py:net --seeds 1 --tasks 1 --steps 2 --methods adam --train-size 100"
    settings = "--set net.wide=16 stream.labels=iid"
    assert cli.main(f"{arguments} --diagnostics dormant own.py:head {settings} --out run".split()) == 0
    recorded = (tmp_path / "run" / "config.json").read_text()
    assert '"source": "./own.py:stream"' in recorded
    assert cli.main(["diagnose", "run", "--diagnostics", "own.py:head"]) == 0
    assert "head_sum" in capsys.readouterr().out
    assert cli.main(f"{arguments} --diagnostics own.py:bad --out other".split()) == cli.USER_ERROR
    assert (
        "got RuntimeError in 'own.py', line 9: no luck; wanted a stream or diagnostic or network that"
        in capsys.readouterr().err
    )
    assert cli.main(f"{arguments} --diagnostics own.py:bead --out other".split()) == cli.USER_ERROR
    assert (
        "got no 'bead' in 'own.py'; wanted a pliant.types.Diagnostic; the file has bad, head" in capsys.readouterr().err
    )
