"""The whole configuration as data, and the id that is made of it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pliant.methods import user_files
from pliant.streams import Dataset
from pliant.training._pace import num_steps
from pliant.training._plan import Plan
from pliant.types import Stream


def record(plan: Plan) -> dict[str, Any]:
    """The whole configuration, expanded, as JSON data: what a run's id hashes."""
    recorded = {
        "config": vars(plan.config),
        "stream": {
            "name": plan.stream.name,
            "dataset": plan.stream.dataset,
            "options": plan.stream_options,
            "headline": plan.stream.headline,
            "chance": plan.stream.chance,
            "score": plan.stream.objective.score,
            "num_outputs": plan.stream.num_outputs,
            "num_train": _by_task(plan.stream.train.num, plan.stream),
            "num_test": _by_task(plan.stream.test.num, plan.stream) if plan.stream.test else 0,
            "input_shape": list(plan.stream.input_shape),
            "data_sha256": _data_hash(plan.stream),
        }
        | _classes(plan.dataset),
        "methods": {
            item.method.name: {
                "source": item.source,
                "source_sha256": _file_hash(item.source),
                "reference": item.method.reference,
                "boundary_aware": item.method.boundary_aware,
                "hyperparameters": item.static | item.traced,
                "grid": list(item.points) if item.points != ({},) else [],
                "network": {"name": item.network_name} | item.network_options,
            }
            for item in plan.methods
        },
        "protocol": {
            "updates_in_each_task": [num_steps(plan.config, plan.stream, index) for index in range(plan.config.tasks)],
            "batches": "run on across the ends of epochs; what is left at the end of a task is dropped",
            "images": "standardised over the training images in use",
            "online_scores": "on each batch before its update, averaged over the task with its transition",
            "train_and_test_scores": "at the end of the task, over all its examples, against the pure task's targets",
            "texts": _writing(plan.stream),
            "seeds": "network, tasks, data order and method noise draw from separate streams of each seed",
        },
    }
    return dict(json.loads(json.dumps(recorded)))  # as it will be read again: tuples are lists


def fingerprint(recorded: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a recorded configuration.

    Example:
      >>> fingerprint({"tasks": 1}) == fingerprint({"tasks": 2})
      False
    """
    return hashlib.sha256(json.dumps(recorded, sort_keys=True).encode()).hexdigest()[:12]


def _classes(dataset: Dataset | None) -> dict[str, Any]:
    """What the files call class 0, 1, 2, …, if that is something else."""
    return {"classes": list(dataset.classes)} if dataset and dataset.is_renumbered else {}


def _by_task(number: Callable[[int], int], stream: Stream) -> int | list[int]:
    """A number of examples: one for all tasks, or one for each."""
    numbers = [number(index) for index in range(stream.num_tasks)]
    return numbers if len(set(numbers)) > 1 else numbers[0]


def _writing(stream: Stream) -> str:
    """How texts are written at evaluation."""
    writing = stream.objective.writing
    return f"written with {writing.num_beams} beam(s)" if writing and writing.num_beams > 1 else "greedily"


def _data_hash(stream: Stream) -> str:
    """The hash of the data, so that a run is not continued on other images of the same name."""
    content = hashlib.sha256()
    for leaf in jax.tree.leaves(stream.data):
        content.update(np.ascontiguousarray(leaf).data)
    return content.hexdigest()


def _file_hash(source: str) -> str | None:
    """The hash of a user's files, so that an edited method is another configuration."""
    files = [Path(file) for file in user_files(source)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else None
