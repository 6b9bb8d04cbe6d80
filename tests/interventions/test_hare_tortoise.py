import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.interventions import hare_tortoise
from pliant.types import Learned

START = Learned(
    {"w": jnp.array([1.0, -2.0])}, {"mean": jnp.array([0.5]), "count": jnp.array(3)}, {"mu": jnp.array([7.0])}
)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def _moved(learned, by):
    return learned._replace(
        params={"w": learned.params["w"] + by},
        statistics={"mean": learned.statistics["mean"] + by, "count": learned.statistics["count"] + 1},
    )


def _run(method, learned, num_steps, by):
    """Steps of training that move the hare, each with the method behind it."""
    state = method.init(learned)
    for step in range(1, num_steps + 1):
        learned, state, info = method.update(jax.random.key(0), step, _moved(learned, by), state, None)
    return learned, state, info


def test_closed_form_for_a_hare_that_stands():
    hare = _moved(START, 1.0)
    method = hare_tortoise(momentum=0.9, reset_every=100)
    state = method.init(START)
    for step in range(1, 8):
        _, state, _ = method.update(jax.random.key(0), step, hare, state, None)
    for now, start, end in (
        (state.params["w"], START.params["w"], hare.params["w"]),
        (state.statistics["mean"], START.statistics["mean"], hare.statistics["mean"]),
    ):
        np.testing.assert_allclose(now, end + 0.9**7 * (start - end), rtol=1e-6)


def test_at_a_reset_the_hare_is_the_tortoise():
    method = hare_tortoise(momentum=0.5, reset_every=3)
    before, state, info = _run(method, START, 2, by=1.0)
    same(before.params, {"w": START.params["w"] + 2})
    assert float(info["norm_moved"]) == 0.0
    after, state, info = _run(method, START, 3, by=1.0)
    same(after.params, state.params)
    same(after.statistics, state.statistics)
    same(after.optimizer, START.optimizer)
    np.testing.assert_allclose(after.params["w"], START.params["w"] + 2.125)  # 0 → ½, 1¼, 2⅛
    np.testing.assert_allclose(info["norm_moved"], 0.875 * 2**0.5, rtol=1e-6)


def test_the_tortoise_takes_a_share_of_the_update_after_a_reset():
    """The authors' code shares the memory of both after a reset, so that it took all of it."""
    method = hare_tortoise(momentum=0.9, reset_every=2)
    at_reset, state, _ = _run(method, START, 2, by=1.0)
    _, after, _ = method.update(jax.random.key(0), 3, _moved(at_reset, 10.0), state, None)
    np.testing.assert_allclose(after.params["w"] - state.params["w"], [1.0, 1.0], rtol=1e-5)


def test_without_momentum_both_are_one_and_nothing_is_done():
    learned, state, info = _run(hare_tortoise(momentum=0.0, reset_every=2), START, 6, by=0.3)
    bare = START
    for _ in range(6):
        bare = _moved(bare, 0.3)
    same(learned, bare)
    same(state.params, bare.params)
    assert float(info["norm_moved"]) == 0.0


def test_the_tortoise_is_reported():
    method = hare_tortoise(momentum=0.5, reset_every=100)
    learned, state, _ = _run(method, START, 2, by=1.0)
    params, network = method.reported(learned, state)
    same(params, state.params)
    np.testing.assert_allclose(network["mean"], START.statistics["mean"] + 1.25)
    assert int(network["count"]) == 5  # whole numbers are the hare's


def test_narrow_parameters_are_averaged_in_float32():
    """In bfloat16 steps of a thousandth would be lost."""
    narrow = START._replace(params={"w": jnp.ones(2, jnp.bfloat16)})
    method = hare_tortoise(momentum=0.999, reset_every=100)
    hare = narrow._replace(params={"w": jnp.full(2, 2.0, jnp.bfloat16)})
    state = method.init(narrow)
    for step in range(1, 101):
        learned, state, _ = method.update(jax.random.key(0), step, hare, state, None)
    assert state.params["w"].dtype == jnp.float32
    assert learned.params["w"].dtype == method.reported(learned, state)[0]["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(learned.params["w"].astype(jnp.float32), 2 - 0.999**100, rtol=1e-2)


def test_the_state_is_a_copy():
    method = hare_tortoise()
    params = {"w": jnp.array([1.0])}
    state = method.init(Learned(params, {}, ()))
    jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)(params)
    same(state.params, {"w": jnp.array([1.0])})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"got momentum=1.0; wanted a number in \[0, 0.999999\]\. 0.999 is usual"),
        ({"reset_every": 0}, r"got reset_every=0; wanted a finite number ≥ 1\. Use a period in updates"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        hare_tortoise(**options)


def test_the_tortoise_leaves_what_is_not_finite_and_the_hare_returns_to_it():
    method = hare_tortoise(momentum=0.5, reset_every=2)
    state = method.init(START)
    lost = START._replace(
        params={"w": jnp.array([jnp.nan, 0.0])}, statistics={**START.statistics, "mean": jnp.array([jnp.inf])}
    )
    hare, state, _ = method.update(jax.random.key(0), 1, lost, state, None)
    assert np.isnan(hare.params["w"][0])
    hare, state, _ = method.update(jax.random.key(0), 2, hare, state, None)
    np.testing.assert_allclose(hare.params["w"], [1.0, -0.5])
    np.testing.assert_allclose(hare.statistics["mean"], [0.5])
