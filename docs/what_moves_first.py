"""What moves before accuracy falls: diagnostics of Adam and AdamO, task by task, on the main job.

    python docs/what_moves_first.py [RUN_DIR]

Twenty tasks of memorising random labels of digits, four seeds. After every task: dormant units, the effective rank of
the last hidden layer, the condition number of the empirical neural tangent kernel, the layers' Jacobians, the largest
eigenvalue of the Hessian, and probe plasticity (Lyle et al. 2023, equation 4: copies of the network learn ten random
functions). For every one and every seed of Adam: the first task after which it has gone half the way from its value
after task 1 to its mean over the last five tasks. The same is asked of accuracy; the difference is the lead. The run
takes about ten minutes on two cores, and is kept in RUN_DIR (runs/what-moves-first).
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pliant.supervised import RunConfig, run
from pliant.xla import guard

LAST = 5
MEASURES = {
    "train_accuracy": "accuracy",
    "dormant_fraction": "dormant units",
    "effective_rank": "effective rank",
    "ntk_condition_log10": "NTK condition, log₁₀",
    "jacobian_zero_fraction": "layers' Jacobians: zero σ",
    "jacobian_condition_log10": "layers' Jacobians: condition, log₁₀",
    "hessian_top": "top Hessian eigenvalue",
    "probe_plasticity": "probe plasticity",
}
DIAGNOSTICS = ("basic", "ntk", "jacobian", "hessian-top", "probe-plasticity")


def configuration(tasks: int = 20, seeds: int = 4, **changes: object) -> RunConfig:
    """The main job with these diagnostics after every task."""
    after = tuple(range(1, tasks + 1))
    choices = {"methods": ("adam", "adamo"), "tasks": tasks, "seeds": seeds, "diagnose_after": after} | changes
    return RunConfig(**{"diagnostics": DIAGNOSTICS} | choices)  # type: ignore[arg-type]


def courses(metrics: pd.DataFrame, method: str, metric: str) -> np.ndarray:
    """Values after every task, (seed, task)."""
    own = metrics[(metrics["method"] == method) & (metrics["metric"] == metric)]
    return own.pivot(index="seed", columns="task", values="value").to_numpy()


def half_way(values: np.ndarray) -> np.ndarray:
    """The first task (from 1) of each seed with half the way from its first value to its last five's mean behind it.

    The last five are numbers: a network that has died has no condition. NaN for a seed that goes nowhere.
    """
    found = []
    for of_seed in values:
        end = of_seed[np.isfinite(of_seed)][-LAST:].mean()
        way = end - of_seed[0]
        behind = (of_seed - of_seed[0]) / way >= 0.5 if way else np.zeros(len(of_seed), bool)
        found.append(behind.argmax() + 1.0 if behind.any() else np.nan)
    return np.array(found)


def table(metrics: pd.DataFrame) -> pd.DataFrame:
    """A row a measure: Adam's and AdamO's values, and by how many tasks Adam's moved before its accuracy did."""
    fell = half_way(courses(metrics, "adam", "train_accuracy"))
    rows = []
    for metric, name in MEASURES.items():
        adam, adamo = (courses(metrics, method, metric) for method in ("adam", "adamo"))
        moved = half_way(adam)
        rows.append(
            {
                "measure": name,
                "adam, task 1": np.nanmean(adam[:, 0]),
                "adam, last five": np.nanmean(adam[:, -LAST:]),
                "adamo, task 1": np.nanmean(adamo[:, 0]),
                "adamo, last five": np.nanmean(adamo[:, -LAST:]),
                "adam half way, by seed": " ".join(f"{task:.0f}" for task in moved),
                "lead over accuracy, tasks": float(np.nanmedian(fell - moved)),
            }
        )
    return pd.DataFrame(rows)


def draw(metrics: pd.DataFrame) -> Figure:
    """One panel a measure: both methods, seeds thin, means thick; dotted where Adam's accuracy is half way down."""
    figure = Figure(figsize=(13.0, 6.0), layout="constrained")
    panels = figure.subplots(2, 4)
    fell = np.nanmedian(half_way(courses(metrics, "adam", "train_accuracy")))
    for axes, (metric, name) in zip(panels.flat, MEASURES.items(), strict=True):
        for color, method in (("tab:blue", "adam"), ("tab:orange", "adamo")):
            values = courses(metrics, method, metric)
            tasks = np.arange(values.shape[1]) + 1
            axes.plot(tasks, values.T, color=color, linewidth=0.6, alpha=0.5)
            axes.plot(tasks, np.nanmean(values, axis=0), color=color, linewidth=2.0, label=method)
        axes.axvline(fell, color="0.5", linestyle=":", linewidth=1)
        axes.set(title=name, xlabel="task")
        if metric == "hessian_top":
            axes.set_yscale("symlog", linthresh=1e-2)
            axes.set_ylim(bottom=0.0)
        axes.spines[["top", "right"]].set_visible(False)
    panels.flat[1].legend(frameon=False, loc="center right")
    return figure


if __name__ == "__main__":
    guard.use_every_core()
    folder = run(configuration(), sys.argv[1] if len(sys.argv) > 1 else "runs/what-moves-first")
    print(table(folder.metrics).to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    figure = Path(__file__).with_name("what-moves-first.png")
    draw(folder.metrics).savefig(figure, dpi=120)
    print(f"figure: {figure}")
