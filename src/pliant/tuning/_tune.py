"""Tuning: every method gets the same number of trials; the best is measured on fresh seeds, beside the defaults."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pliant import problems
from pliant.errors import UserError, require_whole
from pliant.methods import search_space
from pliant.problems import Config
from pliant.results import fingerprint
from pliant.settings import Value
from pliant.specs import NO_OBJECTS, Objects
from pliant.training import MethodPlan, Plan, Progress, train
from pliant.tuning._folder import Trial, TuningFolder, TuningRecord
from pliant.tuning._space import border_of
from pliant.tuning._trials import make_trials, programs

FIRST_TUNING_SEED = 1000
"""Tuning seeds are counted from here, so that they are no seeds of the results."""


class Tuning(NamedTuple):
    """How methods are tuned, and for what."""

    config: Config
    """The run that they are tuned for; its seeds, the fresh ones, are those of the results."""
    trials: int = 16
    """Configurations of every method, the defaults among them."""
    tuning_seeds: int = 3
    """Seeds of every trial; the best is selected by them."""
    fixed: tuple[str, ...] = ()
    """METHOD.OPTION=VALUE that `config.settings` has and that is not tuned."""


def plan_tuning(
    tuning: Tuning, data_dir: str | None = None, objects: Objects = NO_OBJECTS, *, is_strict: bool = True
) -> tuple[Plan, dict[str, str]]:
    """Checks what is to be tuned; nothing is trained.

    Args:
      tuning: what is to be tuned.
      data_dir: see `pliant.streams.load_dataset`.
      objects: what some of its names stand for.
      is_strict: whether a method that cannot do the run is an error; otherwise it is left out.

    Returns:
      The plan of the run with defaults, and for every method left out the reason.

    Raises:
      UserError: for numbers out of range, a grid, and as `pliant.problems.make_plan`.
    """
    config = tuning.config
    require_whole("trials", tuning.trials, 1, do="16 are usual; 1 is the defaults alone.")
    require_whole("seeds", config.seeds, 1, do="10 are usual.")
    require_whole("tuning_seeds", tuning.tuning_seeds, 1, do="3 are usual.")
    last = config.first_seed + config.seeds
    if last > FIRST_TUNING_SEED:
        raise UserError(
            got=f"seeds up to {last - 1}",
            wanted=f"seeds below {FIRST_TUNING_SEED}, where tuning seeds begin",
            do="Choose fewer --seeds, or a lower --first-seed.",
        )
    if config.grid:
        got = f"--grid {' '.join(config.grid)} for a tuning"
        raise UserError(got=got, wanted="none: it makes its own trials", do="Leave it out, or use `pliant run`.")
    if is_strict:
        return problems.make_plan(config, data_dir, objects), {}
    return problems.plan_suited(config, data_dir, objects)


def tuning_path(tuning: Tuning, plan: Plan, out: str | Path | None = None, name: str | None = None) -> Path:
    """Where a tuning goes: by default runs/tune-NAME-ID, in which ID stands for all but the methods and seeds."""
    if out is not None:
        return Path(out).expanduser()
    identity = {
        "run": plan.record.configuration,
        "tasks": tuning.config.tasks,
        "trials": tuning.trials,
        "tuning_seeds": tuning.tuning_seeds,
        "settings": sorted(tuning.config.settings),
    }
    return Path("runs") / f"tune-{name or f'{plan.problem}-{plan.dataset}'}-{fingerprint(identity)}"


def tune_methods(
    tuning: Tuning,
    plan: Plan,
    path: Path,
    data_dir: str | None = None,
    objects: Objects = NO_OBJECTS,
    report: Callable[[Progress], None] = lambda _: None,
    leave_out: Callable[[str, str], None] | None = None,
) -> TuningFolder:
    """Tunes every method of a plan; continues an interrupted tuning, or adds methods to a finished one.

    For each method: train its trials on the tuning seeds, those that differ in numbers alone in one compiled program;
    select the one with the best mean of the headline over the last five tasks; train it, and the defaults, on the fresh
    seeds. Several processes may tune different methods of one folder.

    Args:
      tuning: what is to be tuned.
      plan: from `plan_tuning`.
      path: the folder.
      data_dir: see `plan_tuning`.
      objects: see `plan_tuning`.
      report: called with the progress after every chunk of updates.
      leave_out: called with a method and the reason if one of its trials cannot do the run, such as a reset of more
        layers than the network has; by default that is an error.

    Raises:
      UserError: as `leave_out` says, and as `TuningFolder` and `RunFolder`.
    """
    config, record = tuning.config, plan.record
    folder = TuningFolder.begin(
        path, TuningRecord(record.title, record.headline, config.tasks, tuning.trials, tuning.tuning_seeds)
    )
    for number, method in enumerate(plan.methods):
        name, stages = method.method.name, [f"{tuning.trials} trials", "selected", "defaults"]

        def tell(stage: int, now: Progress, number: int = number, stages: Sequence[str] = stages) -> None:
            done = (number + (stage + now.done) / len(stages)) / len(plan.methods)
            report(now._replace(method=f"{now.method.partition('[')[0]}, {stages[stage]}", done=done))

        try:
            trials, planned = _plan_trials(tuning, method, data_dir, objects)
        except UserError as error:
            if leave_out is None:
                raise
            leave_out(method.spec, str(error))
            continue
        folder.begin_method(name, trials)
        for part, of_program in planned:
            train(of_program, path / part, lambda now: tell(0, now))
        best = TuningFolder(path).selected(name)
        assert best is not None
        defaults = _of_method(config, method, objects)
        chosen = (*defaults.settings, *(f"{name}.{option}={value}" for option, value in trials[best].values.items()))
        selected = dataclasses.replace(defaults, settings=chosen)
        train(problems.make_plan(selected, data_dir, objects), path / "selected", lambda now: tell(1, now))
        train(problems.make_plan(defaults, data_dir, objects), path / "defaults", lambda now: tell(2, now))
    return TuningFolder(path)


def _plan_trials(
    tuning: Tuning, method: MethodPlan, data_dir: str | None, objects: Objects
) -> tuple[list[Trial], list[tuple[str, Plan]]]:
    """The trials of a method, and for each of their programs the run folder and the plan."""
    fixed = {entry.partition("=")[0] for entry in tuning.fixed}
    name = method.method.name
    space = {option: of for option, of in search_space(method.method).items() if f"{name}.{option}" not in fixed}
    shaping = [option for option in space if option in method.static]
    values = make_trials(space, {**method.static, **method.traced}, tuning.trials)
    trials: dict[int, Trial] = {}
    planned = []
    for number, places in enumerate(programs(values, shaping), start=1):
        part = "trials" if number == 1 else f"trials-{number}"
        plan = problems.make_plan(_config_of(tuning, method, values, places, shaping, objects), data_dir, objects)
        planned.append((part, plan))
        for place, label in zip(places, plan.methods[0].labels, strict=True):
            border = [option for option, value in values[place].items() if border_of(space[option], value)]
            trials[place] = Trial(values[place], border, part, label)
    return [trials[place] for place in range(len(values))], planned


def _config_of(
    tuning: Tuning,
    method: MethodPlan,
    values: Sequence[dict[str, Value]],
    places: Sequence[int],
    shaping: Sequence[str],
    objects: Objects,
) -> Config:
    """The run of those trials that share a compiled program."""
    name, first = method.method.name, values[places[0]]
    numbers = [option for option in first if option not in shaping]
    points = ",".join(":".join(str(values[place][option]) for option in numbers) for place in places)
    config = _of_method(tuning.config, method, objects)
    return dataclasses.replace(
        config,
        first_seed=FIRST_TUNING_SEED,
        seeds=tuning.tuning_seeds,
        diagnostics=("basic",),
        diagnose_after=(),
        checkpoints="last",
        settings=(*config.settings, *(f"{name}.{option}={first[option]}" for option in shaping if option in first)),
        grid=(f"{name}.{':'.join(numbers)}={points}",) if numbers else (),
    )


def _of_method(config: Config, method: MethodPlan, objects: Objects) -> Config:
    """The run of one method alone, with those settings that are its own, or of what all methods share."""
    alone = dataclasses.replace(config, methods=(method.spec,), settings=())
    return dataclasses.replace(alone, settings=problems.settings_in_use(config.settings, alone, objects))
