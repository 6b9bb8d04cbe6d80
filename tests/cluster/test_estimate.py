"""What jobs take: counted, measured, and in memory."""

import dataclasses
from pathlib import Path

import pytest

from cluster.finishing import finish
from pliant.cluster import Device, Wanted, cpu_device, estimate, gpu_device, measured_seconds, needs_of, plan_runs
from pliant.rl import AgentConfig
from pliant.supervised import RunConfig

SMALL = {"seeds": 4, "tasks": 3, "steps": 10, "train_size": 40, "widths": (128,), "batch_size": 8}
CORES = Device("two cores", 1e9, 1e9, 0.0, 2)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _plan(config, seeds_per_job=None):
    (run,), _ = plan_runs([Wanted("a", config, Path("run"))], seeds_per_job)
    return run


def test_an_update_of_a_network_by_hand():
    """Products: forward, and the gradients to the kernels and to what the second reads."""
    run = _plan(RunConfig(methods=("adam",), **SMALL))
    needs = needs_of(run.jobs[0].method, run.jobs[0].job.config)
    inputs, width, classes, batch = 64, 128, 10, 8
    num_parameters = inputs * width + width * classes
    of_layers = 2 * batch * (2 * inputs * width + 3 * width * classes)
    assert of_layers <= needs.update.products <= of_layers + 4 * 2 * num_parameters  # and norms
    assert 10 * num_parameters < needs.update.elements < 30 * num_parameters
    assert 3 * 4 * num_parameters <= needs.state < 3 * 4 * num_parameters + 1000  # weights and two moments


def test_seeds_share_cores_and_gpus_start_operations():
    config = RunConfig(methods=("adam",), **SMALL)
    (four,) = estimate(_plan(config).jobs, CORES)
    two, _ = estimate(_plan(config, 2).jobs, CORES)
    (one,) = estimate(_plan(config).jobs, CORES._replace(cores=1))
    assert four.seconds - 10 == pytest.approx(2 * (two.seconds - 10))
    assert one.seconds - 10 == pytest.approx(4 * (two.seconds - 10))
    assert not four.is_measured
    (on_gpu,) = estimate(_plan(config).jobs, gpu_device())
    (other,) = estimate(_plan(config, 1).jobs[:1], gpu_device(1.0))
    assert on_gpu.seconds - 10 == pytest.approx(other.seconds - 10)  # both wait for 3 * 10 updates to start
    assert four.memory > two.memory
    assert four.memory > on_gpu.memory  # without what becomes a checkpoint


def test_diagnostics_count_as_often_as_they_are_due():
    """The NTK takes all Jacobians; those that share what they measure count once."""
    config = RunConfig(
        methods=("adam",), **{**SMALL, "tasks": 4, "seeds": 1}, diagnostics=("ntk", "effective-rank", "srank")
    )
    (job,) = _plan(config).jobs
    (rare,) = _plan(dataclasses.replace(config, diagnose_after=(4,))).jobs
    diagnoses = {each.name: work for each, work in needs_of(job.method, config).diagnoses}
    assert set(diagnoses) == {"ntk", "effective-rank"}
    of_jacobian = 2 * 40 * 10 * (64 * 128 + 128 * 10)
    assert diagnoses["ntk"].products > of_jacobian
    assert diagnoses["ntk"].products > diagnoses["effective-rank"].products > 0
    plain, always, once = (
        each.seconds
        for each in estimate(
            [_plan(dataclasses.replace(config, diagnostics=("effective-rank", "srank"))).jobs[0], job, rare],
            CORES._replace(cores=1),
        )
    )
    assert always - plain == pytest.approx(4 * (once - plain))


def test_points_of_a_grid_count():
    config = RunConfig(methods=("adam",), **SMALL)
    (plain,) = estimate(_plan(config).jobs, CORES)
    (grid,) = estimate(_plan(RunConfig(methods=("adam",), grid=("learning_rate=1,2,3",), **SMALL)).jobs, CORES)
    assert grid.seconds - 10 == pytest.approx(3 * (plain.seconds - 10))


def test_the_time_of_finished_tasks_counts():
    """A minute each for two seeds: two minutes for four, and less for what is half done."""
    config = RunConfig(methods=("adam",), **{**SMALL, "seeds": 6})
    run = _plan(config, 2)
    finish(run, run.jobs[0])
    finish(run, run.jobs[1], tasks=1)
    again = _plan(config, 4)
    assert [measured_seconds(job) for job in again.jobs] == [60.0, 60.0, 60.0]
    done, begun, new = estimate(again.jobs, CORES)
    assert (done.seconds, begun.seconds, new.seconds) == (0.0, 2 * 60.0 + 10, 3 * 60.0 + 10)
    assert new.is_measured
    assert measured_seconds(_plan(RunConfig(methods=("adam", "redo"), **SMALL)).jobs[-1]) is None


def test_an_agent_plays_at_the_start_of_its_rollouts_only():
    config = AgentConfig(methods=("adam",), seeds=1, env_steps=32_768)
    job = _plan(config).jobs[0]
    needs = needs_of(job.method, config)
    assert needs.evaluation.products > 0
    assert needs.state > 0
    batch = 2 * 512 * 3 * 2 * 64 * 64  # of the two networks, without the layers at the ends
    assert batch < needs.update.products < 6 * batch


def test_the_speed_of_this_machine():
    device = cpu_device(2)
    assert device.cores == 2
    assert 1e8 < device.products < 1e13
    assert 1e7 < device.elements < 1e12
    assert cpu_device(1, tflops=0.5).products == 5e11
