"""Data sets from the Hugging Face hub, downloaded once and cached."""

import contextlib
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pliant.errors import UserError, extra
from pliant.streams._parquet import DATA_VARIABLE, SPLITS, as_table
from pliant.streams._tables import Table, first_line

_PATIENCE = 5.0  # seconds to reach the hub


def hub_tables(
    name: str, hub: str, config: str | None, label_columns: Sequence[str], test_splits: Sequence[str]
) -> list[Table]:
    """The training and test images of a known repository, with their labels.

    Raises:
      UserError: see `hub_splits`; and for missing splits or columns.
    """
    found = hub_splits(name, hub, config)
    splits = {SPLITS.get(split, split): split for split in found}
    test = next((split for split in test_splits if split in splits), None)
    if "train" not in splits or test is None:
        raise UserError(
            got=f"the splits {', '.join(found)} of {name!r} ({hub})",
            wanted=f"'train' and {' or '.join(map(repr, test_splits))}",
            do="Check that the hub repository is the data set's.",
        )
    return [
        as_table(f"{split} of {name!r}", [found[splits[split]]()], label_columns, folder=None, remedy=removal(hub))
        for split in ("train", test)
    ]


def hub_splits(name: str, hub: str, config: str | None) -> dict[str, Callable[[], pa.Table]]:
    """The splits of a repository, each read when it is called: as stored, with the metadata of its columns.

    Without a network, the cache is used at once.

    Raises:
      UserError: if the data are neither in the cache nor to be downloaded, and if the cache is damaged.
    """
    with extra("data", f"data sets from the Hugging Face hub, such as {name!r}"):
        import datasets

    with _quiet():
        obstacle = _obstacle()
        try:
            with _offline() if obstacle else contextlib.nullcontext():
                found = datasets.load_dataset(hub, config)
        except Exception as error:
            raise _refused(name, hub, obstacle, error) from error

    def reader(stored: Any) -> Callable[[], pa.Table]:
        metadata = stored.features.arrow_schema.metadata
        return lambda: stored.with_format("arrow")[:].replace_schema_metadata(metadata)

    return {split: reader(stored) for split, stored in found.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses progress bars, logs and warnings; errors are raised as well as logged."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    had_bars = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not had_bars:
            datasets.enable_progress_bars()


def _obstacle() -> BaseException | None:
    """Why the hub cannot be reached, by a single attempt: the library's retries take half a minute."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    raised: list[BaseException] = []

    def reach() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=reach, daemon=True)  # name resolution has no timeout
    thread.start()
    thread.join(2 * _PATIENCE)
    return TimeoutError(f"no answer in {2 * _PATIENCE:g} s") if thread.is_alive() else next(iter(raised), None)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Puts the libraries into offline mode."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _refused(name: str, hub: str, obstacle: BaseException | None, error: BaseException) -> UserError:
    """The error for a damaged cache, no network, or a faulty repository."""
    cause = root_cause(error)
    elsewhere = (
        f"name a folder of parquet files: --data-dir DIR or {DATA_VARIABLE}=DIR (DIR/{name}/train-*.parquet, "
        f"DIR/{name}/test-*.parquet). `--dataset digits` needs neither."
    )
    if _is_of_files(cause):
        return UserError(
            got=f"{_told(cause)} in the cache of the Hugging Face hub while reading {name!r}",
            wanted="a whole copy, in a place that can be written",
            do=f"{removal(hub)} Or free space, set HF_HOME to another place, or {elsewhere}",
        )
    if obstacle is not None:
        copy = _copies(hub)
        return UserError(
            got=f"no connection to the Hugging Face hub for {name!r} ({hub}): {_told(root_cause(obstacle))}"
            + ("" if isinstance(cause, ConnectionError) else f"; {_told(cause)}")
            + (f"; and no whole copy in {copy[0]}" if copy else ""),
            wanted="network access, or the data set in the local cache",
            do=f"Run once with a network, or {elsewhere}",
        )
    return UserError(
        got=f"no data set {name!r} from the Hugging Face hub ({hub}): {_told(cause)}",
        wanted="a repository that can be read",
        do=f"Try again later, or {elsewhere}",
    )


def root_cause(error: BaseException) -> BaseException:
    """The first exception of a chain.

    Example:
      >>> try:
      ...     raise RuntimeError("cannot read") from OSError("disk full")
      ... except RuntimeError as error:
      ...     print(root_cause(error))
      disk full
    """
    below = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error if below is None else root_cause(below)


def _is_of_files(cause: BaseException) -> bool:
    """True for errors of local files: Python's own, not those of network libraries."""
    if isinstance(cause, pa.ArrowException | json.JSONDecodeError):
        return True
    is_system = isinstance(cause, OSError) and type(cause).__module__ == "builtins"
    return is_system and not isinstance(cause, ConnectionError | TimeoutError)


def _told(cause: BaseException) -> str:
    return f"{type(cause).__name__}: {first_line(cause)}" if first_line(cause) else type(cause).__name__


def _copies(hub: str) -> list[Path]:
    """Existing folders of a repository in the caches."""
    import datasets
    from huggingface_hub import constants

    places = (
        Path(datasets.config.HF_DATASETS_CACHE, hub.replace("/", "___")),
        Path(constants.HF_HUB_CACHE, f"datasets--{hub.replace('/', '--')}"),
    )
    return [place for place in places if place.is_dir()]


def removal(hub: str) -> str:
    """What to do if the copy of a repository is damaged."""
    folders = " and ".join(map(str, _copies(hub))) or "its folder in the cache"
    return f"Remove {folders}; the next run with a network downloads it again."
