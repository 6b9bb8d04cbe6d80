import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.diagnostics._fit import fit
from pliant.errors import UserError
from pliant.types import Batch

TWO = Batch(jnp.zeros((2, 1)), jnp.array([[1.0], [-1.0]]))
SAME = Batch(jnp.zeros((3, 1)), jnp.ones((3, 1)))


def constant(params, inputs):
    return jnp.broadcast_to(params, (len(inputs), 1))


def halves(output, targets):
    return 0.5 * jnp.square(output - targets).sum(axis=1)


def trained(key, optimizer=None, batch=SAME, params=None, batch_size=2, points=(0, 1, 3)):
    start = jnp.zeros(1) if params is None else params
    return fit(constant, halves, start, optimizer or optax.sgd(0.5), batch, key, batch_size=batch_size, points=points)


def steps_as_updates():
    def update(gradients, state, params, *, step, key):
        return jax.tree.map(lambda g: jnp.full_like(g, step) + jax.random.uniform(key) / 1000, gradients), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def test_golden_gradient_descent(key):
    """The distance to the target halves with every update."""
    found = trained(key)
    np.testing.assert_allclose(found.losses, [0.5, 0.125, 0.5 / 64], rtol=1e-6)
    np.testing.assert_allclose(found.params, [0.875], rtol=1e-6)


def test_points_do_not_change_training(key):
    found = [trained(key, optax.sgd(0.1), TWO, points=points) for points in [(5,), (0, 2, 4, 5)]]
    np.testing.assert_array_equal(found[0].params, found[1].params)
    np.testing.assert_array_equal(found[0].losses[-1], found[1].losses[-1])


def test_optimizers_get_the_step_from_one_and_a_key_of_its_own(key):
    losses = np.asarray(trained(key, steps_as_updates(), params=jnp.ones(1), points=range(5)).losses)
    sums = np.sqrt(2 * losses)
    np.testing.assert_allclose(sums, [0, 1, 3, 6, 10], atol=0.005)
    assert len(np.unique((np.diff(sums) - np.arange(1, 5)).round(6))) == 4


def test_plain_optimizers_and_states_are_taken(key):
    plain = optax.GradientTransformation(*optax.chain(optax.clip(10.0), optax.adam(0.1))[:2])
    assert float(trained(key, plain, points=(200,)).losses[0]) < 1e-3


def test_an_update_sees_so_many_examples_drawn_anew(key):
    """With one example and step size 1 the parameter is the last target seen; with many it is near their mean."""
    ends = jax.vmap(lambda key: trained(key, optax.sgd(1.0), TWO, batch_size=1).params[0])(jax.random.split(key, 8))
    assert set(ends.tolist()) == {-1.0, 1.0}
    assert abs(float(trained(key, optax.sgd(1.0), TWO, batch_size=4096).params[0])) < 0.1


def test_trees_of_data_are_drawn_together(key):
    """Targets that equal their inputs stay with them: the identity has no loss."""
    x = np.arange(4.0, dtype=np.float32)[:, None]

    def losses(output, targets):
        return jnp.square(output - targets["of"]).sum(axis=1)

    def function(params, inputs):
        return params * inputs

    found = fit(function, losses, jnp.ones(()), optax.sgd(0.1), Batch(x, {"of": x}), key, batch_size=2, points=(3,))
    assert float(found.losses[0]) == 0.0
    assert float(found.params) == 1.0


def test_nothing_that_is_passed_changes(key):
    params = jnp.zeros(1)
    trained(key, params=params)
    np.testing.assert_array_equal(params, np.zeros(1))
    np.testing.assert_array_equal(SAME.targets, np.ones((3, 1)))


def test_nan_in_nan_out(key):
    found = trained(key, params=jnp.full(1, jnp.nan))
    assert np.isnan(found.losses).all()


def test_compiled_and_batched_is_the_same_as_a_loop(key):
    starts, keys = jnp.array([[0.0], [2.0]]), jax.random.split(key, 2)
    both = jax.jit(jax.vmap(lambda start, key: trained(key, batch=TWO, params=start)))(starts, keys)
    for i in range(2):
        one = trained(keys[i], batch=TWO, params=starts[i])
        np.testing.assert_allclose(both.losses[i], one.losses, rtol=1e-6)
        np.testing.assert_allclose(both.params[i], one.params, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": Batch(jnp.zeros((0, 1)), jnp.zeros((0, 1)))}, "got an empty batch; wanted at least one example"),
        ({"batch_size": 0}, "got batch_size=0; wanted a finite number ≥ 1"),
        ({"points": ()}, r"got losses after \[\] updates; wanted numbers ≥ 0 that ascend"),
        ({"points": (5, 5)}, r"got losses after \[5, 5\] updates"),
        ({"points": (-1, 5)}, r"got losses after \[-1, 5\] updates"),
    ],
)
def test_what_cannot_be_trained_is_refused(key, changes, message):
    with pytest.raises(UserError, match=message):
        trained(key, **changes)
