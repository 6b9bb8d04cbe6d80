"""The memory that a source's state takes, told before it is allocated, and refused if it does not fit."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import psutil
from jaxtyping import PyTree

from pliant.errors import UserError

# While a checkpoint is written: what is fetched, the writer's copy, what is on its way to the disk; measured 2.6 to 3.
_CHECKPOINT_COPIES = 3
_TOLD_FROM = 2**20


def require_memory(
    name: str, state: PyTree[jax.ShapeDtypeStruct], num_slots: int, devices: Any, log: Callable[[str], None]
) -> None:
    """Says how much memory a source's state takes, and raises if there is not so much.

    Args:
      name: of the source.
      state: its shapes and types, with a slot axis.
      num_slots: size of that axis.
      devices: that the slots are spread over.
      log: where it is told, if it is a MiB or more.

    Raises:
      UserError: if more is needed than is free. A checkpoint takes three times the state, on the host, where the CPU
        has its state as well.

    Example:
      >>> shapes = {"replay": jax.ShapeDtypeStruct((4, 2**20), "uint8")}
      >>> require_memory("dqn", shapes, 4, jax.devices()[:1], print)
      the state of dqn takes 1 MiB for each seed, 4 MiB in all
    """
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    if total < _TOLD_FROM:
        return
    is_host = devices[0].platform == "cpu"
    _require(name, total, num_slots, _CHECKPOINT_COPIES + is_host, free_memory(()), "the host")
    if not is_host:
        _require(name, total, num_slots, 1, free_memory(devices), "the devices")
    log(f"the state of {name} takes {_text(total // num_slots)} for each seed, {_text(total)} in all")


def _require(name: str, total: int, num_slots: int, copies: int, free: int, where: str) -> None:
    needed = total * copies
    if needed > free:
        checkpoint = ", with a checkpoint of it" if copies > 1 else ""
        raise UserError(
            got=f"a state of {name} of {_text(total // num_slots)} for each of {num_slots} seeds or points of a grid: "
            f"{_text(needed)} in all{checkpoint}",
            wanted=f"at most the {_text(free)} of memory that are free on {where}",
            do=f"Use fewer seeds at once, or a smaller state; see `pliant show {name}` for its size.",
        )


def free_memory(devices: Sequence[Any]) -> int:
    """Bytes that are free: of accelerators together; of the host and its container if none of them tells."""
    stats = [device.memory_stats() or {} for device in devices]
    if stats and all("bytes_limit" in each for each in stats):
        return sum(int(each["bytes_limit"]) - int(each.get("bytes_in_use", 0)) for each in stats)
    known = [psutil.virtual_memory().available]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit
            known.append(int(Path(limit).read_text(encoding="ascii")))
    return min(known)


def _text(size: int) -> str:
    """A number of bytes.

    Example:
      >>> _text(3 * 2**20), _text(2500 * 2**20)
      ('3 MiB', '2.4 GiB')
    """
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
