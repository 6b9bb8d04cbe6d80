"""Reads the run folders of earlier versions, in which all methods shared their files.

Format 2 had `metrics.parquet`, `seconds.json` and `arrays/METHOD/`, and described itself by its configuration alone.
Format 1, which names no format, counted tasks from 0 in `metrics.parquet`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pliant.errors import UserError
from pliant.results._files import damaged, read_json
from pliant.results._metric_parts import COLUMNS, no_metrics

_FIELDS: Mapping[str, tuple[str, ...]] = {  # of the configuration, without which nothing can be shown
    "config": ("network",),
    "stream": ("name", "dataset", "headline", "chance"),
}


def described(file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """A `config.json` with the title, headline and chance level, which follow from its configuration.

    Raises:
      UserError: if these do not.
    """
    inner = config.get("configuration")
    if not isinstance(inner, dict):
        raise damaged(file, "lacks configuration")
    lacking = [name for name in _FIELDS if not isinstance(inner.get(name), dict)]
    lacking = lacking or [
        f"{part}.{name}" for part, names in _FIELDS.items() for name in names if name not in inner[part]
    ]
    if lacking:
        raise damaged(file, f"lacks {', '.join(lacking)}")
    stream = inner["stream"]
    data = "" if stream["dataset"] == "generated" else f" on {stream['dataset']}"
    title = f"{stream['name']}{data}, {inner['config']['network']}"
    return {**config, "title": title, "headline": stream["headline"], "chance": stream["chance"]}


def read_metrics(path: Path, first_task: int) -> pd.DataFrame:
    """All metrics of a run folder, with `COLUMNS`, tasks counted from 1.

    Args:
      path: the run folder.
      first_task: the number of the first task in the file.

    Raises:
      UserError: if the file is damaged.
    """
    file = path / "metrics.parquet"
    if not file.exists():
        return no_metrics()
    try:
        stored = pd.read_parquet(file).rename(columns={"benchmark": "problem"})[list(COLUMNS)]
        return stored.assign(task=stored["task"] + 1 - first_task)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            got=f"{file}, which cannot be read: {str(error)[:200]}",
            wanted="the metrics that `pliant run` wrote",
            do="Restore the file from a copy.",
        ) from error


def read_seconds(path: Path) -> dict[str, list[float]]:
    """Wall times by method; what cannot be read is left out."""
    try:
        seconds = read_json(path / "seconds.json")
    except (OSError, UserError):
        return {}
    if not isinstance(seconds, dict):
        return {}
    return {method: times for method, times in seconds.items() if isinstance(times, list)}
