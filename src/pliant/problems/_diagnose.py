"""Diagnostics of a run, from its folder."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pliant.errors import UserError
from pliant.problems._plan import config_of, kind_of, make_plan
from pliant.results import RunFolder
from pliant.training import Diagnosis, Plan, diagnose_plan
from pliant.types import Diagnostic


def diagnose_run(
    path: str | Path,
    task: int | None = None,
    diagnostics: str | Diagnostic | Sequence[str | Diagnostic] = ("full",),
    methods: str | Sequence[str] = (),
    data_dir: str | None = None,
) -> list[Diagnosis]:
    """Measures the networks of a run as they were at the end of a task, from its checkpoints.

    The spectra, matrices and curves go to the run's arrays, beside those of the run itself; its metrics stay as they
    are. Numbers are those that the run would have recorded with the same diagnostics.

    Args:
      path: the run folder.
      task: counted from 1; by default the last of each method that has a checkpoint. Others than the last have one if
        the run was made with `checkpoints="all"`.
      diagnostics: names, sets, files and names, or objects. Those that compare with the task before require its
        checkpoint too.
      methods: names; by default all of the run.
      data_dir: see `pliant.streams.load_dataset`.

    Returns:
      What was found, by method and point of the grid; without methods that have no checkpoint yet.

    Raises:
      UserError: if the folder is no run, was made with other data or another version, or has no such checkpoint or
        method.
    """
    folder = RunFolder(path)
    diagnostics = (diagnostics,) if isinstance(diagnostics, str | Diagnostic) else diagnostics
    methods = (methods,) if isinstance(methods, str) else methods
    for name in methods:
        if name not in folder.methods:
            raise UserError(
                got=f"no method {name!r} in {folder.path}",
                wanted=f"some of {', '.join(folder.methods)}",
                do="Leave --methods out for all.",
            )
    chosen = {name: method for name, method in folder.methods.items() if name in methods or not methods}
    return diagnose_plan(folder, _plan(folder, chosen, data_dir), task, diagnostics)


def _require_names(folder: RunFolder, methods: Mapping[str, Any]) -> None:
    """Objects that were given in Python cannot be found again."""
    stored = folder.configuration
    sources = {f"method {name}": method for name, method in methods.items()}
    kind = kind_of(config_of(stored))
    sources |= {kind: stored[kind]} if "source" in stored[kind] else {}
    if "data_source" in stored[kind]:
        sources[f"data set {stored[kind]['dataset']}"] = {"source": stored[kind]["data_source"]}
    sources |= {
        f"network {method['network']['name']}": {"source": method["network_source"]}
        for method in methods.values()
        if "network_source" in method
    }
    sources |= {f"diagnostic {name}": source for name, source in stored.get("diagnostics", {}).items()}
    objects = [what for what, source in sources.items() if source["source"] is None]
    if objects:
        raise UserError(
            got=f"{folder.path}, which was made with objects of a Python program: {', '.join(objects)}",
            wanted="a run of names, or of path/to/file.py:name, which can be found again",
            do="Measure in that program with pliant.diagnose, or run it again with what it made in a file.",
        )


def _plan(folder: RunFolder, methods: Mapping[str, Any], data_dir: str | None) -> Plan:
    """The plan that methods of the run were made with, made again.

    Raises:
      UserError: if this version, with these data, would make another one.
    """
    if folder.is_old:
        raise UserError(
            got=f"{folder.path}, which an earlier version of pliant wrote",
            wanted="a run of this version, whose checkpoints it can read",
            do="Diagnose it with the version that made it.",
        )
    _require_names(folder, methods)
    config = config_of(folder.configuration)
    shared, own = folder.configuration["config"], [method["config"] for method in methods.values()]
    stored = {
        **shared,
        "methods": [method["source"] for method in methods.values()],
        "settings": [*shared["settings"], *(each for one in own for each in one["settings"])],
        "grid": [each for one in own for each in one["grid"]],
        "tasks": folder.configuration[kind_of(config)].get("tasks", folder.num_tasks),
    }
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    known = {field.name for field in dataclasses.fields(config)} - {"seeds", "first_seed", "checkpoints"}
    plan = make_plan(config(**values), data_dir) if set(values) == known else None
    again = {each.method.name: each.configuration for each in plan.methods} if plan else {}
    if plan is None or plan.record != folder.record or folder.others(again):
        raise UserError(
            got=f"{folder.path}, which was made with other data, another version or other files of yours",
            wanted="a run that this version would make in the same way",
            do="Give the --data-dir of the run, or diagnose it with the version that made it.",
        )
    return plan
