"""Run folders whose numbers are known, for tests of the report."""

import numpy as np
import pandas as pd

from pliant.results import COLUMNS, RunFolder, RunRecord

ENVIRONMENT = {"packages": {"pliant": "0.1.0", "jax": "0.10.2"}, "python": "3.11.7", "device": "cpu"}


def value_of(place, seed, task, metric):
    """The number of a metric: all differ."""
    return {"train_accuracy": 0.9 - 0.2 * place - 0.05 * task + 0.01 * seed}.get(
        metric, 1.0 + place + 0.1 * task + seed
    )


def make_run(
    path,
    *,
    methods=("adam", "redo"),
    seeds=3,
    tasks=4,
    asked=None,
    metrics=("train_accuracy", "loss", "effective_rank", "dormant_fraction", "dormant_fraction/dense_0"),
    change=None,
    arrays=False,
    title="random-labels on digits, mlp",
):
    """Writes a run folder as `pliant run` does.

    Args:
      path: the folder.
      methods: names.
      seeds: their number.
      tasks: finished ones.
      asked: how many tasks were asked for; None for as many as are finished.
      metrics: recorded for each task.
      change: replaces a number, a function of (method, seed, task, metric, value).
      arrays: whether there are spectra and matrices of the last task.
      title: of the run.
    """
    record = RunRecord(title, "train_accuracy", 0.1, {"config": {"epochs": 5, "widths": [8, 8]}})
    for place, name in enumerate(methods):
        with RunFolder.begin(path, record).open_method(name, {"learning_rate": 0.001}) as method:
            method.record_start(ENVIRONMENT, asked or tasks, seeds)
            (block,) = method.blocks(seeds)
            for task in range(1, tasks + 1):
                rows = []
                for seed in range(seeds):
                    for metric in (*metrics, "diverged"):
                        value = 0.0 if metric == "diverged" else value_of(place, seed, task, metric)
                        value = change(name, seed, task, metric, value) if change else value
                        rows.append(("random-labels", name, "mlp", "digits", seed, task, 10 * task, metric, value))
                block.record_task(task, pd.DataFrame(rows, columns=list(COLUMNS)), seconds=2.0)
            if arrays:
                for task in (1, tasks):
                    block.record_arrays(task, _arrays(seeds))
    return RunFolder(path)


def _arrays(seeds):
    random = np.random.default_rng(0)
    spectrum = np.sort(random.uniform(0.1, 2, (seeds, 8)))[:, ::-1]
    return {
        "gradient-cosine/matrix": np.tile(np.eye(6), (seeds, 1, 1)),
        "gradient-cosine/labels": np.tile(np.arange(6) // 3, (seeds, 1)),
        "hessian-density/grid": np.tile(np.linspace(-1, 3, 50), (seeds, 1)),
        "hessian-density/density": random.uniform(0.1, 1, (seeds, 50)),
        "ntk/eigenvalues": spectrum,
        "probe-plasticity/curves": random.uniform(0.1, 1, (seeds, 4, 3)),
        "probe-plasticity/steps": np.tile([0, 10, 20], (seeds, 1)),
        "weight-spectra/singular_values/dense_0/kernel": spectrum,
        "jacobian/singular_values/dense_0": np.tile(spectrum[:, None], (1, 2, 1)),
    }


def make_agents(path, games=("asterix", "freeway"), seeds=2):
    """A run of agents in three tasks of 10 updates, each with a point in its middle; 16 environment steps an update."""
    record = RunRecord("ppo in minatar, mlp", "episode_return", None, {"environment": {"environments": list(games)}})
    with RunFolder.begin(path, record).open_method("adam", {}) as method:
        method.record_start(ENVIRONMENT, 3, seeds)
        (block,) = method.blocks(seeds)
        for task in (1, 2, 3):
            rows = [
                ("b", "adam", "mlp", "d", seed, task, step, metric, value)
                for seed in block.seeds
                for step in (10 * task - 5, 10 * task)
                for metric, value in (
                    ("environment", float(task % len(games))),
                    ("episode_return", float(step + seed)),
                    ("env_steps", 16.0 * step),
                )
            ]
            points = pd.DataFrame(rows, columns=list(COLUMNS))
            block.record_task(task, points[points["step"] == 10 * task], 1.0, points)
    return RunFolder(path)
