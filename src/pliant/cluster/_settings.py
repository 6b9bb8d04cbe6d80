"""Settings of `distributed` for sweeps."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

_NOISY = ("distributed", "distributed.client", "tornado", "asyncio")
_QUIET: dict[str, Any] = {"logging": dict.fromkeys(_NOISY, "critical")}
_OWN: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 10,  # workers that may die with a job before it is given up
    "distributed.scheduler.worker-saturation": 1.0,  # no job waits at a busy worker
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.admin.event-loop-monitor-interval": "1h",
}


@contextlib.contextmanager
def settings(*, own: bool) -> Iterator[None]:
    """Within this context `distributed` logs nothing, and our own schedulers and workers behave as sweeps need.

    Args:
      own: whether scheduler and workers are ours.
    """
    import dask
    import distributed  # noqa: F401 # sets levels itself when it is imported

    known = [name for name in logging.root.manager.loggerDict if name.startswith("distributed.")]
    loggers = [logging.getLogger(name) for name in {*_NOISY, *known}]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with dask.config.set(_QUIET | (_OWN if own else {})):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
