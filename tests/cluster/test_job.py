"""A job: plain data that a worker turns into the numbers of `pliant.run`."""

import json
from pathlib import Path

import pandas as pd
import pytest

import pliant
from pliant.cluster import Ended, Job, job_of, run_job
from pliant.errors import BusyError
from pliant.results import RunFolder
from pliant.rl import AgentConfig
from pliant.supervised import RunConfig

SMALL = {"methods": ("adam",), "tasks": 2, "steps": 3, "train_size": 40, "widths": (4,), "batch_size": 8}


@pytest.fixture(autouse=True)
def _this_process(monkeypatch, tmp_path):
    """JAX runs already; the working directory is put back."""
    monkeypatch.setattr("pliant.cluster._job._start_jax", lambda: None)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("config", [RunConfig(**SMALL, rate_drops=(0.5,)), AgentConfig(grid=("b1=0.1,0.2",))])
def test_a_job_survives_json(config):
    job = job_of(config, Path("run"), 4, "data")
    again = Job(**json.loads(json.dumps(job._asdict())))
    assert again == job
    assert again.config == config
    assert Path(again.out) == Path.cwd() / "run"


def test_jobs_give_the_numbers_of_serial_runs(tmp_path):
    """To the bit, with blocks in another order, and one that was trained before."""
    for first in (0, 2):
        serial = pliant.run("random-labels", first_seed=first, seeds=2, out=tmp_path / "serial", **SMALL)
    jobs = [job_of(RunConfig(first_seed=first, seeds=2, **SMALL), tmp_path / "jobs", of_seeds=4) for first in (2, 0, 2)]
    fractions = []
    for job in jobs:
        assert run_job(job, fractions.append).message == ""
    assert fractions[-1] == 1.0
    assert len([each for each in fractions if each == 1.0]) == 2  # the third had nothing to do
    folder = RunFolder(tmp_path / "jobs")
    pd.testing.assert_frame_equal(folder.metrics, serial.metrics, check_exact=True)
    assert [(start["tasks"], start["seeds"]) for start in folder.starts["adam"]] == [(2, 4)]


def test_a_failure_is_returned(tmp_path, monkeypatch):
    job = job_of(RunConfig(**SMALL), tmp_path / "run", of_seeds=1)
    wrong = job._replace(choices={**job.choices, "methods": ["adamm"]})
    ended = run_job(wrong)
    assert "got the method 'adamm'" in ended.message
    assert ended.traceback == ""

    def broken(*_, **__):
        raise KeyError("conv")

    monkeypatch.setattr("pliant.cluster._job.train", broken)
    ended = run_job(job)
    assert ended.message == "KeyError: 'conv'"
    assert "in broken" in ended.traceback
    assert run_job(job._replace(directory=str(tmp_path / "nowhere"))).message.startswith("FileNotFoundError")


def test_a_block_that_another_process_trains_is_waited_for(tmp_path, monkeypatch):
    busy = [BusyError(got="a", wanted="b", do="c")] * 2

    def train(*_, **__):
        if busy:
            raise busy.pop()

    monkeypatch.setattr("pliant.cluster._job.train", train)
    monkeypatch.setattr("pliant.cluster._job._PAUSE", 0.0)
    ended = run_job(job_of(RunConfig(**SMALL), tmp_path / "run", of_seeds=1))
    assert not busy
    assert ended == Ended(ended.seconds)
