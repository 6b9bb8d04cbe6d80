"""Workers on this machine: their share of it, and who can reach them."""

import pytest

from pliant.cluster import local_client, worker_environments
from pliant.cluster._local import _gpus
from pliant.errors import MissingExtraError, UserError


def test_every_core_has_a_worker_and_no_core_two():
    for number in (1, 2, 3, 5, 8):
        shares = [each["PLIANT_CORES"].split(",") for each in worker_environments(number, [], list(range(8)))]
        assert len(shares) == number
        assert sorted(int(core) for share in shares for core in share) == list(range(8))
    assert [each["PLIANT_CORES"] for each in worker_environments(3, [], [4, 5])] == ["4", "4", "5"]
    assert len(worker_environments(None, [], [0, 1, 2])) == 3


def test_a_gpu_for_each_worker():
    found = worker_environments(2, ["3", "5", "6"], [0, 1, 2, 3])
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == ["3", "5"]
    assert len(worker_environments(None, ["3", "5", "6"], [0, 1])) == 3
    with pytest.raises(UserError, match="got 3 workers and 2 GPUs; wanted one worker for each GPU"):
        worker_environments(3, ["0", "1"], [0])
    with pytest.raises(UserError, match="got workers=0; wanted a finite number ≥ 1"):
        worker_environments(0, [], [0])


def test_which_gpus_there_are(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: B (UUID: y)'\necho '  MIG 1g'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert _gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-x,3")
    assert _gpus() == ["GPU-x", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert _gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert _gpus() == []


def test_without_the_packages(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pliant\[cluster\]'"), local_client(1):
        pass
