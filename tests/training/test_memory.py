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


def test_a_state_that_does_not_fit_is_refused():
    """With the copy for its checkpoint: three fifths of what is free are too much."""
    free = free_memory(jax.devices()[:1])
    assert free > 2**28
    message = (
        r"got a state of dqn of .* for each of 2 seeds or points of a grid: .* in all, with a copy for the checkpoint; "
        r"wanted at most the .* of memory that are free. Use fewer seeds at once, or a smaller state; "
        r"see `pliant show dqn` for its size"
    )
    with pytest.raises(UserError, match=message):
        require_memory("dqn", _state(free * 3 // 10), 2, jax.devices()[:1], print)
