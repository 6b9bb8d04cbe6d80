import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import dash
from pliant.types import Fresh, Learned, Signals
from strict_types import unchecked

FRESH = Fresh(init_network=lambda key: ((), {}), init_optimizer=lambda params: ())
KERNEL = jnp.array([[3.0, 1.0, 0.0], [4.0, 0.0, 1.0]])
GRADIENT = jnp.array([[-1.0, 1.0, 0.0], [0.0, 0.0, -2.0]])  # cosines 0.6, −1 and 1


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def signals(gradients):
    return Signals(gradients, {}, lambda learned, key, num_examples: {}, FRESH)


def after_switch(params, gradients, **options):
    """The parameters after each of some updates of a new task, and the infos."""
    method, key = dash(**options), jax.random.key(0)
    learned = Learned(params, {}, ())
    learned, state, told = method.switch(key, 1, learned, method.init(learned), FRESH)
    assert told == {}
    found = []
    for step, gradient in enumerate(gradients, start=1):
        learned, state, info = method.update(key, step, learned, state, signals(gradient))
        found.append((learned.params, info))
    return found


def test_golden():
    ((params, info),) = after_switch(KERNEL, [GRADIENT], num_batches=1)
    np.testing.assert_allclose(params, KERNEL * np.array([[0.6, 0.3, 1.0]]), rtol=1e-6)
    assert int(info["vectors_shrunk"]) == 2
    np.testing.assert_allclose(info["norm_moved"], np.hypot(0.4 * 5, 0.7), rtol=1e-6)


def test_a_bias_is_one_vector_and_zeros_have_cosine_zero():
    params = {"bias": jnp.array([3.0, 4.0]), "dead": jnp.ones((2, 1)), "zero": jnp.zeros(2)}
    gradient = {"bias": jnp.array([-1.0, 0.0]), "dead": jnp.zeros((2, 1)), "zero": jnp.ones(2)}
    ((found, info),) = after_switch(params, [gradient], num_batches=1)
    np.testing.assert_allclose(found["bias"], [1.8, 2.4], rtol=1e-6)
    np.testing.assert_allclose(found["dead"], 0.3 * np.ones((2, 1)), rtol=1e-6)
    same(found["zero"], jnp.zeros(2))
    assert int(info["vectors_shrunk"]) == 3


def test_a_filter_is_one_vector_or_one_for_each_channel(key):
    kernel, gradient = jax.random.normal(key, (2, 3, 3, 2, 4))
    whole = after_switch(kernel, [gradient], num_batches=1)[0][0]
    flat = after_switch(kernel.reshape(18, 4), [gradient.reshape(18, 4)], num_batches=1)[0][0]
    np.testing.assert_allclose(whole.reshape(18, 4), flat, rtol=1e-5)
    sliced = after_switch(kernel, [gradient], num_batches=1, per="slice")[0][0]
    flat = after_switch(kernel.reshape(9, 8), [gradient.reshape(9, 8)], num_batches=1)[0][0]
    np.testing.assert_allclose(sliced.reshape(9, 8), flat, rtol=1e-5)
    assert np.any(np.asarray(sliced != whole))


@pytest.mark.parametrize("num_batches", [1, 2, 3])
def test_it_shrinks_once_after_the_batches_it_was_asked_to_wait_for(num_batches):
    found = after_switch(KERNEL, [GRADIENT] * 5, num_batches=num_batches)
    assert [int(info["vectors_shrunk"]) > 0 for _, info in found] == [i == num_batches for i in range(1, 6)]
    same(found[num_batches - 1][0], found[-1][0])


def test_members_of_a_batch_wait_each_for_its_own_time():
    def after(num_batches):
        return [params for params, _ in after_switch(KERNEL, [GRADIENT] * 4, num_batches=num_batches)]

    waits = jnp.array([1, 2, 3])
    together = jax.vmap(after)(waits)
    for member, num_batches in enumerate(waits):
        for step, alone in enumerate(after(int(num_batches))):
            np.testing.assert_allclose(together[step][member], alone, rtol=1e-6)


def test_there_is_no_work_between_whiles_where_seeds_are_batched():
    """A flag that differs between seeds would make both branches run; one for all keeps them branches."""
    method = dash()
    learned = Learned(KERNEL, {}, ())
    states = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), method.init(learned))

    def update(state):
        return method.update(jax.random.key(0), 1, learned, state, signals(GRADIENT))

    assert str(jax.make_jaxpr(jax.vmap(update))(states)).count(" cond[") == 2


def test_gradients_are_averaged_with_the_newest_first():
    other = jnp.array([[2.0, 0.0, 0.0], [-1.0, -1.0, 3.0]])
    mean = np.asarray(0.7 * 0.3 * GRADIENT + 0.3 * other, np.float64)
    weights = np.asarray(KERNEL, np.float64)
    cosines = -(mean * weights).sum(0) / np.linalg.norm(mean, axis=0) / np.linalg.norm(weights, axis=0)
    found, _ = after_switch(KERNEL, [GRADIENT, other], num_batches=2)[1]
    np.testing.assert_allclose(found, weights * np.clip(cosines, 0.3, 1.0)[None], rtol=1e-5)


def test_the_size_of_gradients_does_not_matter():
    plain = after_switch(KERNEL, [GRADIENT], num_batches=1)[0][0]
    for size in (1e-12, 1e12):
        np.testing.assert_allclose(after_switch(KERNEL, [size * GRADIENT], num_batches=1)[0][0], plain, rtol=1e-5)


def test_nothing_happens_before_the_first_switch():
    method, learned = dash(num_batches=1), Learned(KERNEL, {}, ())
    state = method.init(learned)
    for step in range(1, 4):
        learned, state, info = method.update(jax.random.key(0), step, learned, state, signals(GRADIENT))
        assert int(info["vectors_shrunk"]) == 0
    same(learned.params, KERNEL)


def test_a_switch_forgets_the_gradients_of_the_task_before():
    method, key = dash(num_batches=2), jax.random.key(0)
    learned = Learned(KERNEL, {}, ())
    _, state, _ = method.switch(key, 1, learned, method.init(learned), FRESH)
    _, state, _ = method.update(key, 1, learned, state, signals(-GRADIENT))
    _, state, _ = method.switch(key, 2, learned, state, FRESH)
    for step in (2, 3):
        learned, state, _ = method.update(key, step, learned, state, signals(GRADIENT))
    same(learned.params, after_switch(KERNEL, [GRADIENT] * 2, num_batches=2)[1][0])


def test_scale_one_is_a_bitwise_no_op(key):
    params = jax.random.normal(key, (7, 5))
    ((found, info),) = after_switch(params, [-params], num_batches=1, min_scale=1.0)
    same(found, params)
    assert int(info["vectors_shrunk"]) == 0
    assert float(info["norm_moved"]) == 0.0


def test_masked_parameters_and_moments_stay():
    params = {"kernel": KERNEL, "scale": jnp.ones(3)}
    tx = optax.adam(1e-2)
    opt_state = tx.update(params, tx.init(params), params)[1]
    method, key = dash(num_batches=1, mask={"kernel": True, "scale": False}), jax.random.key(0)
    learned = Learned(params, {}, opt_state)
    learned, state, _ = method.switch(key, 1, learned, method.init(learned), FRESH)
    gradient = {"kernel": GRADIENT, "scale": jnp.ones(3)}
    learned, state, _ = method.update(key, 1, learned, state, signals(gradient))
    same((learned.params["scale"], learned.optimizer), (params["scale"], opt_state))
    assert np.any(np.asarray(learned.params["kernel"] != KERNEL))
    assert state.gradient["scale"].shape == ()


def test_moments_of_shrunk_weights_are_forgotten_on_request():
    tx = optax.adam(1e-2)
    opt_state = tx.update(KERNEL, tx.init(KERNEL), KERNEL)[1]
    method, key = dash(num_batches=2, reset_moments=True), jax.random.key(0)
    learned = Learned(KERNEL, {}, opt_state)
    learned, state, _ = method.switch(key, 1, learned, method.init(learned), FRESH)
    learned, state, _ = method.update(key, 1, learned, state, signals(GRADIENT))
    same(learned.optimizer, opt_state)
    learned, _, _ = method.update(key, 2, learned, state, signals(GRADIENT))
    (after, _), (before, _) = learned.optimizer, opt_state
    same((after.mu[:, :2], after.nu[:, :2]), (jnp.zeros((2, 2)),) * 2)
    same((after.mu[:, 2], after.nu[:, 2], after.count), (before.mu[:, 2], before.nu[:, 2], before.count))


def test_bfloat16_parameters_keep_their_type():
    params = KERNEL.astype(jnp.bfloat16)
    ((found, _),) = after_switch(params, [GRADIENT.astype(jnp.bfloat16)], num_batches=1)
    assert found.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_scale": 1.5}, r"got min_scale=1.5; wanted a number in \[0, 1\]. 0.3 is usual, 1 switches it off"),
        ({"alpha": 0.0}, r"got alpha=0.0; wanted a number in \[1e-06, 1\]. 0.3 is usual"),
        ({"num_batches": 0}, "got num_batches=0; wanted a finite number ≥ 1. Use 8"),
        ({"per": "layer"}, "got per='layer'; wanted 'unit' or 'slice'. Leave it out for 'unit'"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        unchecked(dash)(**options)


def test_mask_that_selects_nothing_is_refused():
    with pytest.raises(UserError, match="got a mask that selects none of 1 parameter leaves"):
        dash(mask={"kernel": False}).init(Learned({"kernel": KERNEL}, {}, ()))


def test_a_bad_gradient_is_not_counted():
    """Weights are shrunk after the second good one, and by the good ones alone."""
    other, bad = GRADIENT + 0.5, GRADIENT.at[0, 0].set(jnp.nan)
    plain = after_switch(KERNEL, [GRADIENT, other], num_batches=2)
    found = after_switch(KERNEL, [GRADIENT, bad, bad, other], num_batches=2)
    assert [int(info["vectors_shrunk"]) for _, info in found] == [0, 0, 0, int(plain[-1][1]["vectors_shrunk"])]
    same(found[-1][0], plain[-1][0])
