"""The table of a tuning: what was selected, what it reaches on fresh seeds, and what the defaults reach there."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pliant.errors import UserError
from pliant.results import Estimate, lower_is_better, mean_estimate, paired_difference, ranks
from pliant.tuning._folder import TuningFolder


def tuning_table(folder: TuningFolder) -> pd.DataFrame:
    """Summarises a tuning in one row a method, the best first.

    Numbers on fresh seeds are of those that all finished methods share. Methods, or stages of a method, that are not
    finished have NaN.

    Args:
      folder: of the tuning.

    Returns:
      Columns: `method`, `num_seeds` (fresh ones that count); `tuned`, `default` (means on the fresh seeds) and `gain`
      (the first minus the second, paired by seed), each with `_low` and `_high`, the ends of its 95 % interval; `rank`
      and `default_rank` with the same; `selected`, the values; `is_default`, whether these are the defaults; `border`,
      which of them lie at the border of their range; of the scores on the tuning seeds `best_trial`, `median_trial` and
      `worst_trial`; `num_trials`, and `num_unsound`, of trials with a diverged seed.

    Raises:
      UserError: if no method is begun.
    """
    if not folder.methods:
        do = "Start the tuning again with the same command."
        raise UserError(got=f"{folder.path}, in which no method is begun", wanted="at least one", do=do)
    is_lower = lower_is_better(folder.record.headline)
    tuned, default = (_of_shared_seeds(folder.fresh_scores(part)) for part in ("selected", "defaults"))
    ranked = {"rank": _ranks(tuned, is_lower), "default_rank": _ranks(default, is_lower)}
    rows = []
    for name in folder.methods:
        row: dict[str, Any] = {"method": name, "num_seeds": len(tuned.get(name, ()))}
        found = {
            "tuned": mean_estimate(tuned[name].to_numpy()) if name in tuned else None,
            "default": mean_estimate(default[name].to_numpy()) if name in default else None,
            "gain": _gain(tuned[name], default[name]) if name in tuned and name in default else None,
            **{which: of_methods.get(name) for which, of_methods in ranked.items()},
        }
        for which, estimate in found.items():
            numbers = estimate or (math.nan,) * 3
            row |= {f"{which}{end}": number for end, number in zip(("", "_low", "_high"), numbers, strict=True)}
        rows.append(row | _of_trials(folder, name, is_lower=is_lower))
    return pd.DataFrame(rows).sort_values("rank", kind="stable", ignore_index=True)


def _gain(tuned: "pd.Series", default: "pd.Series") -> Estimate | None:
    return paired_difference(tuned, default) if set(tuned.index) & set(default.index) else None


def _ranks(scores: Mapping[str, "pd.Series"], is_lower: bool) -> dict[str, Estimate]:
    found = ranks(np.array([own.to_numpy() for own in scores.values()]), lower_is_better=is_lower) if scores else ()
    return dict(zip(scores, found, strict=True))


def _of_shared_seeds(scores: Mapping[str, "pd.Series"]) -> dict[str, "pd.Series"]:
    """The scores of methods on the seeds that all of them have."""
    shared = sorted(set.intersection(*(set(own.index) for own in scores.values()))) if scores else []
    return {name: own.loc[shared] for name, own in scores.items()}


def _of_trials(folder: TuningFolder, name: str, *, is_lower: bool) -> dict[str, Any]:
    trials, scored, place = folder.trials(name), folder.scored(name), folder.selected(name)
    if scored is None or place is None:
        nothing = {"selected": "", "is_default": False, "border": "", "num_unsound": 0}
        scores = dict.fromkeys(("best_trial", "median_trial", "worst_trial"), math.nan)
        return nothing | scores | {"num_trials": len(trials)}
    scores_of = [each.score for each in scored if each.is_sound]
    worst = (max if is_lower else min)(scores_of, default=math.nan)
    return {
        "selected": ", ".join(f"{option}={value}" for option, value in trials[place].values.items()),
        "is_default": place == 0,
        "border": ", ".join(trials[place].border),
        "best_trial": scored[place].score,
        "median_trial": float(np.median(scores_of)) if scores_of else math.nan,
        "worst_trial": worst,
        "num_trials": len(trials),
        "num_unsound": sum(not each.is_sound for each in scored),
    }


def tuning_cells(table: pd.DataFrame) -> list[list[str]]:
    """The cells of the printed table, the header first; see `pliant.results.terminal_table`.

    Args:
      table: from `tuning_table`.
    """
    header = ["method", "rank", "tuned [95 %]", "default [95 %]", "default rank", "gain [95 %]"]
    rows = [[*header, "trials: worst, median, best", "selected"]]
    for row in table.to_dict("records"):
        trials = ", ".join(_number(row[f"{which}_trial"]) for which in ("worst", "median", "best"))
        unsound = f" ({row['num_unsound']} of {row['num_trials']} diverged)" if row["num_unsound"] else ""
        estimates = (("rank", ".3g"), ("tuned", ".3f"), ("default", ".3f"), ("default_rank", ".3g"), ("gain", "+.3f"))
        rows.append(
            [str(row["method"]), *(_estimate(row, *each) for each in estimates), trials + unsound, _selected(row)]
        )
    return rows


def _selected(row: Mapping[Hashable, Any]) -> str:
    """What was selected; an asterisk marks what lies at the border of its range."""
    if not row["selected"]:
        return "–"
    at_border = row["border"].split(", ")
    parts = [each + "*" * (each.partition("=")[0] in at_border) for each in row["selected"].split(", ")]
    return ("the defaults: " if row["is_default"] else "") + ", ".join(parts)


def _estimate(row: Mapping[Hashable, Any], name: str, form: str) -> str:
    value, low, high = (_number(row[f"{name}{end}"], form) for end in ("", "_low", "_high"))
    return "–" if value == "–" else f"{value} [{low}, {high}]"


def _number(value: float, form: str = ".3f") -> str:
    return "–" if math.isnan(value) else format(value, form)
