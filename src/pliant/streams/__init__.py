"""Streams of tasks that reduce plasticity, transitions between tasks, and data sets."""

from collections.abc import Callable, Mapping
from typing import NoReturn

from pliant.errors import UserError
from pliant.streams._augment import augmented
from pliant.streams._bigram_cipher import bigram_cipher, encipher
from pliant.streams._check_stream import check_stream
from pliant.streams._class_incremental import class_incremental
from pliant.streams._class_pairs import class_pairs
from pliant.streams._dataset import Dataset, Images
from pliant.streams._datasets import from_arrays, load_dataset, reads_folder
from pliant.streams._decoding import beam_search, greedy
from pliant.streams._five_plus_one import five_plus_one
from pliant.streams._images import ImageData, image_data, normalized
from pliant.streams._label_noise import label_noise
from pliant.streams._label_shuffle import label_shuffle
from pliant.streams._letters import END, shifted, spell
from pliant.streams._objectives import (
    CLASSIFICATION,
    REGRESSION,
    TEXT,
    is_correct,
    masked_classification,
    text_objective,
)
from pliant.streams._origins import DATASETS, Origin
from pliant.streams._parquet import DATA_VARIABLE
from pliant.streams._permuted_pixels import permuted_pixels
from pliant.streams._random_labels import random_labels
from pliant.streams._random_seq2seq import random_seq2seq
from pliant.streams._random_teacher import random_teacher
from pliant.streams._slowly_changing_regression import slowly_changing_regression
from pliant.streams._text_scores import text_scores
from pliant.streams._transitions import (
    TRANSITIONS,
    abrupt,
    input_interpolation,
    output_interpolation,
    task_sampling,
)
from pliant.streams._upgd_toy import upgd_toy
from pliant.streams._warm_start import warm_start
from pliant.types import Stream

STREAMS: Mapping[str, Callable[..., Stream]] = {
    "random-labels": random_labels,
    "permuted-pixels": permuted_pixels,
    "random-seq2seq": random_seq2seq,
    "bigram-cipher": bigram_cipher,
    "label-shuffle": label_shuffle,
    "class-incremental": class_incremental,
    "five-plus-one": five_plus_one,
    "class-pairs": class_pairs,
    "label-noise": label_noise,
    "warm-start": warm_start,
    "slowly-changing-regression": slowly_changing_regression,
    "random-teacher": random_teacher,
    "upgd-toy": upgd_toy,
}
"""Factories by name: `(dataset, *, num_tasks, **options) -> Stream`, without `dataset` where the data are generated."""

__all__ = [
    "CLASSIFICATION",
    "DATASETS",
    "DATA_VARIABLE",
    "END",
    "REGRESSION",
    "STREAMS",
    "TEXT",
    "TRANSITIONS",
    "Dataset",
    "ImageData",
    "Images",
    "Origin",
    "abrupt",
    "augmented",
    "beam_search",
    "bigram_cipher",
    "check_stream",
    "class_incremental",
    "class_pairs",
    "encipher",
    "five_plus_one",
    "from_arrays",
    "greedy",
    "image_data",
    "input_interpolation",
    "is_correct",
    "label_noise",
    "label_shuffle",
    "load_dataset",
    "masked_classification",
    "normalized",
    "output_interpolation",
    "permuted_pixels",
    "random_labels",
    "random_seq2seq",
    "random_teacher",
    "reads_folder",
    "shifted",
    "slowly_changing_regression",
    "spell",
    "task_sampling",
    "text_objective",
    "text_scores",
    "upgd_toy",
    "warm_start",
]


def __getattr__(name: str) -> NoReturn:
    if name == "Source":
        raise UserError(got="pliant.streams.Source", wanted="pliant.streams.Origin", do="Use that in its place.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
