"""Workers that a queueing system starts, SLURM or PBS."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pliant.cluster._local import LOCALHOST
from pliant.cluster._settings import settings
from pliant.cluster._tls import NO_TLS, Tls, security_of
from pliant.errors import UserError, extra

_RESOURCES = ("partition", "account", "gpus", "cores", "memory", "time", "interface", "python", "setup", "extra")


def parse_resources(option: str, text: str) -> dict[str, str]:
    """What `--slurm` and `--pbs` are given, by name.

    Raises:
      UserError: if a part is no KEY=VALUE, or a key is unknown or repeated.

    Example:
      >>> parse_resources("--slurm", "partition=gpu,gpus=1,time=02:00:00")
      {'partition': 'gpu', 'gpus': '1', 'time': '02:00:00'}
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if not value or key not in _RESOURCES or key in found:
            raise UserError(
                got=f"{option} {text}, at {part!r}",
                wanted=f"KEY=VALUE,… with each of {', '.join(_RESOURCES)} once at most",
                do=f"For example {option} partition=gpu,gpus=1,cores=8,memory=32GB,time=12:00:00.",
            )
        found[key] = value
    return found


@contextlib.contextmanager
def queue_client(
    system: str, resources: Mapping[str, str], num_workers: int, shared: Path, tls: Tls = NO_TLS
) -> Iterator[Any]:
    """A client of workers that a queueing system starts, each with one job of the sweep at a time.

    The scheduler is a part of this process, so it must stay where the workers can reach it. They are asked for as long
    as there are jobs, and given back when the context is left.

    Args:
      system: "slurm" or "pbs".
      resources: of each worker, see `parse_resources`.
      num_workers: how many at most.
      shared: a folder on the disk that all nodes share, for certificates and the output of workers.
      tls: certificates; by default some that exist for this sweep only.

    Raises:
      UserError: for numbers that are none, or if the packages are missing.
    """
    kind, options = _of_system(system, resources)
    from distributed import Client

    folder = shared.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with settings(own=True):
        cluster = kind(
            **options,
            scheduler_options={"dashboard": False},
            security=security_of(tls) or True,
            shared_temp_directory=str(folder),
            log_directory=str(folder),
            silence_logs=logging.CRITICAL,
        )
        with cluster, Client(cluster, security=cluster.security) as client:
            cluster.adapt(minimum=1, maximum=num_workers, target_duration="1ms")  # a worker for every job, up to these
            yield client


def queue_script(system: str, resources: Mapping[str, str]) -> str:
    """The script with which `queue_client` starts a worker, but for certificates and files of its output.

    Args:
      system: "slurm" or "pbs".
      resources: of each worker, see `parse_resources`.

    Raises:
      UserError: as `queue_client`.

    Example:
      >>> script = queue_script("slurm", {"partition": "gpu", "gpus": "1", "cores": "8"})
      >>> [line for line in script.splitlines() if "gpu" in line or "cpus" in line]
      ['#SBATCH -p gpu', '#SBATCH --cpus-per-task=8', '#SBATCH --gres=gpu:1']
    """
    kind, options = _of_system(system, resources)
    return str(kind.job_cls(scheduler="tls://SCHEDULER", name="pliant", **options).job_script()).strip()


def _of_system(system: str, resources: Mapping[str, str]) -> tuple[Any, dict[str, Any]]:
    """The class of a cluster, and what a worker is asked for with."""
    with extra("cluster", "sweeps"):
        from dask_jobqueue.pbs import PBSCluster
        from dask_jobqueue.slurm import SLURMCluster
    gpus, cores = (_whole(name, resources.get(name, default)) for name, default in (("gpus", "0"), ("cores", "4")))
    if gpus > 1:
        raise UserError(got=f"gpus={gpus}", wanted="1 or 0: a job uses one GPU", do="Use --workers N for N of them.")
    memory = resources.get("memory", "16GB")
    options: dict[str, Any] = {
        "cores": 1,  # of Dask's: jobs at a time
        "processes": 1,
        "memory": memory,
        "queue": resources.get("partition"),
        "account": resources.get("account"),
        "walltime": resources.get("time", "12:00:00"),
        "interface": resources.get("interface"),
        "job_script_prologue": [each for each in resources.get("setup", "").split(";") if each],
        "job_extra_directives": [each for each in resources.get("extra", "").split(";") if each],
        "job_name": "pliant",
        "worker_extra_args": ["--no-dashboard", "--dashboard-address", f"{LOCALHOST}:0"],
    }
    options |= {"python": resources["python"]} if "python" in resources else {}
    if system == "slurm":
        options["job_extra_directives"] += [f"--gres=gpu:{gpus}"] if gpus else []
        return SLURMCluster, options | {"job_cpu": max(1, cores)}
    asked = f"select=1:ncpus={max(1, cores)}{f':ngpus={gpus}' if gpus else ''}:mem={memory.replace('i', '')}"
    return PBSCluster, options | {"resource_spec": asked}


def _whole(name: str, text: str) -> int:
    if not text.isdigit():
        raise UserError(got=f"{name}={text}", wanted="a whole number", do="It is of one worker.")
    return int(text)
