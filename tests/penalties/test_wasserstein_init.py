import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.penalties import l2_init, wasserstein_init
from strict_types import unchecked

START = {"bias": jnp.zeros(2), "kernel": jnp.array([[0.0, 3.0], [1.0, -2.0]])}


def value_and_gradient(penalty, start, now):
    state = penalty.init(start)
    return jax.value_and_grad(lambda params: penalty.loss(params, state, None)[0])(now)


def test_golden():
    """Sorted, −2 0 1 3 against −1 0 2 5: differences 1 0 1 2."""
    start, now = jnp.array([[0.0, 3.0], [1.0, -2.0]]), jnp.array([[5.0, 0.0], [-1.0, 2.0]])
    value, gradient = value_and_gradient(wasserstein_init(0.5), start, now)
    assert float(value) == 0.5 * 6 / 4
    np.testing.assert_allclose(gradient, 0.5 * 2 / 4 * np.array([[2.0, 0.0], [1.0, 1.0]]))


def test_the_sum_is_as_many_times_as_strong():
    now = jax.tree.map(lambda leaf: leaf + 0.5, START)
    mean, _ = value_and_gradient(wasserstein_init(1.0), START, now)
    total, _ = value_and_gradient(wasserstein_init(1.0, reduction="sum"), START, now)
    np.testing.assert_allclose([mean, total], [2 * 0.25, 6 * 0.25])


def test_order_does_not_matter(key):
    """What tells it from L2 Init: (0, 1) → (1, 0) costs 0 against 2."""
    start, now = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])
    value, gradient = value_and_gradient(wasserstein_init(1.0), start, now)
    assert float(value) == 0.0
    assert not np.any(gradient)
    assert float(value_and_gradient(l2_init(1.0), start, now)[0]) == 2.0

    kernel = jax.random.normal(key, (4, 5))
    shuffled = jax.random.permutation(key, kernel.ravel()).reshape(4, 5)
    assert float(value_and_gradient(wasserstein_init(1.0), kernel, shuffled)[0]) == 0.0


def test_a_shift_costs_its_square(key):
    kernel = jax.random.normal(key, (3, 4, 2))
    value, gradient = value_and_gradient(wasserstein_init(1.0), kernel, kernel + 0.5)
    np.testing.assert_allclose(value, 0.25, rtol=1e-5)
    np.testing.assert_allclose(gradient, np.full(kernel.shape, 1 / 24), rtol=1e-4)


def test_entries_stay_in_their_parameter():
    """Exchanging entries between a kernel and a bias is seen: distributions are per parameter."""
    start = {"bias": jnp.array([0.0]), "kernel": jnp.array([1.0])}
    now = {"bias": jnp.array([1.0]), "kernel": jnp.array([0.0])}
    assert float(value_and_gradient(wasserstein_init(1.0), start, now)[0]) == 2.0


def test_descent_restores_the_distribution_in_the_present_order(key):
    start = jax.random.normal(key, (6,))
    now = 3 * jax.random.normal(jax.random.key(1), (6,))
    penalty = wasserstein_init(1.0, reduction="sum")
    state, tx = penalty.init(start), optax.sgd(0.1)
    params = now
    for _ in range(100):
        gradient = jax.grad(lambda params: penalty.loss(params, state, None)[0])(params)
        params = optax.apply_updates(params, tx.update(gradient, tx.init(params))[0])
    np.testing.assert_allclose(np.sort(params), np.sort(start), atol=1e-5)
    np.testing.assert_array_equal(np.argsort(params), np.argsort(now))


def test_state_has_the_selected_parameters_sorted():
    penalty = wasserstein_init(mask={"bias": False, "kernel": True})
    state = penalty.init(START)
    np.testing.assert_array_equal(state.ordered[0], [-2.0, 0.0, 1.0, 3.0])
    np.testing.assert_array_equal(state.targets[0], START["kernel"])
    assert len(state.ordered) == len(state.targets) == 1
    _, gradient = value_and_gradient(penalty, START, jax.tree.map(lambda leaf: leaf + 1, START))
    assert not np.any(gradient["bias"])
    assert np.all(np.asarray(gradient["kernel"]) > 0)


def _followed(start, path, **options):
    """Losses and gradients along a path of parameters."""
    penalty = wasserstein_init(1.0, **options)
    state, found = penalty.init(start), []
    for params in path:
        (loss, state), gradient = jax.value_and_grad(penalty.loss, has_aux=True)(params, state, None)
        found.append((float(loss), np.asarray(gradient)))
    return found


def test_lazy_sorting_is_exact_at_its_period_and_a_bound_in_between(key):
    start, *path = jax.random.normal(key, (7, 4, 5))
    lazy, exact = (_followed(start, path, sort_every=every) for every in (3, 1))
    for update, ((loss, gradient), (wanted, slope)) in enumerate(zip(lazy, exact, strict=True)):
        if update % 3 == 0:
            assert loss == wanted
            np.testing.assert_array_equal(gradient, slope)
        else:
            assert loss > wanted


def test_lazy_sorting_is_exact_while_entries_keep_their_order(key):
    start, first = jax.random.normal(key, (2, 4, 5))
    path = [first, 1.5 * first, first + 0.3]
    for (loss, gradient), (wanted, slope) in zip(
        *(_followed(start, path, sort_every=k) for k in (100, 1)), strict=True
    ):
        np.testing.assert_allclose(loss, wanted, rtol=1e-6)
        np.testing.assert_allclose(gradient, slope, rtol=1e-6)


def test_seeds_in_a_batch_sort_only_when_it_is_time(key):
    """A flag that differs between seeds would make both branches run; one for all keeps them branches."""
    penalty, params = wasserstein_init(1.0), jax.random.normal(key, (3, 4, 5))
    states = jax.vmap(penalty.init)(params)
    gradient = jax.grad(lambda params, state: penalty.loss(params, state, None)[0])
    assert " cond[" in str(jax.make_jaxpr(jax.vmap(gradient))(params, states))


def test_members_of_a_batch_sort_each_in_its_own_time(key):
    start, *path = jax.random.normal(key, (6, 4, 5))
    periods = jnp.array([1, 2, 4])

    def losses(every):
        penalty = wasserstein_init(1.0, sort_every=every)
        state, found = penalty.init(start), []
        for params in path:
            loss, state = penalty.loss(params, state, None)
            found.append(loss)
        return jnp.stack(found)

    together = jax.vmap(losses)(periods)
    for member, every in zip(together, periods, strict=True):
        np.testing.assert_allclose(
            member, [loss for loss, _ in _followed(start, path, sort_every=int(every))], rtol=1e-6
        )


def test_strength_zero_is_exactly_zero():
    value, gradient = value_and_gradient(wasserstein_init(0.0), START, jax.tree.map(lambda leaf: leaf + 1, START))
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_keeps_bfloat16():
    start = jnp.arange(4.0, dtype=jnp.bfloat16)
    value, gradient = value_and_gradient(wasserstein_init(1.0), start, start + 1)
    assert (float(value), value.dtype, gradient.dtype) == (1.0, jnp.float32, jnp.bfloat16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, r"got strength=-1.0; wanted a finite number ≥ 0. Use 0 to switch"),
        ({"sort_every": 0}, "got sort_every=0; wanted a finite number ≥ 1. Use 1 to sort at every update"),
        ({"reduction": "max"}, "got reduction='max'; wanted 'mean' or 'sum'. Leave it out for 'mean'"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        unchecked(wasserstein_init)(**options)


def test_mask_that_selects_nothing_is_refused():
    with pytest.raises(UserError, match="got a mask that selects none of 2 parameter leaves"):
        wasserstein_init(mask={"bias": False, "kernel": False}).init(START)
