import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import clear_moments
from pliant.optimizers import scale_by_adam_per_weight

WHERE = {"bias": jnp.array([True, False, False]), "kernel": jnp.zeros((4, 3), bool).at[:, 0].set(True)}
PARAMS = {"bias": jnp.zeros(3), "kernel": jnp.zeros((4, 3))}


def gradients(num_updates, seed=1):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.normal(size=(num_updates, *leaf.shape)), jnp.float32) for name, leaf in PARAMS.items()
    }


def run(tx, state, grads):
    def body(state, gradient):
        updates, state = tx.update(gradient, state, PARAMS)
        return state, updates

    return jax.lax.scan(body, state, grads)


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), a, b)


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.999), (0.0, 0.9), (0.5, 0.0)])
def test_without_resets_it_is_adam(b1, b2):
    ours, theirs = scale_by_adam_per_weight(b1, b2), optax.scale_by_adam(b1, b2)
    grads = gradients(50)
    (state, updates), (wanted_state, wanted) = (run(tx, tx.init(PARAMS), grads) for tx in (ours, theirs))
    close(updates, wanted)
    close((state.mu, state.nu), (wanted_state.mu, wanted_state.nu))
    masses = [*jax.tree.leaves(state.mu_mass), *jax.tree.leaves(state.nu_mass)]
    for mass, decay in zip(masses, (b1, b1, b2, b2), strict=True):
        np.testing.assert_allclose(mass, 1 - decay**50, rtol=2e-5)


def test_first_updates_by_hand():
    """m̂ = g and v̂ = g² at first; then m̂ = (.9·.1·g₁ + .1·g₂)/.19 and v̂ likewise."""
    tx = scale_by_adam_per_weight(0.9, 0.99, eps=0.0)
    first, state = tx.update(jnp.array([2.0, -0.5]), tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(first, [1.0, -1.0], rtol=1e-6)
    second, _ = tx.update(jnp.array([1.0, 1.0]), state)
    m = np.array([0.09 * 2.0 + 0.1, 0.09 * -0.5 + 0.1]) / 0.19
    v = np.array([0.99 * 0.01 * 4.0 + 0.01, 0.99 * 0.01 * 0.25 + 0.01]) / (1 - 0.99**2)
    np.testing.assert_allclose(second, m / np.sqrt(v), rtol=1e-5)


def test_weights_that_are_reset_begin_as_with_a_new_adam_and_others_go_on():
    tx, adam = scale_by_adam_per_weight(), optax.scale_by_adam()
    grads, later = gradients(200), gradients(20, seed=2)
    state, _ = run(tx, tx.init(PARAMS), grads)
    _, found = run(tx, clear_moments(state, WHERE), later)
    _, begun = run(adam, adam.init(PARAMS), later)
    old, _ = run(adam, adam.init(PARAMS), grads)
    _, gone_on = run(adam, old, later)
    close(found, jax.tree.map(lambda where, new, old: jnp.where(where[None], new, old), WHERE, begun, gone_on))


def test_the_first_update_after_a_reset_is_one_learning_rate():
    """With Adam's one count it is (1 − b1)/√(1 − b2) = 3.16 of them."""
    steps = {}
    for name, tx in {"shared": optax.scale_by_adam(), "per-weight": scale_by_adam_per_weight()}.items():
        state = tx.init(jnp.zeros(2))
        state, _ = jax.lax.scan(lambda s, _, tx=tx: (tx.update(jnp.full(2, 0.3), s)[1], None), state, length=20_000)
        steps[name], _ = tx.update(jnp.full(2, 0.3), clear_moments(state, {"": jnp.array([True, False])}))
    np.testing.assert_allclose(steps["shared"], [0.1 / 0.001**0.5, 1.0], rtol=1e-3)
    np.testing.assert_allclose(steps["per-weight"], [1.0, 1.0], rtol=1e-3)


def test_the_second_moment_is_corrected():
    """AdamGnT's defect: √(1 − b2^a) is computed and not used, which makes its first update 1/√(1 − b2) times ours."""
    tx = scale_by_adam_per_weight(0.9, 0.999)
    updates, _ = tx.update(jnp.array([0.3]), tx.init(jnp.zeros(1)))
    np.testing.assert_allclose(updates, [1.0], rtol=1e-5)


def test_traced_numbers_and_narrow_types_keep_the_state():
    params = {"w": jnp.ones(3, jnp.bfloat16)}

    @jax.jit
    def update(b1, state):
        tx = scale_by_adam_per_weight(b1)
        updates, state = tx.update({"w": jnp.ones(3, jnp.bfloat16)}, state, params)
        return optax.apply_updates(params, updates), state

    before = scale_by_adam_per_weight().init(params)
    new, after = update(jnp.float32(0.9), before)
    assert new["w"].dtype == jnp.bfloat16
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(before)]
    assert jax.tree.structure(after) == jax.tree.structure(before)


@pytest.mark.parametrize("b2", [0.9, 0.999, 0.999999])
def test_masses_do_not_drift_from_the_moments(b2):
    """A gradient of 1 has the moment 1 after the correction, whatever float32 makes of the running means."""
    tx = scale_by_adam_per_weight(0.9, b2)
    state = jax.lax.fori_loop(0, 3_000_000, lambda _, state: tx.update(jnp.ones(1), state)[1], tx.init(jnp.zeros(1)))
    np.testing.assert_allclose(state.mu_mass, state.mu, rtol=1e-6)
    np.testing.assert_allclose(state.nu_mass, state.nu, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"b1": 1.0}, r"got b1=1.0; wanted a number in \[0, 0.999999\]. 0.9 is usual"),
        ({"b2": -0.1}, r"got b2=-0.1; wanted a number in"),
        ({"eps": -1.0}, "got eps=-1.0; wanted a finite number ≥ 0"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        scale_by_adam_per_weight(**options)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_moments_of_narrow_gradients_are_in_float32(dtype):
    """Long after gradients fell from 1 to 0.1 the step is 1 again: a second moment in bfloat16 would not fall."""
    tx = scale_by_adam_per_weight(eps=0.0)

    def steps(state, size, number):
        gradient = jnp.full(2, size, dtype)
        return jax.lax.fori_loop(0, number, lambda _, state: tx.update(gradient, state)[1], state)

    state = jax.jit(lambda state: steps(steps(state, 1.0, 1000), 0.1, 8000))(tx.init(jnp.ones(2, dtype)))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32)}
    update, _ = tx.update(jnp.full(2, 0.1, dtype), state)
    assert update.dtype == dtype
    np.testing.assert_allclose(np.float32(update), 1.0, rtol=0.02)
