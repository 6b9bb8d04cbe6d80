import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import selective_reinit
from pliant.networks import mlp
from pliant.types import Fresh, Learned, Signals

KERNEL = jnp.array([[0.1, 2.0, -0.3], [-3.0, 0.01, 4.0]])
GRADIENT = jnp.array([[9.0, 0.001, 1.0], [0.0, 5.0, 0.1]])
PARAMS = {"bias": jnp.array([0.1, 0.2, 0.3]), "kernel": KERNEL}
START = {"bias": jnp.full(3, 7.0), "kernel": jnp.full((2, 3), 7.0)}


def updated(params=PARAMS, *, seed=0, step=1, opt_state=(), **options):
    return update(jax.random.key(seed), params, step=step, opt_state=opt_state, **options)


def of_seeds(num_seeds, params=PARAMS, **options):
    """The new kernels and the numbers of weights reset, by seed."""

    def one(key):
        new, _, info = update(key, params, **options)
        return new.params["kernel"], info["weights_reset"]

    keys = jnp.stack([jax.random.key(seed) for seed in range(num_seeds)])
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys))


def update(key, params, *, step=1, opt_state=(), **options):
    method = selective_reinit(**({"every": 1, "fraction": 1 / 3} | options))
    fresh = Fresh(lambda key: (START, {}), None)
    gradients = {"bias": jnp.zeros(3), "kernel": GRADIENT}
    learned = Learned(params, {}, opt_state)
    state = method.init(learned)
    return method.update(key, step, learned, state, Signals(gradients, {}, None, fresh))


@pytest.mark.parametrize(
    ("utility", "weak"),
    [
        ("magnitude", [[True, False, False], [False, True, False]]),  # 0.01 and 0.1
        ("gradient", [[False, True, False], [True, False, False]]),  # |w g| = 0 and 0.002
    ],
)
@pytest.mark.parametrize(("source", "value"), [("fresh", 7.0), ("mean", 0.0)])
def test_the_least_useful_weights_begin_again(utility, weak, source, value):
    new, state, info = updated(utility=utility, source=source)
    np.testing.assert_array_equal(new.params["kernel"], np.where(weak, value, KERNEL))
    np.testing.assert_array_equal(new.params["bias"], PARAMS["bias"])
    assert int(info["weights_reset"]) == 2
    assert state == ()


def test_moments_of_these_weights_are_cleared_and_no_others():
    tx = optax.adam(1e-2)
    opt_state = tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS))[1]
    new = updated(opt_state=opt_state, utility="magnitude")[0].optimizer[0]
    weak = np.array([[True, False, False], [False, True, False]])
    for after, before in ((new.mu, opt_state[0].mu), (new.nu, opt_state[0].nu)):
        np.testing.assert_array_equal(after["kernel"], np.where(weak, 0.0, before["kernel"]))
        np.testing.assert_array_equal(after["bias"], before["bias"])
    assert int(new.count) == 1


def test_small_kernels_lose_the_fraction_on_average():
    _, numbers = of_seeds(200, fraction=0.05)
    assert set(numbers.tolist()) == {0, 1}
    assert 0.2 < np.mean(numbers) < 0.4  # of 6 weights 0.3


@pytest.mark.parametrize(("fraction", "number"), [(0.0, 0), (1.0, 6)])
def test_none_and_all(fraction, number):
    kernels, numbers = of_seeds(20, fraction=fraction)
    assert (numbers == number).all()
    for kernel in kernels:
        np.testing.assert_array_equal(kernel, KERNEL if number == 0 else START["kernel"])


def test_chance_decides_between_equal_utilities():
    """In the order of the kernel the same weights of silent units would be drawn for ever, and the others never."""
    params = {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 3))}
    kernels, numbers = of_seeds(60, params)
    assert (numbers == 2).all()
    assert (kernels == 7.0).sum(axis=0).min() > 5


def test_it_fires_at_its_period_only():
    fired = [int(updated(every=3, step=step)[2]["weights_reset"]) for step in range(1, 7)]
    assert fired == [0, 0, 2, 0, 0, 2]


def test_weights_without_a_gradient_go_first(key):
    """So the unit that never fires begins again, weight by weight, behind any activation."""
    network = mlp((4,), 2, widths=(6,))
    params, state = network.init(key)
    params["dense_0"]["bias"] = params["dense_0"]["bias"].at[2].set(-50.0)
    x = jax.random.normal(key, (32, 4))
    gradients = jax.grad(lambda p: (network.apply(p, state, x, train=True, key=None)[0] ** 2).sum())(params)
    method = selective_reinit(fraction=4 / 24, every=1, mask=lambda params: network.wiring.mask(params, "matrix"))
    signals = Signals(gradients, {}, None, Fresh(network.init, None))
    new, _, info = jax.jit(lambda: method.update(key, 1, Learned(params, state, ()), (), signals))()
    changed = np.asarray(new.params["dense_0"]["kernel"] != params["dense_0"]["kernel"])
    assert int(info["weights_reset"]) == 4
    assert changed.tolist() == [[False, False, True, False, False, False]] * 4
    np.testing.assert_array_equal(new.params["head"]["kernel"], params["head"]["kernel"])


def test_fresh_weights_are_those_of_the_initializer(key):
    network = mlp((4,), 2, widths=(6,), activation="maxmin")
    params, state = network.init(key)
    method = selective_reinit(fraction=1.0, every=1, utility="magnitude")
    signals = Signals(params, {}, None, Fresh(network.init, None))
    new = [
        method.update(jax.random.key(seed), 1, Learned(params, state, ()), (), signals)[0].params["dense_0"]["kernel"]
        for seed in (1, 2)
    ]
    for kernel in new:
        np.testing.assert_allclose(np.linalg.svd(kernel)[1], np.ones(4), rtol=1e-5)
    assert np.all(np.asarray(new[0] != new[1]))


def test_narrow_types_are_kept():
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    new = updated(narrow)[0].params
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 1.5}, r"got fraction=1.5; wanted a number in \[0, 1\]. Use 0.01"),
        ({"every": 0}, "got every=0; wanted a finite number ≥ 1"),
        ({"utility": "age"}, "got utility='age'; wanted 'gradient' or 'magnitude'. Leave it out for 'gradient'"),
        ({"source": "old"}, "got source='old'; wanted 'fresh' or 'mean'. Leave it out for 'fresh'"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        selective_reinit(**options)


def test_a_mask_that_selects_nothing_is_refused():
    method = selective_reinit(mask={"bias": False, "kernel": False})
    with pytest.raises(UserError, match="got a mask that selects none of 2 parameter leaves"):
        method.init(Learned(PARAMS, {}, ()))
