"""What all methods of a supervised run have in common, as data."""

from collections.abc import Mapping, Sequence
from typing import Any

from pliant.diagnostics import DIAGNOSTICS
from pliant.results import RunRecord, hash_of_arrays
from pliant.specs import name_of
from pliant.streams import STREAMS, Dataset
from pliant.supervised._config import RunConfig
from pliant.supervised._pace import num_steps
from pliant.supervised._source import probe_size
from pliant.training import as_data, data_source, record_sources, settings_of
from pliant.types import Stream

_OF_METHODS = ("methods", "settings", "grid")
_NO_NUMBER_DEPENDS_ON = ("seeds", "first_seed", "tasks", "checkpoints", *_OF_METHODS)


def record(
    config: RunConfig,
    stream: Stream,
    stream_options: Mapping[str, Any],
    dataset: Dataset | None,
    specs: Mapping[str, Sequence[Any]] = {},
) -> RunRecord:
    """What all methods of a run have in common; not the numbers of tasks and seeds, so that runs can be extended.

    Args:
      config: what to run.
      stream: what it names.
      stream_options: those that the stream was made with.
      dataset: None for a stream whose data are generated.
      specs: what was asked for that all methods share, by kind.
    """
    shared = {name: value for name, value in vars(config).items() if name not in _NO_NUMBER_DEPENDS_ON}
    names = name_of(config.stream), name_of(config.network)
    diagnostics = record_sources(specs.get("diagnostic", ()), DIAGNOSTICS)
    configuration = {
        "config": shared | {"settings": settings_of(config, *names)},
        "stream": {
            "name": stream.name,
            "dataset": stream.dataset,
            "options": stream_options,
            "headline": stream.headline,
            "chance": stream.chance,
            "score": stream.objective.score,
            "num_outputs": stream.num_outputs,
            "input_shape": list(stream.input_shape),
            "data_sha256": hash_of_arrays(stream.data),
        }
        | ({"tasks": stream.num_tasks} if stream.depends_on_num_tasks else {})
        | _classes(dataset)
        | data_source(specs.get("dataset", ()))
        | record_sources(specs.get("stream", ()), STREAMS).get(names[0], {}),
        "first_task": {
            "num_train": stream.train.num(0),
            "num_test": stream.test.num(0) if stream.test else 0,
            "num_updates": num_steps(config, stream, 0),
        },
        **({"diagnostics": diagnostics} if diagnostics else {}),
        "protocol": {
            "probe_size": probe_size(config, stream),
            "batches": "run on across the ends of epochs; what is left at the end of a task is dropped",
            "images": "standardised over the training images in use",
            "online_scores": "on each batch before its update, averaged over the task with its transition",
            "train_and_test_scores": "at the end of the task, over all its examples, against the pure task's targets",
            "texts": _writing(stream),
            "seeds": "network, tasks, data order and method noise draw from separate streams of each seed",
        },
    }
    data = "" if stream.dataset == "generated" else f" on {stream.dataset}"
    return RunRecord(f"{stream.name}{data}, {names[1]}", stream.headline, stream.chance, as_data(configuration))


def _classes(dataset: Dataset | None) -> dict[str, Any]:
    """What the files call class 0, 1, 2, …, if that is something else."""
    return {"classes": list(dataset.classes)} if dataset and dataset.is_renumbered else {}


def _writing(stream: Stream) -> str:
    """How texts are written at evaluation."""
    writing = stream.objective.writing
    return f"written with {writing.num_beams} beam(s)" if writing and writing.num_beams > 1 else "greedily"
