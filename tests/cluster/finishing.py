"""Jobs that are finished without training: what they would leave in their run folders."""

import pandas as pd

from pliant.results import COLUMNS, RunFolder


def finish(run, job, tasks=None):
    """Stores tasks of a job of a run, by default all."""
    plan, name = job.method, job.method.method.name
    folder = RunFolder.begin(run.path, run.plan.record)
    with folder.open_method(name, plan.configuration) as method:
        (block,) = method.claim(len(job.block.seeds), job.block.seeds.start, alone=True)
        method.record_start({}, job.tasks, job.job.of_seeds)
        for task in range(1, 1 + (job.tasks if tasks is None else tasks)):
            rows = [("p", name, "n", "d", seed, task, task, "train_accuracy", 0.5) for seed in block.seeds]
            block.record_task(task, pd.DataFrame(rows, columns=list(COLUMNS)), 60.0)
            (block.checkpoints / str(task)).mkdir(parents=True)
