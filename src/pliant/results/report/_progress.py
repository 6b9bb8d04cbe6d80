"""How far a run is, and which seeds went wrong."""

from typing import NamedTuple

import numpy as np

from pliant.results._run_folder import RunFolder

_MOST_LINES = 12  # about seeds; the rest is counted


class Progress(NamedTuple):
    """How far a method is."""

    method: str
    tasks: int
    """Finished by all of its seeds."""
    all_tasks: int
    """What the last starts asked for."""
    seeds: int
    """With at least one finished task."""
    all_seeds: int

    @property
    def is_finished(self) -> bool:
        """Whether all seeds have finished all tasks."""
        return self.tasks >= self.all_tasks and self.seeds >= self.all_seeds


def progress(folder: RunFolder) -> list[Progress]:
    """How far each method is, in the order in which they were begun.

    Args:
      folder: of the run, which may be going on.
    """
    found = []
    for method, starts in folder.starts.items():
        own = folder.metrics[folder.metrics["method"].isin(folder.labels(method))]
        last = own.groupby(["method", "seed"])["task"].max()
        seeds, all_seeds = own["seed"].nunique(), max((start["seeds"] for start in starts), default=0)
        tasks = int(last.min()) if seeds >= all_seeds and len(last) else 0
        all_tasks = max((start["tasks"] for start in starts), default=0)
        found.append(Progress(method, tasks, max(all_tasks, tasks), seeds, max(all_seeds, seeds)))
    return found


def said_of_progress(found: list[Progress]) -> str:
    """A line about a run: that it is finished, or how far each method is.

    Example:
      >>> said_of_progress([Progress("adam", 8, 8, 4, 4), Progress("redo", 3, 8, 4, 4)])
      'Unfinished: redo has finished 3 of 8 tasks; 1 of 2 methods is finished.'
      >>> said_of_progress([Progress("adam", 8, 8, 4, 4)])
      'Finished: 1 method, 8 tasks, 4 seeds.'
    """
    if not found:
        return ""
    rest = [each for each in found if not each.is_finished]
    if not rest:
        tasks, seeds = max(each.all_tasks for each in found), max(each.all_seeds for each in found)
        return f"Finished: {_counted(len(found), 'method')}, {_counted(tasks, 'task')}, {_counted(seeds, 'seed')}."
    lines = [_said_of_method(each) for each in rest[:_MOST_LINES]]
    lines += [f"{len(rest) - _MOST_LINES} more are unfinished"] if len(rest) > _MOST_LINES else []
    done = len(found) - len(rest)
    others = f"; {done} of {len(found)} methods {'is' if done == 1 else 'are'} finished" if len(found) > 1 else ""
    return f"Unfinished: {'; '.join(lines)}{others}."


def _said_of_method(each: Progress) -> str:
    of_seeds = f" with {each.seeds} of {each.all_seeds} seeds" if each.seeds < each.all_seeds else ""
    return f"{each.method} has finished {each.tasks} of {_counted(each.all_tasks, 'task')}{of_seeds}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def troubles(folder: RunFolder) -> list[str]:
    """A line for each seed whose parameters or headline metric were not finite numbers.

    Args:
      folder: of the run.
    """
    metrics, headline = folder.metrics, folder.headline
    lines = []
    is_bad = ((metrics["metric"] == "diverged") & (metrics["value"] > 0)) | (
        (metrics["metric"] == headline) & ~np.isfinite(metrics["value"])
    )
    for (method, seed), own in metrics[is_bad].groupby(["method", "seed"], sort=False):
        diverged = own.loc[own["metric"] == "diverged", "task"]
        if len(diverged):
            lines.append(f"{method}: seed {seed} diverged in task {diverged.min()}. Its parameters are not finite.")
        else:
            tasks = sorted(own["task"].unique())
            where = f"task {tasks[0]}" if len(tasks) == 1 else f"{len(tasks)} tasks, first in task {tasks[0]}"
            lines.append(f"{method}: seed {seed} has no finite {headline.replace('_', ' ')} in {where}.")
    if not lines:
        return []
    more = len(lines) - _MOST_LINES
    lines = lines[:_MOST_LINES] + ([f"{more} more seeds are like these."] if more > 0 else [])
    return [*lines, "Means are over the seeds that have a finite number; lines have gaps where none has."]
