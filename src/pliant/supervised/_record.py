"""The whole configuration as data: what a run's id hashes."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from pliant.diagnostics import DIAGNOSTICS
from pliant.methods import METHODS
from pliant.networks import NETWORKS
from pliant.specs import content_hash, name_of, recorded
from pliant.streams import STREAMS, Dataset
from pliant.supervised._config import RunConfig
from pliant.supervised._pace import num_steps
from pliant.training import MethodPlan
from pliant.types import Stream


def record(
    config: RunConfig,
    stream: Stream,
    stream_options: Mapping[str, Any],
    dataset: Dataset | None,
    methods: Sequence[MethodPlan],
    specs: Mapping[str, Sequence[Any]] = {},
) -> dict[str, Any]:
    """The whole configuration, expanded, as JSON data.

    Args:
      config: what to run.
      stream: what it names.
      stream_options: those that the stream was made with.
      dataset: None for a stream whose data are generated.
      methods: planned.
      specs: what was asked for that all methods share, by kind.
    """
    num_test = _by_task(stream.test.num, stream) if stream.test else 0
    found = {
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
        | _classes(dataset)
        | _sources(specs.get("stream", ()), STREAMS).get(name_of(config.stream), {}),
        "methods": {
            item.method.name: {
                **_source_of_method(item),
                "reference": item.method.reference,
                "boundary_aware": item.method.boundary_aware,
                "hyperparameters": item.static | item.traced,
                "grid": list(item.points) if item.points != ({},) else [],
                "network": {"name": name_of(item.network_name)} | item.network_options,
                **_under("network_source", _source(item.specs["network"][0], NETWORKS)),
            }
            for item in methods
        },
        **_under("diagnostics", _sources(specs.get("diagnostic", ()), DIAGNOSTICS)),
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
    return dict(json.loads(json.dumps(found, default=_hash)))  # as it will be read again: tuples are lists


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


def _source(spec: Any, known: Mapping[str, Any]) -> dict[str, str | None]:
    """Where something of the user's own came from, so that it is another configuration when it was edited."""
    source = recorded(spec, known)
    return {} if source.sha256 is None else {"source": source.source, "source_sha256": source.sha256}


def _sources(specs: Sequence[Any], known: Mapping[str, Any]) -> dict[str, Any]:
    return {name_of(spec): source for spec in specs if (source := _source(spec, known))}


def _under(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """An entry, if there is anything in it."""
    return {name: found} if found else {}


def _source_of_method(method: MethodPlan) -> dict[str, str | None]:
    """Where a method came from, registered or not."""
    members = [recorded(spec, METHODS) for spec in method.specs["method"]]
    hashes = [each.sha256 for each in members if each.sha256]
    return {
        "source": method.spec if all(each.source for each in members) else None,
        "source_sha256": "+".join(hashes) or None,
    }


def _hash(value: Any) -> str:
    """For options that are no JSON data."""
    return f"sha256:{content_hash(value)}"
