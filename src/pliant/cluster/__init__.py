"""Sweeps: the same runs, elsewhere. Jobs are planned here and executed on Dask's workers; extra `cluster`."""

from pliant.cluster._arithmetic import Work, count_work
from pliant.cluster._device import Device, cpu_device, gpu_device
from pliant.cluster._estimate import Estimate, estimate, measured_seconds
from pliant.cluster._execute import Standing, execute
from pliant.cluster._failures import Failure, failures_of, record_failure
from pliant.cluster._job import Ended, Job, job_of, run_job
from pliant.cluster._local import local_client, num_gpus, usable_cores, worker_environments
from pliant.cluster._needs import Needs, needs_of
from pliant.cluster._plan import SweepJob, SweepRun, Wanted, is_experiment, jobs_of, plan_runs, wanted_of
from pliant.cluster._queue import parse_resources, queue_client, queue_script
from pliant.cluster._remote import remote_client
from pliant.cluster._structures import Structure, structures
from pliant.cluster._sweep_file import read_sweep
from pliant.cluster._tls import NO_TLS, Tls

__all__ = [
    "NO_TLS",
    "Device",
    "Ended",
    "Estimate",
    "Failure",
    "Job",
    "Needs",
    "Standing",
    "Structure",
    "SweepJob",
    "SweepRun",
    "Tls",
    "Wanted",
    "Work",
    "count_work",
    "cpu_device",
    "estimate",
    "execute",
    "failures_of",
    "gpu_device",
    "is_experiment",
    "job_of",
    "jobs_of",
    "local_client",
    "measured_seconds",
    "needs_of",
    "num_gpus",
    "parse_resources",
    "plan_runs",
    "queue_client",
    "queue_script",
    "read_sweep",
    "record_failure",
    "remote_client",
    "run_job",
    "structures",
    "usable_cores",
    "wanted_of",
    "worker_environments",
]
