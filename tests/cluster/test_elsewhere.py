"""Workers that somebody else starts: a scheduler that runs already, and a queue, for which a script stands."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pliant.results import RunFolder

pytest.importorskip("dask_jobqueue")
pytestmark = [pytest.mark.whole, pytest.mark.exact]

PATIENCE = 600  # seconds, for what takes 20 where nobody else computes
COMMAND = "sweep random-labels --methods adam --seeds 2 --seeds-per-job 1 --steps 20 --train-size 100 --widths 8"
SBATCH = """#!/bin/bash
for script; do :; done
cp "$script" submitted.sh
setsid bash submitted.sh > submitted.log 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/bash
echo "$1" > cancelled
kill -- "-$1"
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"

    def sweep(*words, tasks=2):
        command = [sys.executable, "-m", "pliant", *COMMAND.split(), "--out", "run", "--tasks", str(tasks), *words]
        return subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True)

    return sweep


def _finish(process):
    out, error = process.communicate(timeout=PATIENCE)
    return process.returncode, out, error


def test_a_queue(sweep):
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        Path(name).write_text(text)
        Path(name).chmod(0o755)
    code, out, error = _finish(sweep("--slurm", "cores=1,memory=2GB,interface=lo", "--workers", "1"))
    assert code == 0, error
    assert "2 of 2 jobs done" in out
    assert RunFolder("run").metrics["seed"].nunique() == 2
    script = Path("submitted.sh").read_text()
    assert "#SBATCH --cpus-per-task=1" in script
    assert "tls://127.0.0.1" in script
    assert Path("cancelled").exists()
    assert not list(Path("workers").glob(".dask*"))  # the certificates


def test_a_scheduler_that_is_killed(sweep):
    """The command ends with one message; with another scheduler it continues."""
    address, begun = "tcp://127.0.0.1:{}", []

    def start():
        port = 20_000 + os.getpid() % 10_000 + len(begun)
        here = ["--host", "127.0.0.1"]
        for each in (
            ["dask_scheduler", *here, "--port", str(port), "--dashboard-address", "127.0.0.1:0", "--no-dashboard"],
            ["dask_worker", address.format(port), *here, "--nthreads", "1", "--no-dashboard", "--death-timeout", "60"],
        ):
            process = subprocess.Popen([sys.executable, "-m", f"distributed.cli.{each[0]}", *each[1:]], stderr=-3)
            begun.append(process)
        return process_of(begun[-2], port)

    def process_of(scheduler, port):
        deadline = time.monotonic() + PATIENCE
        while not any(each.laddr.port == port for each in psutil.Process(scheduler.pid).net_connections("inet")):
            assert scheduler.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return scheduler, address.format(port)

    try:
        scheduler, first = start()
        process = sweep("--scheduler", first, tasks=300)
        deadline = time.monotonic() + PATIENCE
        while not list(Path("run").glob("methods/*/*/metrics/*.parquet")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(scheduler.pid, signal.SIGKILL)
        code, _, error = _finish(process)
        assert code == 2
        assert error.startswith("pliant: got no answer from the scheduler of the sweep")
        assert len(error.splitlines()) == 1
        before = RunFolder("run").metrics["task"].max()
        _, second = start()
        code, out, error = _finish(sweep("--scheduler", second, tasks=int(before) + 2))
        assert code == 0, error
        assert "2 of 2 jobs done" in out
    finally:
        for each in begun:
            with each:
                each.terminate()
    code, _, error = _finish(sweep("--scheduler", first, tasks=int(before) + 3))
    assert code == 2
    assert f"got no answer from {first}" in error
