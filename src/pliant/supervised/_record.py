"""The whole configuration as data: what a run's id hashes."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pliant.methods import user_files
from pliant.settings import Value
from pliant.streams import Dataset
from pliant.supervised._config import RunConfig
from pliant.supervised._pace import num_steps
from pliant.training import MethodPlan
from pliant.types import Stream


def record(
    config: RunConfig,
    stream: Stream,
    stream_options: Mapping[str, Value],
    dataset: Dataset | None,
    methods: Sequence[MethodPlan],
) -> dict[str, Any]:
    """The whole configuration, expanded, as JSON data.

    Args:
      config: what to run.
      stream: what it names.
      stream_options: those that the stream was made with.
      dataset: None for a stream whose data are generated.
      methods: planned.
    """
    num_test = _by_task(stream.test.num, stream) if stream.test else 0
    recorded = {
        "config": vars(config),
        "stream": {
            "name": stream.name,
            "dataset": stream.dataset,
            "options": stream_options,
            "headline": stream.headline,
            "chance": stream.chance,
            "score": stream.objective.score,
            "num_outputs": stream.num_outputs,
            "num_train": _by_task(stream.train.num, stream),
            "num_test": num_test,
            "input_shape": list(stream.input_shape),
            "data_sha256": _data_hash(stream),
        }
        | _classes(dataset),
        "methods": {
            item.method.name: {
                "source": item.spec,
                "source_sha256": _file_hash(item.spec),
                "reference": item.method.reference,
                "boundary_aware": item.method.boundary_aware,
                "hyperparameters": item.static | item.traced,
                "grid": list(item.points) if item.points != ({},) else [],
                "network": {"name": item.network_name} | item.network_options,
            }
            for item in methods
        },
        "protocol": {
            "updates_in_each_task": [num_steps(config, stream, index) for index in range(config.tasks)],
            "batches": "run on across the ends of epochs; what is left at the end of a task is dropped",
            "images": "standardised over the training images in use",
            "online_scores": "on each batch before its update, averaged over the task with its transition",
            "train_and_test_scores": "at the end of the task, over all its examples, against the pure task's targets",
            "texts": _writing(stream),
            "seeds": "network, tasks, data order and method noise draw from separate streams of each seed",
        },
    }
    return dict(json.loads(json.dumps(recorded)))  # as it will be read again: tuples are lists


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
