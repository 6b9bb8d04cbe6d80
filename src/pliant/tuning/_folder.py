"""The folder of a tuning: what is tuned over what, and the run folders of its trials and of its results."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd

from pliant.errors import UserError
from pliant.results import COLUMNS, RunFolder, end_scores, lower_is_better, read_json, write_json
from pliant.settings import Value
from pliant.tuning._trials import Scored, select

_FORMAT = 1


class TuningRecord(NamedTuple):
    """What all methods of a tuning have in common."""

    title: str
    headline: str
    num_tasks: int
    num_trials: int
    num_tuning_seeds: int


class Trial(NamedTuple):
    """A configuration of a method that is tried."""

    values: Mapping[str, Value]
    """Of what is tuned, by name."""
    border: Sequence[str]
    """Which of these lie at the border of their range."""
    part: str
    """The run folder that it is in."""
    label: str
    """What the metrics there call it."""


class TuningFolder:
    """The files of a tuning.

    Use it to read what was tried, selected and measured. `tune.json` holds what all methods have in common, and
    `spaces/METHOD.json` the trials of a method. The others are run folders, see `RunFolder`: `trials/` on the tuning
    seeds, and `defaults/` and `selected/` on fresh seeds. Trials that need further compiled programs are in `trials-2/`
    and so on.

    Args:
      path: the folder; `~` is the user's home.

    Raises:
      UserError: if the folder is no tuning, or a file in it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(os.path.expanduser(path))
        if not is_tuned(self.path):
            raise UserError(
                got=f"{self.path}, which holds no tune.json",
                wanted="a folder that `pliant tune` has made",
                do="Give the folder that it printed.",
            )
        file = self.path / "tune.json"
        self._metrics: dict[str, pd.DataFrame] = {}
        self.record = _made(TuningRecord, read_json(file), file)

    @classmethod
    def begin(cls, path: str | os.PathLike[str], record: TuningRecord) -> "TuningFolder":
        """Makes the folder of a tuning, or opens it to continue.

        Raises:
          UserError: if the folder holds a tuning of another size, or a run.
        """
        path = Path(os.path.expanduser(path))
        if (path / "config.json").exists():
            got = f"{path}, which holds a run"
            raise UserError(got=got, wanted="an empty or new folder", do="Choose another --out.")
        if not is_tuned(path):
            (path / "spaces").mkdir(parents=True, exist_ok=True)
            write_json(path / "tune.json", {"format": _FORMAT, **record._asdict()})
        folder = cls(path)
        mine, theirs = folder.record._asdict(), record._asdict()
        changed = [f"{name}: {mine[name]}" for name in mine if mine[name] != theirs[name]]
        if changed:
            raise UserError(
                got=f"{path}, which holds another tuning ({', '.join(changed)})",
                wanted="an empty folder, or the tuning's own to continue it",
                do="Give the numbers that it was started with, or choose another --out.",
            )
        return folder

    def begin_method(self, name: str, trials: Sequence[Trial]) -> None:
        """Stores the trials of a method.

        Raises:
          UserError: if other trials of it are stored.
        """
        file = self.path / "spaces" / f"{name}.json"
        if file.exists() and self.trials(name) != list(trials):
            raise UserError(
                got=f"{file}, which holds other trials",
                wanted="those that this version of pliant and these options make",
                do="Choose another --out, or leave the method out.",
            )
        file.parent.mkdir(exist_ok=True)
        write_json(file, {"trials": [each._asdict() for each in trials]})

    @property
    def methods(self) -> list[str]:
        """The names of the methods whose trials were begun."""
        return sorted(file.stem for file in (self.path / "spaces").glob("*.json"))

    def trials(self, name: str) -> list[Trial]:
        """The trials of a method, the defaults first."""
        file = self.path / "spaces" / f"{name}.json"
        stored = read_json(file)
        trials = stored.get("trials") if isinstance(stored, dict) else None
        if not isinstance(trials, list) or not trials:
            raise _damaged(file, "trials")
        return [_made(Trial, each, file) for each in trials]

    def scored(self, name: str) -> list[Scored] | None:
        """What the trials of a method have reached; None as long as one is not finished."""
        found = []
        for trial in self.trials(name):
            metrics = self.metrics(trial.part)
            own = metrics[metrics["method"] == trial.label]
            if not self._is_finished(own, self.record.num_tuning_seeds):
                return None
            diverged = own[(own["metric"] == "diverged") & (own["value"] > 0)]["seed"].nunique()
            score = end_scores(own, self.record.headline)[trial.label].mean(skipna=False)
            found.append(Scored(float(score), int(diverged)))
        return found

    def selected(self, name: str) -> int | None:
        """The place of the trial that is selected; None as long as one is not finished."""
        scored = self.scored(name)
        return None if scored is None else select(scored, lower_is_better=lower_is_better(self.record.headline))

    def fresh_scores(self, part: str) -> dict[str, "pd.Series"]:
        """The scores of the finished methods on fresh seeds, indexed by seed.

        Args:
          part: "selected" or "defaults".
        """
        metrics = self.metrics(part)
        scores = end_scores(metrics, self.record.headline)
        return {name: own for name, own in scores.items() if self._is_finished(metrics[metrics["method"] == name], 1)}

    def metrics(self, part: str) -> pd.DataFrame:
        """The headline and `diverged` in a run folder, as they were when first read; empty before it begins."""
        path = self.path / part
        if part not in self._metrics:
            is_begun, asked = (path / "config.json").exists(), (self.record.headline, "diverged")
            self._metrics[part] = RunFolder(path).select(*asked) if is_begun else pd.DataFrame(columns=list(COLUMNS))
        return self._metrics[part]

    def _is_finished(self, own: pd.DataFrame, num_seeds: int) -> bool:
        """Whether as many seeds at least have all tasks."""
        tasks = own[own["metric"] == self.record.headline].groupby("seed")["task"].nunique()
        return int((tasks >= self.record.num_tasks).sum()) >= num_seeds

    @property
    def title(self) -> str:
        """What is tuned, in a line."""
        trials, seeds = self.record.num_trials, self.record.num_tuning_seeds
        return f"{self.record.title}, {_count(trials, 'trial')} on {_count(seeds, 'tuning seed')}"


_Made = TypeVar("_Made", TuningRecord, Trial)


def _made(kind: type[_Made], stored: Any, file: Path) -> _Made:
    """A record from what a file holds."""
    lacking = [name for name in kind._fields if not isinstance(stored, dict) or name not in stored]
    if lacking:
        raise _damaged(file, ", ".join(lacking))
    return kind(**{name: stored[name] for name in kind._fields})


def _damaged(file: Path, lacking: str) -> UserError:
    return UserError(
        got=f"{file}, which is damaged: it lacks {lacking}",
        wanted="what `pliant tune` wrote",
        do="Restore it from a copy, or tune again with another --out.",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def is_tuned(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is one of a tuning."""
    return (Path(os.path.expanduser(path)) / "tune.json").exists()
