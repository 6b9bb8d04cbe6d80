from types import SimpleNamespace

import jax
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.training._memory import free_memory, require_memory


def _state(size):
    return {"replay": jax.ShapeDtypeStruct((2, size), np.uint8), "number": jax.ShapeDtypeStruct((2,), np.int32)}


def test_what_a_state_takes_is_told_before_it_is_made():
    told = []
    require_memory("dqn", _state(5 * 2**20), 2, jax.devices()[:1], told.append)
    require_memory("dqn", _state(100), 2, jax.devices()[:1], told.append)  # too little to mention
    assert told == ["the state of dqn takes 5 MiB for each seed, 10 MiB in all"]


class Accelerator:
    platform = "gpu"

    def __init__(self, free):
        self.free = free

    def memory_stats(self):
        return {"bytes_limit": self.free + 100, "bytes_in_use": 100}


def test_a_state_that_does_not_fit_is_refused():
    """With its checkpoint: three tenths of what is free are too much."""
    free = free_memory(jax.devices()[:1])
    assert free > 2**28
    message = (
        r"got a state of dqn of .* for each of 2 seeds or points of a grid: .* in all, with a checkpoint of it; "
        r"wanted at most the .* of memory that are free on the host. Use fewer seeds at once, or a smaller state; "
        r"see `pliant show dqn` for its size"
    )
    require_memory("dqn", _state(free // 10), 2, jax.devices()[:1], print)
    with pytest.raises(UserError, match=message):
        require_memory("dqn", _state(free * 3 // 20), 2, jax.devices()[:1], print)


def test_on_accelerators_the_state_must_fit_there_and_its_checkpoint_on_the_host(monkeypatch):
    size = 2**21
    require_memory("dqn", _state(size), 2, [Accelerator(size), Accelerator(size + 2**10)], print)
    with pytest.raises(UserError, match=r"4 MiB in all; wanted at most the 3 MiB of memory that are free on the dev"):
        require_memory("dqn", _state(size), 2, [Accelerator(size), Accelerator(size // 2)], print)
    monkeypatch.setattr("pliant.training._memory.psutil.virtual_memory", lambda: SimpleNamespace(available=5 * size))
    with pytest.raises(UserError, match=r"12 MiB in all, with a checkpoint of it; wanted at most the 10 MiB .* host"):
        require_memory("dqn", _state(size), 2, [Accelerator(10 * size)], print)
