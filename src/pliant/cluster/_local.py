"""Worker processes on this machine, which nobody else can reach."""

import contextlib
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from pliant.cluster._job import CORES
from pliant.cluster._settings import settings
from pliant.errors import UserError, extra, require_whole

LOCALHOST = "127.0.0.1"


@contextlib.contextmanager
def local_client(num_workers: int | None = None) -> Iterator[Any]:
    """A client of worker processes on this machine, which nobody else can reach.

    They listen on 127.0.0.1, and talk by TLS with certificates that exist in memory only, so that other users of the
    machine cannot connect.

    Args:
      num_workers: ≥ 1; by default one for each GPU, or for each core if there is no GPU.

    Raises:
      UserError: if there are fewer GPUs than workers, or the packages are missing.
    """
    with extra("cluster", "sweeps"):
        from distributed import Client, Nanny, Scheduler, SpecCluster
        from distributed.security import Security
    environments = worker_environments(num_workers)
    with settings(own=True), _without_complaints():
        security = Security.temporary()
        common = {
            "host": LOCALHOST,
            "dashboard_address": f"{LOCALHOST}:0",
            "security": security,
            "protocol": "tls://",
        }
        options = common | {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
        workers = {
            place: {"cls": Nanny, "options": {**options, "env": environment}}
            for place, environment in enumerate(environments)
        }
        scheduler = {"cls": Scheduler, "options": {**common, "port": 0, "dashboard": False}}
        with (
            SpecCluster(workers, scheduler, security=security, silence_logs=logging.CRITICAL) as cluster,
            Client(cluster, security=security) as client,
        ):
            yield client


@contextlib.contextmanager
def _without_complaints() -> Iterator[None]:
    """Python would list semaphores that are left when the command is interrupted."""
    before = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ["PYTHONWARNINGS"] = f"{before},{quiet}" if before else quiet
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def worker_environments(
    num_workers: int | None, gpus: Sequence[str] | None = None, cores: Sequence[int] | None = None
) -> list[dict[str, str]]:
    """The environment variables of each worker: its GPU, or its share of the cores.

    Args:
      num_workers: ≥ 1; by default one for each GPU, or for each core if there is no GPU.
      gpus: their names for CUDA_VISIBLE_DEVICES; by default those of this machine.
      cores: that may be used; by default those that this process may use.

    Raises:
      UserError: if there are fewer GPUs than workers.

    Example:
      >>> worker_environments(2, gpus=[], cores=[0, 1, 2, 3])
      [{'PLIANT_CORES': '0,1'}, {'PLIANT_CORES': '2,3'}]
      >>> worker_environments(None, gpus=["0", "1"], cores=[0, 1, 2, 3])[1]
      {'CUDA_VISIBLE_DEVICES': '1', 'PLIANT_CORES': '2,3'}
    """
    gpus = _gpus() if gpus is None else gpus
    cores = usable_cores() if cores is None else cores
    if num_workers is not None:
        require_whole("workers", num_workers, 1, do="Leave --workers out for one on each GPU or core.")
    number = num_workers or len(gpus) or len(cores)
    if gpus and number > len(gpus):
        raise UserError(
            got=f"{number} workers and {len(gpus)} GPUs",
            wanted="one worker for each GPU at most",
            do=f"Use --workers {len(gpus)}, or set JAX_PLATFORMS=cpu to compute on cores.",
        )
    shares = [cores[place * len(cores) // number : (place + 1) * len(cores) // number] for place in range(number)]
    shares = [share or [cores[place % len(cores)]] for place, share in enumerate(shares)]
    environments = [{CORES: ",".join(map(str, share))} for share in shares]
    pinned = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:number]] or [{}] * number
    return [gpu | environment for gpu, environment in zip(pinned, environments, strict=True)]


def usable_cores() -> list[int]:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def num_gpus() -> int:
    """How many GPUs the workers of this machine may use."""
    return len(_gpus())


def _gpus() -> list[str]:
    """The GPUs that workers may use, as CUDA_VISIBLE_DEVICES names them; JAX would take hold of them to find out."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if "cpu" in os.environ.get("JAX_PLATFORMS", "").split(",") or visible == "":
        return []
    if visible is not None:
        return visible.split(",")
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    told = subprocess.run([command, "--list-gpus"], capture_output=True, text=True, timeout=60, check=False)
    return [str(place) for place, line in enumerate(told.stdout.splitlines()) if line.startswith("GPU ")]
