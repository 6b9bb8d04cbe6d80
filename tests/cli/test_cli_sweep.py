"""`pliant sweep`: what its words mean. Nothing is executed."""

import contextlib
import types

import pytest

from pliant import cli, cluster
from pliant.cli._sweep import FAILED
from pliant.rl import AgentConfig

SMALL = "--tasks 2 --steps 2 --train-size 40 --widths 4".split()


@pytest.fixture
def executed(monkeypatch, tmp_path):
    """What would be executed, and where."""
    found = types.SimpleNamespace(runs=[], where=[], options={}, failures=[])

    def execute(runs, client, **options):
        found.runs, found.options = runs, options
        return [runs[0].jobs[0]._replace(failure=each) for each in found.failures]

    def client(place):
        @contextlib.contextmanager
        def client(*options):
            found.where.append((place, *options))
            yield None

        return client

    monkeypatch.setattr(cluster, "execute", execute)
    for name in ("local_client", "remote_client", "queue_client"):
        monkeypatch.setattr(cluster, name, client(name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return found


def _sweep(words, small=True):
    return cli.main(["sweep", *words.split(), *(SMALL if small else [])])


def test_a_stream(executed, capsys):
    words = "random-labels --methods adam redo --seeds 4 --seeds-per-job 2 --workers 2 --out here --retry-failed"
    assert _sweep(words) == 0
    (run,) = executed.runs
    assert str(run.path) == "here"
    assert [job.title for job in run.jobs] == [
        f"{method}, seeds {seeds}" for method in ("adam", "redo") for seeds in ("0–1", "2–3")
    ]
    assert executed.where == [("local_client", 2)]
    assert executed.options["retry_failed"]
    assert "4 jobs in 1 run, 4 to do" in capsys.readouterr().out


def test_an_agent(executed):
    assert _sweep("cartpole --methods adam --seeds 2 --env-steps 8192", small=False) == 0
    ((job,),) = (run.jobs for run in executed.runs)
    assert isinstance(job.job.config, AgentConfig)
    assert job.path.name.startswith("cartpole-")


def test_a_file(executed):
    with open("many.toml", "w") as file:
        file.write("[defaults]\ntasks = 1\nmethods = ['adam']\n[[runs]]\nname = 'a'\n[[runs]]\nname = 'b'\nseeds = 1\n")
    assert _sweep("many.toml --out there --scheduler tcp://there:1", small=False) == 0
    assert [str(run.path) for run in executed.runs] == ["there/a", "there/b"]
    assert executed.where == [("remote_client", "tcp://there:1", cluster.NO_TLS)]


def test_an_experiment(executed):
    assert (
        _sweep("survey/remedies --scale smoke --runs there --slurm partition=gpu,gpus=1 --workers 3", small=False) == 0
    )
    assert [str(run.path) for run in executed.runs] == ["there/survey-remedies-smoke"]
    ((place, system, resources, workers, shared, _),) = executed.where
    assert (place, system, workers) == ("queue_client", "slurm", 3)
    assert resources == {"partition": "gpu", "gpus": "1"}
    assert shared.parent == executed.runs[0].path.parent


def test_failures_give_an_exit_code(executed, capsys):
    executed.failures = [cluster.Failure("now", "adam", (0, 3), 0, "no luck", "failures/adam.txt")]
    assert _sweep("random-labels --methods adam --seeds 1") == FAILED
    error = capsys.readouterr().err
    assert "failed: random-labels: adam, seed 0: no luck (see runs/" in error
    assert "/failures/adam.txt)" in error
    assert "1 job failed; --retry-failed tries again" in error


def test_a_plan(executed, capsys, tmp_path):
    words = "random-labels --methods adam redo --grid redo.threshold=0.1,0.2,0.3 --seeds 2 --dry-run --pbs gpus=1"
    assert _sweep(words) == 0
    printed = capsys.readouterr().out
    assert "redo" in printed
    assert "#PBS -l select=1:ncpus=4:ngpus=1" in printed
    assert not executed.where
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("--slurm gpus=1 --pbs gpus=1", "got --slurm and --pbs; wanted one place"),
        ("--scheduler tcp://a:1 --workers 2", "got --scheduler and --workers; wanted one place"),
        ("--seeds-per-job 0", "got seeds_per_job=0"),
    ],
)
def test_mistakes(executed, capsys, words, match):
    assert _sweep(f"random-labels {words}") == cli.USER_ERROR
    assert match in capsys.readouterr().err
    assert not executed.where
