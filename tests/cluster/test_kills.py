"""A sweep whose workers and scheduler are killed, in processes of its own: it is complete, nothing is doubled, and the
numbers are those of its jobs one after the other. Also who could reach it from outside: its sockets.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from pliant.cluster import failures_of
from pliant.results import RunFolder

pytest.importorskip("distributed")
pytestmark = [pytest.mark.whole, pytest.mark.exact]

PATIENCE = 900  # seconds, for what takes two minutes where nobody else computes
SWEEP = """
[defaults]
methods = ["adam", "l2-init", "redo", "adamo"]
seeds = 3
tasks = 4
steps = 40
train_size = 100
widths = [8]
batch_size = 10
[[runs]]
name = "plain"
[[runs]]
name = "fast"
learning_rate = 0.01
[[runs]]
name = "grid"
methods = ["adam", "redo"]
seeds = 6
grid = ["learning_rate=0.001,0.002"]
[[runs]]
name = "biases"
use_bias = true
"""
NUM_JOBS = 48
SERIAL = """
import json, os, sys
from pathlib import Path
from pliant import cluster
runs, _ = cluster.plan_runs(cluster.read_sweep(Path(sys.argv[1]), Path("serial")), 1)
for job in cluster.jobs_of(runs):
    assert cluster.run_job(job.job).message == ""
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("many.toml").write_text(SWEEP)
    return os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}


def _done():
    """Jobs whose last task is stored, and the tasks that are stored of all."""
    blocks = [RunFolder(path.parent).path.glob("methods/*/seeds-*") for path in Path("runs").glob("*/*/config.json")]
    tasks = [_tasks(block) for each in blocks for block in each]
    return tasks.count(4), sum(tasks)


def _tasks(block):
    return len(list(block.glob("metrics/tasks-*.parquet")))


def _wait(condition, process):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def _workers(process):
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def _kill_a_worker(process, num_tasks):
    """Kills a worker that is at work; another process takes its place."""
    _wait(lambda: _done()[1] >= num_tasks and len(_workers(process)) == 2, process)
    victim = _workers(process)[0]
    os.kill(victim.pid, signal.SIGKILL)
    _wait(lambda: victim.pid not in {each.pid for each in _workers(process)}, process)


def test_workers_and_the_scheduler_are_killed(environment):
    command = [sys.executable, "-m", "pliant", "sweep", "many.toml", "--workers", "2", "--seeds-per-job", "1"]
    options = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **options) as first:
        try:
            _kill_a_worker(first, 6)
            assert {connection.laddr.ip for connection in _listening(first)} == {"127.0.0.1"}
            _kill_a_worker(first, 30)
            _wait(lambda: _done()[0] >= NUM_JOBS // 3, first)
            children = _workers(first)
        finally:
            first.kill()
        assert first.wait(PATIENCE) == -signal.SIGKILL
    psutil.wait_procs(children, timeout=60)
    assert not [each for each in children if each.is_running()]  # nobody trains on without a scheduler
    done_before = _done()[0]
    assert done_before < NUM_JOBS

    second = subprocess.run(command, **options, timeout=PATIENCE, check=False)
    assert second.returncode == 0, second.stderr
    to_do = int(second.stdout.partition(" jobs in 4 runs, ")[2].partition(" ")[0])
    assert 0 <= to_do - (NUM_JOBS - done_before) <= 2  # each worker may have died before its last checkpoint
    assert f"{NUM_JOBS} of {NUM_JOBS} jobs done, 0 running, 0 failed" in second.stdout
    third = subprocess.run(command, **options, timeout=PATIENCE, check=False)
    assert f"{NUM_JOBS} jobs in 4 runs, 0 to do" in third.stdout

    alone = [sys.executable, "-c", SERIAL, "many.toml"]
    subprocess.run(alone, env=environment | {"PLIANT_CORES": _core()}, timeout=PATIENCE, check=True)
    for name in ("plain", "fast", "grid", "biases"):
        swept, alone = RunFolder(Path("runs/many") / name), RunFolder(Path("serial") / name)
        assert not swept.metrics.duplicated(["method", "seed", "task", "step", "metric"]).any()
        order = ["method", "seed", "task", "metric"]
        pd.testing.assert_frame_equal(
            *(each.metrics.sort_values(order, ignore_index=True) for each in (swept, alone)), check_exact=True
        )
        assert failures_of(swept.path) == {}
        assert (swept.path / "summary.csv").exists()
        for method in swept.methods:
            starts = json.loads((swept.path / "methods" / method / "config.json").read_text())["starts"]
            assert [start["seeds"] for start in starts] == [6 if name == "grid" else 3]


LONG = """
[defaults]
methods = ["adam"]
seeds = 1
tasks = 8
steps = 60000
train_size = 100
widths = [8]
batch_size = 10
[[runs]]
name = "long"
"""


def test_a_killed_job_continues_from_its_checkpoint(environment):
    Path("many.toml").write_text(LONG)
    command = [sys.executable, "-m", "pliant", "sweep", "many.toml", "--workers", "1"]
    folder = Path("runs/many/long")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as sweep:
        try:
            stored = "methods/adam/seeds-*/checkpoints/*"
            _wait(lambda: any(each.name.isdigit() for each in folder.glob(stored)), sweep)
            os.kill(_workers(sweep)[0].pid, signal.SIGKILL)
            out, errors = sweep.communicate(timeout=PATIENCE)
        finally:
            sweep.kill()
    assert sweep.returncode == 0, errors
    assert "1 of 1 jobs done, 0 running, 0 failed" in out
    assert "adam: continues after task" in (folder / "run.log").read_text()
    alone = [sys.executable, "-c", SERIAL, "many.toml"]
    subprocess.run(alone, env=environment | {"PLIANT_CORES": _core()}, timeout=PATIENCE, check=True)
    metrics = [RunFolder(path).metrics for path in (folder, Path("serial/long"))]
    pd.testing.assert_frame_equal(*metrics, check_exact=True)


def _core():
    return str(min(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else "0"


def _listening(process):
    own = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    found = [each for one in own for each in one.net_connections(kind="inet")]
    assert found
    return [each for each in found if each.status == psutil.CONN_LISTEN]
