"""Writes run folders of format 2. For training until it writes by method; then this file goes."""

import itertools
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from pliant.errors import UserError
from pliant.results._files import advice, differences, locked, remove_leftovers, replacing, write_json
from pliant.results._method_folder import write_arrays


class Format2Writer:
    """The part of `RunFolder` that writes format 2."""

    metrics: Any
    seconds: Any

    @classmethod
    @contextmanager
    def opened(cls, path: Any, configuration: Any, identity: str) -> Any:
        from pliant.results import _run_folder

        path = _run_folder.as_path(path)
        busy = UserError(
            got=f"{path}, in which another process is running",
            wanted="one process a run",
            do="Wait for it to end, or choose another --out.",
        )
        with locked(path, busy):
            remove_leftovers(path)
            if not (path / "config.json").exists():
                _run_folder.refuse_strangers(path)
                content = {"format": 2, "id": identity, "configuration": configuration, "environment": []}
                write_json(path / "config.json", content)
            folder = cast(Any, cls)(path)
            if folder._config["id"] != identity:
                changed = differences(folder.configuration, configuration) or ["the format"]
                raise UserError(
                    got=f"{path}, which holds a run with another configuration ({', '.join(changed)})",
                    wanted="an empty folder, or the run's own to continue it",
                    do=advice(changed),
                )
            yield folder

    def record_environment(self: Any, environment: Mapping[str, Any]) -> None:
        environments = self._config["environment"]
        if not environments or environments[-1] != environment:
            environments.append(dict(environment))
            write_json(self.path / "config.json", self._config)

    def num_tasks_stored(self: Any, method: str) -> int:
        stored = set(self.metrics.loc[self.metrics["method"] == method, "task"])
        return next(task for task in itertools.count() if task + 1 not in stored)

    def record_task(self: Any, task: int, rows: pd.DataFrame, seconds: float) -> None:
        labels = list(rows["method"].unique())
        stale = self.metrics["method"].isin(labels) & (self.metrics["task"] >= task)
        kept = self.metrics[~stale]
        self.metrics = pd.concat([kept, rows], ignore_index=True) if len(kept) else rows
        with replacing(self.path / "metrics.parquet") as temporary:
            self.metrics.assign(task=self.metrics["task"] - (self._config["format"] < 2)).to_parquet(
                temporary, index=False
            )
        for label in labels:
            before = self.seconds.get(label, [])[: task - 1]
            self.seconds[label] = [*before, *[0.0] * (task - 1 - len(before)), seconds / len(labels)]
        write_json(self.path / "seconds.json", self.seconds)

    def record_arrays(self: Any, method: str, task: int, arrays: Mapping[str, np.ndarray]) -> None:
        write_arrays(self.path / "arrays" / method, task, arrays)

    def checkpoints(self: Any, method: str) -> Path:
        return Path(self.path / "checkpoints" / method)
