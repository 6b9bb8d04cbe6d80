"""A scheduler that runs already, with its workers."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from pliant.cluster._settings import settings
from pliant.cluster._tls import NO_TLS, Tls, security_of
from pliant.errors import UserError, extra


@contextlib.contextmanager
def remote_client(address: str, tls: Tls = NO_TLS) -> Iterator[Any]:
    """A client of a scheduler that runs already, with the workers that it has.

    Args:
      address: such as tcp://host:8786, or tls://host:8786.
      tls: certificates, for tls.

    Raises:
      UserError: if nobody answers there, TLS is given without its files, or the packages are missing.
    """
    with extra("cluster", "sweeps"):
        from distributed import Client
    if not address.startswith(("tcp://", "tls://")):
        raise UserError(
            got=f"--scheduler {address}", wanted="tcp://HOST:PORT or tls://HOST:PORT", do="`dask scheduler` prints it."
        )
    if address.startswith("tls://") != tls.is_given:
        raise UserError(
            got=f"--scheduler {address} {'with' if tls.is_given else 'without'} certificates",
            wanted="certificates for tls://, and none for tcp://",
            do="Give --tls-ca-file, --tls-cert and --tls-key together with tls://HOST:PORT.",
        )
    with settings(own=False):
        try:
            client = Client(address, security=security_of(tls), timeout=30)
        except (OSError, ValueError) as error:
            raise UserError(
                got=f"no answer from {address} ({str(error)[:200]})",
                wanted="the address of a Dask scheduler that this machine can reach",
                do="Start one with `dask scheduler`, and workers with `dask worker ADDRESS --nthreads 1`.",
            ) from error
        with client:
            _require_one_thread(client.nthreads())
            yield client


def _require_one_thread(threads: Mapping[str, int]) -> None:
    """Refuses workers that would mix jobs in one process: a job may use all of it."""
    for worker, number in threads.items():
        if number > 1:
            raise UserError(
                got=f"the worker {worker} with {number} threads",
                wanted="workers with one thread, which have one job at a time",
                do="Start them with `dask worker ADDRESS --nthreads 1`, and --nworkers N for N on a machine.",
            )
