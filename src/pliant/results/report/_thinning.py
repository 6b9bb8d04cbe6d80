"""How much of large runs fits on a page."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

MOST_NUMBERS = 900_000
"""On a page: about seven bytes each."""
_STEPS = (1000, 500, 250, 120, 60, 30, 15)


class Thinning(NamedTuple):
    """What a page leaves out."""

    most: int
    """Points a line."""
    layer_seeds: bool
    """Whether single seeds are drawn in figures of single layers."""
    layers: bool
    """Whether there are figures of single layers."""


def thinning(tables: Sequence[pd.DataFrame], most_numbers: int = MOST_NUMBERS) -> Thinning:
    """The least that must be left out, so that the metrics of some runs fit on a page.

    Args:
      tables: metrics or curves in long form, see `RunFolder.metrics`.
      most_numbers: on the page.

    Example:
      >>> rows = [("a", seed, task, "loss", 1.0) for seed in range(2) for task in range(1, 101)]
      >>> table = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> thinning([table]).most, thinning([table], most_numbers=200).most
      (1000, 30)
    """
    counts = [_counts(table) for table in tables]
    choices = [Thinning(most, True, True) for most in _STEPS[:5]]
    choices += [Thinning(most, False, True) for most in _STEPS[3:]]
    choices += [Thinning(most, False, False) for most in _STEPS[3:]]
    for choice in choices:
        if sum(_size(each, choice) for each in counts) <= most_numbers:
            return choice
    return choices[-1]


def _counts(table: pd.DataFrame) -> pd.DataFrame:
    """Points and seeds of each line."""
    by_line = table.groupby(["method", "metric"], sort=False)
    found = pd.DataFrame({"rows": by_line.size(), "seeds": by_line["seed"].nunique()})
    found["points"] = found["rows"] / found["seeds"].clip(lower=1)
    return found.assign(is_layer=found.index.get_level_values("metric").str.contains("/"))


def _size(counts: pd.DataFrame, choice: Thinning) -> int:
    own = counts if choice.layers else counts[~counts["is_layer"]]
    seeds = own["seeds"].where(choice.layer_seeds | ~own["is_layer"], 0)
    return int((own["points"].clip(upper=choice.most) * (seeds + 3)).sum())  # x, mean and error beside the seeds


def said_of_thinning(found: Thinning, longest: int) -> list[str]:
    """What a page says of what it leaves out.

    Args:
      found: from `thinning`.
      longest: points of the longest line.
    """
    lines = []
    if longest > found.most:
        lines.append(f"Lines show at most {found.most} evenly spaced points of {longest:,}.")
    if not found.layers:
        lines.append("Figures of single layers are left out, because there are too many numbers for one page.")
    elif not found.layer_seeds:
        lines.append("Figures of single layers show no single seeds, because there are too many numbers for one page.")
    return [*lines, "All numbers are in the run folder."] if lines else []
