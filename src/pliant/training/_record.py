"""The whole configuration as data, and the id that is made of it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pliant.training._plan import Plan
from pliant.types import Stream


def record(plan: Plan) -> dict[str, Any]:
    """The whole configuration, expanded, as JSON data: what a run's id hashes."""
    return {
        "config": {key: list(v) if isinstance(v, tuple) else v for key, v in vars(plan.config).items()},
        "stream": {
            "name": plan.stream.name,
            "options": plan.stream_options,
            "headline": plan.stream.headline,
            "num_classes": plan.stream.num_classes,
            "num_train": plan.stream.num_train,
            "num_test": plan.stream.num_test,
            "input_shape": list(plan.stream.input_shape),
            "data_sha256": _data_hash(plan.stream),
        },
        "methods": {
            item.method.name: {
                "source": item.source,
                "source_sha256": _file_hash(item.source),
                "reference": item.method.reference,
                "boundary_aware": item.method.boundary_aware,
                "hyperparameters": item.static | item.traced,
                "network": item.network_options,
            }
            for item in plan.methods
        },
        "protocol": {
            "optimizer_at_task_switch": "kept",
            "batches": "run on across the ends of epochs; what is left at the end of a task is dropped",
            "images": "standardised over the training images in use, per channel (digits: per pixel)",
            "online_accuracy": "on each batch before its update, averaged over the task",
            "train_and_test_accuracy": "at the end of the task, over all examples; non-finite outputs count as wrong",
            "seeds": "network, tasks, data order and method noise draw from separate streams of each seed",
        },
    }


def fingerprint(recorded: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a recorded configuration.

    Example:
      >>> fingerprint({"tasks": 1}) == fingerprint({"tasks": 2})
      False
    """
    return hashlib.sha256(json.dumps(recorded, sort_keys=True).encode()).hexdigest()[:12]


def _data_hash(stream: Stream) -> str:
    """The hash of the data, so that a run is not continued on other images of the same name."""
    content = hashlib.sha256()
    for leaf in jax.tree.leaves(stream.data):
        content.update(np.ascontiguousarray(leaf).data)
    return content.hexdigest()


def _file_hash(source: str) -> str | None:
    """The hash of a user's file, so that an edited method is another configuration."""
    file = Path(source.rpartition(":")[0])
    return hashlib.sha256(file.read_bytes()).hexdigest() if ".py:" in source else None
