"""`pliant tune`: gives every method the same number of trials, and prints what the best of each reaches."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Suppress

from pliant import tuning
from pliant.cli._run import ALL, Run, RunAgent, report_progress, run_command
from pliant.cli._tables import print_tuning
from pliant.cli._terminal import print_line
from pliant.errors import UserError
from pliant.tuning import Tuning

_SEEDS = 10


class _Command:
    """What tunings for streams and for agents do alike."""

    def __call__(self: Any) -> None:
        """Tunes, then prints the table."""
        config, is_all = self._config(), self.methods == ALL
        if self.track:
            do = "Track the run of what was selected: `pliant run`."
            raise UserError(got="--track for a tuning", wanted="none", do=do)
        tuned = Tuning(config, self.trials, self.tuning_seeds, tuple(itertools.chain(*self.settings)))
        plan, left_out = tuning.plan_tuning(tuned, self.data_dir, is_strict=not is_all)
        for name, reason in left_out.items():
            _leave_out(name, reason)
        path = tuning.tuning_path(tuned, plan, self.out, self._name())
        print_line(f"tuning: {path}")
        with report_progress(config.tasks) as report:
            folder = tuning.tune_methods(
                tuned, plan, path, self.data_dir, report=report, leave_out=_leave_out if is_all else None
            )
        print_tuning(folder)

    def with_defaults_of_benchmark(self: Any) -> Any:
        """What the command line starts from: a benchmark brings its choices, but not its seeds and its grid."""
        return dataclasses.replace(super().with_defaults_of_benchmark(), seeds=_SEEDS, grid=())


def _leave_out(name: str, reason: str) -> None:
    print_line(f"without {name}: {reason}")


@dataclasses.dataclass(frozen=True)
class _Options:
    """What a tuning is told beside what a run is."""

    trials: int = 16
    """Configurations of every method: its defaults, and points of a Sobol sequence in the space that `pliant show` of
    the method prints."""
    tuning_seeds: int = 3
    """Seeds of every trial, by which the best is selected."""
    seeds: int = _SEEDS
    """Fresh seeds, on which the selected values and the defaults are measured."""
    out: Path | None = None
    """Folder of the tuning; by default runs/tune-STREAM-DATASET-ID or runs/tune-BENCHMARK-SCALE-ID."""
    track: Annotated[tuple[str, ...], Suppress] = ()
    """Not of a tuning."""


@dataclasses.dataclass(frozen=True)
class Tune(_Command, _Options, Run):
    """The options of `pliant tune STREAM`."""


@dataclasses.dataclass(frozen=True)
class TuneAgent(_Command, _Options, RunAgent):
    """Give every method the same number of trials with an agent in some environments, and select its best values. These
    and the defaults are then measured on fresh seeds. The same command continues an interrupted tuning.
    """


def tune_command(arguments: Sequence[str]) -> type[Tune] | type[TuneAgent]:
    """Whether the words after `pliant tune` are about a stream or an agent.

    Example:
      >>> tune_command(["--trials", "2", "probe"]).__name__
      'TuneAgent'
    """
    return Tune if run_command(arguments) is Run else TuneAgent
