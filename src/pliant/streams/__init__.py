"""Streams of tasks that destroy plasticity, and the data sets behind them."""

from collections.abc import Callable, Mapping

from pliant.streams._datasets import DATA_VARIABLE, DATASETS, Dataset, Images, Source, load_dataset
from pliant.streams._permuted_pixels import permuted_pixels
from pliant.streams._random_labels import random_labels
from pliant.types import Stream

STREAMS: Mapping[str, Callable[..., Stream]] = {
    "random-labels": random_labels,
    "permuted-pixels": permuted_pixels,
}
"""Factories `(dataset, *, num_tasks, **options) -> Stream` by name."""

__all__ = [
    "DATASETS",
    "DATA_VARIABLE",
    "STREAMS",
    "Dataset",
    "Images",
    "Source",
    "load_dataset",
    "permuted_pixels",
    "random_labels",
]
