"""A supervised run from its configuration."""

from collections.abc import Callable
from pathlib import Path

from pliant.results import RunFolder
from pliant.supervised._config import RunConfig
from pliant.supervised._plan import make_plan
from pliant.training import Progress, run_folder, train


def run(
    config: RunConfig,
    out: str | Path | None = None,
    *,
    name: str | None = None,
    data_dir: str | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> RunFolder:
    """Trains every method of a configuration and writes the run folder; continues an interrupted run, or extends one.

    See `pliant.training.train` for what is stored.

    Args:
      config: what to run.
      out: the run folder; by default runs/NAME-ID.
      name: by default STREAM-DATASET.
      data_dir: see `pliant.streams.load_dataset`.
      report: called with the progress after every chunk of updates.

    Returns:
      The finished run folder.

    Raises:
      UserError: see `make_plan` and `RunFolder`.

    Example:
      >>> import tempfile
      >>> config = RunConfig(methods=("adam",), seeds=1, tasks=1, epochs=1, widths=(16,))
      >>> with tempfile.TemporaryDirectory() as out:
      ...     sorted(run(config, out).metrics.metric)[:3]
      ['diverged', 'dormant_exact_fraction', 'dormant_fraction']
    """
    plan = make_plan(config, data_dir)
    return train(plan, run_folder(plan, out, name), report)
