"""Where learning curves lie: the phases of an environment stand one after the other in its panel."""

import numpy as np
import pandas as pd

from pliant.results._run_folder import RunFolder


def curve_points(folder: RunFolder, metric: str) -> pd.DataFrame | None:
    """What has learning curves of a metric: a run's curves, or its metrics if tasks have several environments.

    Args:
      folder: of the run.
      metric: its name.

    Returns:
      A table as `RunFolder.curves` of the metric and of `env_steps`, with a column `environment`; None if there are no
      curves.
    """
    environments, names = folder.environments, (metric, "env_steps")
    has_several = len(set(environments.values())) > 1
    for table in (folder.select_curves(*names), *([folder.select(*names)] if has_several else [])):
        if np.isfinite(table.loc[table["metric"] == metric, "value"]).any():
            return table.assign(environment=table["task"].map(environments).fillna(""))
    return None


def placed(curves: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Where points lie in their panels: `x`, and the `offset` at which their phase begins; and the unit of both."""
    points = curves[["method", "environment", "task", "step"]].drop_duplicates()
    counted = curves[curves["metric"] == "env_steps"].drop_duplicates(["method", "task", "step"])
    in_steps = points.merge(counted[["method", "task", "step", "value"]], on=["method", "task", "step"])
    has_steps = len(in_steps) == len(points)
    points = in_steps.assign(at=in_steps["value"]) if has_steps else points.assign(at=points["step"])
    phases = points.groupby(["method", "environment", "task"], sort=False)["at"].max().reset_index(name="end")
    phases = phases.sort_values("task", kind="stable")
    phases["begin"] = phases.groupby("method")["end"].shift(fill_value=0)
    phases["length"] = phases["end"] - phases["begin"]
    phases["offset"] = phases.groupby(["method", "environment"])["length"].cumsum() - phases["length"]
    points = points.merge(phases, on=["method", "environment", "task"])
    points["x"] = (points["at"] - points["begin"] + points["offset"]).astype(float)
    kept = points[["method", "task", "step", "x", "offset"]]
    return kept, "environment steps" if has_steps else "updates"


def apart(tasks: np.ndarray, *rows: np.ndarray) -> list[np.ndarray]:
    """Separates phases by NaN, so that no line joins them; those of one point each are joined."""
    starts = np.flatnonzero(np.diff(tasks)) + 1
    if len(starts) + 1 == len(tasks):
        return list(rows)
    return [np.insert(row, starts, np.nan) for row in rows]
