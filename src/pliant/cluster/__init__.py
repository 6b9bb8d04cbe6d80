"""Sweeps: the same runs, elsewhere. Jobs are planned here and executed on Dask's workers; extra `cluster`."""

from pliant.cluster._execute import Standing, execute
from pliant.cluster._failures import Failure, failures_of, record_failure
from pliant.cluster._job import Ended, Job, job_of, run_job
from pliant.cluster._local import local_client, worker_environments
from pliant.cluster._plan import SweepJob, SweepRun, Wanted, is_experiment, jobs_of, plan_experiments, plan_run
from pliant.cluster._queue import parse_resources, queue_client, queue_script
from pliant.cluster._remote import remote_client
from pliant.cluster._structures import Structure, structures
from pliant.cluster._sweep_file import read_sweep
from pliant.cluster._tls import NO_TLS, Tls

__all__ = [
    "NO_TLS",
    "Ended",
    "Failure",
    "Job",
    "Standing",
    "Structure",
    "SweepJob",
    "SweepRun",
    "Tls",
    "Wanted",
    "execute",
    "failures_of",
    "is_experiment",
    "job_of",
    "jobs_of",
    "local_client",
    "parse_resources",
    "plan_experiments",
    "plan_run",
    "queue_client",
    "queue_script",
    "read_sweep",
    "record_failure",
    "remote_client",
    "run_job",
    "structures",
    "worker_environments",
]
