"""One call that tunes methods on any problem."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pliant._asked import asked_for
from pliant.training import Progress
from pliant.tuning import Tuning, TuningFolder, plan_tuning, tune_methods, tuning_path

SEEDS = 10
"""Fresh seeds of the results, unless another number is asked for."""


def tune(
    problem: Any = None,
    /,
    *,
    trials: int = 16,
    tuning_seeds: int = 3,
    out: str | Path | None = None,
    data_dir: str | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    **choices: Any,
) -> TuningFolder:
    """Gives every method the same number of trials, and measures the best of each on fresh seeds.

    This is `pliant tune` for Python. Use it to compare methods fairly, with a baseline that is tuned as carefully. The
    same call continues an interrupted tuning; with more methods or seeds it extends a finished one.

    Args:
      problem: as of `pliant.run`.
      trials: configurations of every method, ≥ 1: its defaults, and points of a Sobol sequence in its `space`.
      tuning_seeds: ≥ 1, seeds of every trial.
      out: the folder; by default runs/tune-NAME-ID.
      data_dir: see `pliant.streams.load_dataset`.
      report: called with the progress after every chunk of updates.
      **choices: everything else that `pliant.run` takes, but for `track` and `grid`. `seeds` is the number of fresh
        seeds, 10 by default. An option that `settings` give a method is not tuned.

    Returns:
      The finished folder; `pliant.tuning.tuning_table` makes its table.

    Raises:
      UserError: as `pliant.run`; for a grid; and for a folder that holds another tuning.

    Example:
      >>> import tempfile
      >>> from pliant.tuning import tuning_table
      >>> small = {"tasks": 1, "epochs": 1, "widths": (16,), "batch_size": 512}
      >>> with tempfile.TemporaryDirectory() as out:
      ...     folder = tune("random-labels", methods="adam", trials=2, tuning_seeds=1, seeds=1, out=out, **small)
      ...     [trial.values["learning_rate"] for trial in folder.trials("adam")][0], len(tuning_table(folder))
      (0.001, 1)
    """
    choices = {"seeds": SEEDS, "grid": (), **choices}
    asked = asked_for(problem, **choices)  # settings of a benchmark are where its methods start from
    tuning = Tuning(asked.config, trials, tuning_seeds, tuple(choices.get("settings", ())))
    plan, _ = plan_tuning(tuning, data_dir, asked.objects)
    return tune_methods(tuning, plan, tuning_path(tuning, plan, out, asked.folder), data_dir, asked.objects, report)
