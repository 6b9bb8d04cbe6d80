import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.optimizers import task_schedule

FRACTIONS = np.arange(40, dtype=np.float32) / 40


def factors(**options):
    return np.asarray(task_schedule(**options)(jnp.asarray(FRACTIONS)))


def test_golden():
    found = task_schedule(warmup=0.2, floor=0.5)(jnp.array([0.0, 0.1, 0.2, 0.6]))
    np.testing.assert_allclose(found, [0.0, 0.5, 1.0, 0.75], rtol=1e-6)


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_rises_and_then_falls_to_the_floor(warmup, floor):
    found = factors(warmup=warmup, floor=floor)
    rising = warmup > FRACTIONS
    np.testing.assert_allclose(found[rising], FRACTIONS[rising] / max(warmup, 1e-9), rtol=1e-6)
    assert np.all(np.diff(found[~rising]) <= 1e-6)
    np.testing.assert_allclose(task_schedule(warmup=warmup, floor=floor)(1.0), floor, atol=1e-6)
    assert found.max() <= 1.0


def test_switched_off_it_is_exactly_one():
    assert np.all(factors(warmup=0.0, floor=1.0) == 1.0)


def test_without_a_fall_it_is_exactly_one_after_the_warm_up():
    found = factors(warmup=0.1, floor=1.0)
    assert np.all(found[FRACTIONS > 0.11] == 1.0)
    assert found[0] == 0.0


def test_numbers_may_be_traced():
    traced = jax.jit(lambda warmup, floor: task_schedule(warmup=warmup, floor=floor)(FRACTIONS))
    np.testing.assert_allclose(traced(0.3, 0.2), factors(warmup=0.3, floor=0.2), rtol=1e-5, atol=1e-6)
    assert np.all(np.asarray(traced(0.0, 1.0)) == 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup": 1.0}, r"got warmup=1.0; wanted a number in \[0, 0.999999\]. 0.1 is usual"),
        ({"floor": -0.1}, r"got floor=-0.1; wanted a number in \[0, 1\]. Use 0 to fall to nothing"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        task_schedule(**options)
