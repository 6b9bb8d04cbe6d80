"""How many updates a task gets, and at which micro-step of its transition each of them is: all in integers."""

import itertools

import numpy as np
from jaxtyping import Int

from pliant.errors import UserError
from pliant.supervised._config import RunConfig
from pliant.types import Stream


def num_steps(config: RunConfig, stream: Stream, index: int) -> int:
    """Updates in task number `index`: `steps`, or all whole batches of its epochs; as many for each micro-task if the
    budget says so.

    Example:
      >>> from pliant.streams import load_dataset, random_labels
      >>> num_steps(RunConfig(epochs=2, batch_size=100), random_labels(load_dataset("digits")), 0)
      32
    """
    whole = config.steps or config.epochs * stream.train.num(index) // config.batch_size
    return whole * (stream.micro_steps if _is_long(config, index) else 1)


def epoch_ends(config: RunConfig, stream: Stream, index: int) -> list[int]:
    """After which updates of task number `index` an epoch ends; the last is the end of the task.

    Example:
      >>> from pliant.streams import load_dataset, random_labels
      >>> epoch_ends(RunConfig(epochs=3, batch_size=100), random_labels(load_dataset("digits")), 0)
      [16, 32, 48]
    """
    total, num_train = num_steps(config, stream, index), stream.train.num(index)
    ends = (epoch * num_train // config.batch_size for epoch in itertools.count(1))
    return [*itertools.takewhile(lambda end: end < total, ends), total]


def micro_steps(config: RunConfig, stream: Stream, index: int) -> Int[np.ndarray, " step"]:
    """The micro-step m of M of every update in task number `index`; the first task is pure throughout.

    With equal updates the transition's share of them is divided among the micro-steps 1 to M − 1, as evenly as
    integers allow, and the rest is the pure task, at least one update; with a budget per micro-task each m gets as many
    as an abrupt task.

    Raises:
      UserError: if the transition has fewer updates than micro-steps.

    Example:
      >>> from pliant.streams import load_dataset, output_interpolation, random_labels
      >>> stream = output_interpolation(random_labels(load_dataset("digits")), micro_steps=3)
      >>> micro_steps(RunConfig(steps=8), stream, 1).tolist()
      [1, 1, 2, 2, 3, 3, 3, 3]
    """
    last, total = stream.micro_steps, num_steps(config, stream, index)
    steps = np.arange(total)
    if _is_long(config, index):
        return 1 + steps * last // total
    share = config.transition_share if index and last > 1 else 0
    num_between = min(round(share * total), total - 1)
    if share and num_between < last - 1:
        raise UserError(
            got=f"{last} micro-steps in {total} updates, {num_between} of them before the last micro-step",
            wanted="at least one update for each",
            do="Use fewer micro-steps, more epochs, or --budget per-micro-task.",
        )
    return np.where(steps < num_between, 1 + steps * (last - 1) // max(num_between, 1), last)


def _is_long(config: RunConfig, index: int) -> bool:
    return config.budget == "per-micro-task" and index > 0
