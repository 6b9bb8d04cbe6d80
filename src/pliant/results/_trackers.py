"""Trackers: where the metrics of a run are also shown, beside its folder."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pandas as pd

from pliant.errors import UserError, extra, unknown_name


class Tracker(NamedTuple):
    """Shows metrics while a run trains."""

    log: Callable[[pd.DataFrame], None]
    """Takes the metrics of a task in long form, see `RunFolder.metrics`."""
    close: Callable[[], None]


MakeTracker: TypeAlias = Callable[[Path, Mapping[str, Any]], Tracker]
"""From the run folder and what all of its methods have in common."""


def _tensorboard(folder: Path, configuration: Mapping[str, Any]) -> Tracker:
    """Event files in `tensorboard/METHOD/seed-SEED/` of the run folder."""
    del configuration
    with extra("tensorboard", "--track tensorboard"):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    writers: dict[str, Any] = {}

    def log(rows: pd.DataFrame) -> None:
        for name, step, numbers in _moments(rows):
            if name not in writers:
                writers[name] = EventFileWriter(str(folder / "tensorboard" / name))
            values = [Summary.Value(tag=metric, simple_value=value) for metric, value in numbers.items()]
            writers[name].add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        for writer in writers.values():
            writer.flush()

    def close() -> None:
        for writer in writers.values():
            writer.close()

    return Tracker(log, close)


def _wandb(folder: Path, configuration: Mapping[str, Any]) -> Tracker:
    """A run of W&B for each method and seed, in one group; files in `wandb/` of the run folder."""
    with extra("wandb", "--track wandb"):
        import wandb
    runs: dict[str, Any] = {}

    def log(rows: pd.DataFrame) -> None:
        for name, step, numbers in _moments(rows):
            if name not in runs:
                runs[name] = wandb.init(
                    project=os.environ.get("WANDB_PROJECT", "pliant"),
                    group=folder.name,
                    name=name,
                    id=hashlib.sha256(f"{folder.resolve()}/{name}".encode()).hexdigest()[:16],
                    resume="allow",
                    dir=folder,
                    config=dict(configuration),
                    reinit="create_new",
                )
            runs[name].log(numbers, step=step)

    def close() -> None:
        for run in runs.values():
            run.finish()

    return Tracker(log, close)


TRACKERS: Mapping[str, MakeTracker] = {"tensorboard": _tensorboard, "wandb": _wandb}
"""By name. Both need the extra of their name."""


@contextmanager
def tracking(
    trackers: Sequence[str | MakeTracker], folder: Path, configuration: Mapping[str, Any]
) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Opens trackers and closes them at the end.

    Args:
      trackers: names in `TRACKERS`, or functions such as those.
      folder: of the run.
      configuration: what all methods of the run have in common.

    Returns:
      A context with a function that logs metrics in long form to all of them.

    Raises:
      UserError: for an unknown name, a package that is missing, and a tracker that fails to open or close.

    Example:
      >>> shown = []
      >>> mine = lambda folder, configuration: Tracker(lambda rows: shown.append(len(rows)), lambda: None)
      >>> with tracking([mine], Path("."), {}) as log:
      ...     log(pd.DataFrame({"value": [0.5, 0.7]}))
      >>> shown
      [2]
    """
    opened: list[Tracker] = []
    try:
        for tracker in trackers:
            if isinstance(tracker, str) and tracker not in TRACKERS:
                raise unknown_name("tracker", tracker, TRACKERS, do="Give --track one of them, or leave it out.")
            make = TRACKERS[tracker] if isinstance(tracker, str) else tracker
            opened.append(make(folder, configuration))

        def log(rows: pd.DataFrame) -> None:
            for each in opened:
                try:
                    each.log(rows)
                except (UserError, OSError):
                    raise
                except Exception as error:  # a service's own kinds
                    raise UserError(
                        got=f"{type(error).__name__} of a tracker: {error}",
                        wanted="a tracker that takes metrics",
                        do="Leave --track out, or fix that (WANDB_MODE=offline needs no network); the same command "
                        "continues the run.",
                    ) from error

        yield log
    finally:
        for each in opened:
            each.close()


def _moments(rows: pd.DataFrame) -> Iterator[tuple[str, int, dict[str, float]]]:
    """The metrics of every method and seed, by step."""
    for (method, seed), of_seed in rows.groupby(["method", "seed"], sort=False):
        name = re.sub(r"[^\w.+=,-]+", "-", str(method)) + f"/seed-{seed}"
        for step in sorted(set(of_seed["step"].tolist())):
            now = of_seed[of_seed["step"] == step]
            yield name, step, dict(zip(now["metric"].tolist(), now["value"].tolist(), strict=True))
