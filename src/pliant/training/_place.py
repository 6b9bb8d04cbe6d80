"""Where the results of a run go."""

import os
from pathlib import Path

from pliant.results import RunFolder, fingerprint
from pliant.training._plan import Plan


def run_folder(plan: Plan, out: str | Path | None = None, name: str | None = None) -> Path:
    """Where the results of a plan go.

    Without `out` this is runs/NAME-ID, in which ID stands for what all methods have in common. So the same command with
    more methods, tasks or seeds extends the run. If one of the methods is there with other hyperparameters or another
    source, ID stands for all methods.

    Args:
      plan: of the run.
      out: the folder; `~` is the user's home.
      name: by default PROBLEM-DATASET.
    """
    if out is not None:
        return Path(os.path.expanduser(out))
    name = name or f"{plan.problem}-{plan.dataset}"
    shared, methods = plan.record.configuration, {each.method.name: each.configuration for each in plan.methods}
    path = Path("runs") / f"{name}-{fingerprint(shared)}"
    if (path / "config.json").exists() and RunFolder(path).others(methods):
        return Path("runs") / f"{name}-{fingerprint({'run': shared, 'methods': methods})}"
    return path
