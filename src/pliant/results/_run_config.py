"""The file config.json of a run: what all of its methods have in common."""

from pathlib import Path
from typing import Any

from pliant.errors import UserError
from pliant.results import _old_formats as old_formats
from pliant.results._files import damaged, read_json

FORMAT = 3
"""Of the run folders that this version writes."""


def read_config(path: Path) -> dict[str, Any]:
    """Reads and checks the configuration of the run in a folder, also of folders that earlier versions wrote."""
    file = path / "config.json"
    try:
        config = read_json(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            got=f"{path}, which has no config.json",
            wanted="the folder of a run",
            do="Give the folder that `pliant run` printed (its --out).",
        ) from error
    except OSError as error:
        raise UserError(
            got=f"{file}: {error.strerror}",
            wanted="the folder of a run, whose files can be read",
            do="Give the folder that `pliant run` printed (its --out), and check its permissions.",
        ) from error
    if not isinstance(config, dict):
        raise damaged(file, "lacks the configuration of a run")
    form = config.setdefault("format", 1)
    if not isinstance(form, int):
        raise damaged(file, "lacks a whole number as its format")
    if form > FORMAT:
        raise UserError(
            got=f"{path}, which a later version of pliant wrote",
            wanted=f"a run folder of format {FORMAT} or earlier",
            do="Update pliant.",
        )
    if form < FORMAT:
        return old_formats.described(file, config)
    kinds = {"title": str, "headline": str, "chance": float | int | None, "configuration": dict}
    lacking = [name for name, kind in kinds.items() if name not in config or not isinstance(config[name], kind)]
    if lacking:
        raise damaged(file, f"lacks {', '.join(lacking)}")
    return config
