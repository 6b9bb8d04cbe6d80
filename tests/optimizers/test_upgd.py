import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import clear_moments, reset_units
from pliant.networks import cnn, mlp
from pliant.optimizers import UPGDState, upgd
from pliant.types import Learned, leaf_path
from strict_types import unchecked

WEIGHTS, GRADIENT = jnp.array([1.0, 2.0]), jnp.array([-1.0, 0.5])
QUIET = {"sigma": 0.0, "weight_decay": 0.0}
PARAMS = {"bias": jnp.array([0.5, -1.0]), "kernel": jnp.array([[1.0, -2.0], [3.0, 0.5], [0.0, 1.0]])}
GRADIENTS = {"bias": jnp.array([1.0, 1.0]), "kernel": jnp.array([[-1.0, 0.5], [0.2, 1.0], [2.0, -0.3]])}


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def updates_of(gradients, params, key=None, rate=0.1, **options):
    tx = upgd(rate, **options)
    return tx.update(gradients, tx.init(params), params, key=key)[0]


def test_golden():
    updates = updates_of(GRADIENT, WEIGHTS, **QUIET)
    np.testing.assert_allclose(WEIGHTS + updates, [1.0269, 1.9634], atol=5e-5)


def test_weight_decay_is_decoupled_and_whole():
    plain = updates_of(GRADIENT, WEIGHTS, **QUIET)
    decayed = updates_of(GRADIENT, WEIGHTS, sigma=0.0, weight_decay=0.3)
    np.testing.assert_allclose(decayed - plain, -0.1 * 0.3 * WEIGHTS, rtol=1e-5)


def test_without_utility_it_is_sgd_of_half_the_rate():
    updates = updates_of(GRADIENT, jnp.zeros(2), **QUIET)
    np.testing.assert_allclose(updates, -0.05 * GRADIENT, rtol=1e-6)


def test_utility_is_averaged_and_corrected():
    """Two updates by hand: U = 0.9 U + 0.1 u, divided by 1 − 0.9²."""
    tx = upgd(0.1, beta=0.9, **QUIET)
    state = tx.init(WEIGHTS)
    second = jnp.array([0.5, -2.0])
    _, state = tx.update(GRADIENT, state, WEIGHTS)
    updates, state = tx.update(second, state, WEIGHTS)
    trace = 0.9 * 0.1 * np.array([1.0, -1.0]) + 0.1 * np.array([-0.5, 4.0])
    np.testing.assert_allclose(state.trace, trace, rtol=1e-5)
    np.testing.assert_allclose(updates, -0.1 * np.array(second) * (1 - sigmoid(trace / trace.max())), rtol=1e-5)
    assert int(state.count) == 2


def test_tells_the_mean_utility():
    """Of one update, corrected, it is the mean of −g w."""
    tx = upgd(0.1)
    _, state = tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)
    products = np.concatenate(
        [-np.ravel(g * w) for g, w in zip(*map(jax.tree.leaves, (GRADIENTS, PARAMS)), strict=True)]
    )
    np.testing.assert_allclose(state.info["mean_utility"], products.mean(), rtol=1e-4)


def test_the_scale_is_the_largest_corrected_utility():
    """Not the largest running one: then the first ratios would be 1/(1 − β), and useful weights frozen."""
    updates = updates_of(GRADIENT, WEIGHTS, beta=0.9999, **QUIET)
    np.testing.assert_allclose(updates, -0.1 * np.array(GRADIENT) * (1 - sigmoid([1.0, -1.0])), rtol=1e-4)


def test_the_scale_is_global_over_all_leaves():
    updates = updates_of(GRADIENTS, PARAMS, **QUIET)
    utility = jax.tree.map(lambda g, w: -np.asarray(g) * np.asarray(w), GRADIENTS, PARAMS)
    for name in PARAMS:
        wanted = -0.1 * np.asarray(GRADIENTS[name]) * (1 - sigmoid(utility[name] / 1.0))  # 1 is the largest
        np.testing.assert_allclose(updates[name], wanted, rtol=1e-4)


def test_the_local_scale_is_the_norm_over_the_fan_in():
    updates = updates_of(GRADIENTS, PARAMS, scope="local", **QUIET)
    for name in PARAMS:
        utility = -np.asarray(GRADIENTS[name]) * np.asarray(PARAMS[name])
        norms = np.sqrt((utility**2).sum(axis=0, keepdims=True))
        wanted = -0.1 * np.asarray(GRADIENTS[name]) * (1 - sigmoid(utility / norms))
        np.testing.assert_allclose(updates[name], wanted, rtol=1e-4)


def test_the_local_scale_of_a_convolution_is_over_its_whole_fan_in(key):
    kernel, gradient = jax.random.normal(key, (2, 3, 3, 2, 4))
    flat = updates_of(gradient.reshape(18, 4), kernel.reshape(18, 4), scope="local", **QUIET)
    np.testing.assert_allclose(updates_of(gradient, kernel, scope="local", **QUIET).reshape(18, 4), flat, rtol=1e-5)


@pytest.mark.parametrize("gradient", [jnp.array([1.0, 0.5]), jnp.array([0.0, 1.0])])
def test_negative_utilities_stay_negative(gradient):
    """A largest utility of 0 or less must not turn the signs around: such weights are as free as can be."""
    updates = updates_of(gradient, WEIGHTS, **QUIET)
    np.testing.assert_allclose(updates, -0.1 * gradient, rtol=1e-5)


def test_all_zero_stays_finite():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for scope in ("global", "local"):
        updates = updates_of(zeros, zeros, scope=scope, **QUIET)
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(updates))


def test_noise_is_weighed_by_what_is_not_useful(key):
    weights = jnp.concatenate([jnp.full(20_000, 1.0), jnp.zeros(20_000)])
    gradient = jnp.full(40_000, -1.0)
    draw = functools.partial(updates_of, gradient, weights, key, weight_decay=0.0)
    noise = np.asarray(draw(sigma=0.3) - draw(sigma=0.0)) / 0.1
    for part, room in ((noise[:20_000], 1 - sigmoid(1.0)), (noise[20_000:], 0.5)):
        np.testing.assert_allclose(part.std(), 0.3 * room, rtol=0.03)
        assert abs(part.mean()) < 0.01


def test_without_protection_only_the_noise_is_weighed(key):
    draw = functools.partial(updates_of, GRADIENT, WEIGHTS, key, weight_decay=0.0)
    np.testing.assert_allclose(draw(sigma=0.0, protecting=False), -0.1 * GRADIENT, rtol=1e-6)
    noise = draw(sigma=0.3, protecting=False) - draw(sigma=0.0, protecting=False)
    np.testing.assert_allclose(noise, draw(sigma=0.3) - draw(sigma=0.0), rtol=1e-4, atol=1e-7)


def test_adam_gives_the_direction():
    def after(tx, num=3):
        state = tx.init(PARAMS)
        for _ in range(num):
            updates, state = tx.update(GRADIENTS, state, PARAMS)
        return updates

    found = after(upgd(0.1, base="adam", protecting=False, **QUIET))
    jax.tree.map(np.testing.assert_array_equal, found, after(optax.adam(0.1)))
    spared = after(upgd(0.1, base="adam", **QUIET))
    utility = -np.asarray(GRADIENTS["kernel"] * PARAMS["kernel"])
    np.testing.assert_allclose(spared["kernel"], found["kernel"] * (1 - sigmoid(utility)), rtol=1e-4)


def test_noise_comes_from_the_key_or_else_from_the_seed():
    def three(seed=0, key=None):
        tx = upgd(0.1, sigma=1.0, seed=seed)
        state, found = tx.init(PARAMS), []
        for _ in range(3):
            updates, state = tx.update(GRADIENTS, state, PARAMS, key=key)
            found.append(np.asarray(updates["kernel"]))
        return found

    first = three()
    np.testing.assert_array_equal(first, three())
    assert np.all(first[0] != first[1])
    assert np.all(first[0] != three(seed=1)[0])
    keyed = three(key=jax.random.key(5))
    np.testing.assert_array_equal(keyed, three(seed=1, key=jax.random.key(5)))
    assert np.all(keyed[0] != three(key=jax.random.key(6))[0])


def test_leaves_draw_apart():
    params = {"a": jnp.zeros(4), "b": jnp.zeros(4)}
    updates = updates_of(params, params, sigma=1.0)
    assert np.all(np.asarray(updates["a"] != updates["b"]))


@functools.cache
def unit_case(kind):
    """A network, and its loss with gates behind the units: `gated(params, gates)`."""
    if kind == "cnn":
        network = cnn((4, 4, 1), 3, channels=(4, 2), kernel_sizes=(3, 3), strides=(1, 1), pool=(2, 1), widths=(5,))
        x = jax.random.normal(jax.random.key(1), (6, 4, 4, 1))
    else:
        network = mlp((3,), 3, widths=(5, 4), activation=kind)
        x = jax.random.normal(jax.random.key(1), (6, 3))
    params, state = network.init(jax.random.key(0))

    def gated(params, gates):
        """A gate behind a unit scales what reads the unit, which is the same function."""

        def scaled(path, leaf):
            for layer in network.wiring.layers:
                for slot in layer.readers:
                    if slot.path == leaf_path(path):
                        shape = [1] * leaf.ndim
                        shape[slot.axis] = -1
                        leaf = leaf * jnp.tile(gates[layer.name], slot.tiles).reshape(shape)
            return leaf

        output, _, _ = network.apply(jax.tree_util.tree_map_with_path(scaled, params), state, x, train=False, key=None)
        return jnp.square(output - 1.0).mean()

    gates = {layer.name: jnp.ones(layer.width) for layer in network.wiring.layers}
    return network, params, gated, gates


@pytest.mark.parametrize("kind", ["relu", "crelu", "cnn"])
def test_unit_utilities_are_the_gradients_at_gates(kind):
    network, params, gated, gates = unit_case(kind)
    gradients, at_gates = jax.grad(gated, argnums=(0, 1))(params, gates)
    tx = upgd(0.1, utility="feature", wiring=network.wiring, beta=0.0)
    _, state = tx.update(gradients, tx.init(params), params)
    assert set(state.trace) == set(gates)
    for name, gate in at_gates.items():
        np.testing.assert_allclose(state.trace[name], -gate, rtol=1e-4, atol=1e-6)
        assert np.any(np.asarray(gate) != 0)


@pytest.mark.parametrize("scope", ["global", "local"])
def test_units_share_their_utility_with_what_feeds_them(scope):
    network, params, gated, gates = unit_case("relu")
    gradients, at_gates = jax.grad(gated, argnums=(0, 1))(params, gates)
    options = {"utility": "feature", "wiring": network.wiring, "scope": scope}
    updates = updates_of(gradients, params, **options, **QUIET)
    largest = max(float((-gate).max()) for gate in at_gates.values())
    for name, gate in at_gates.items():
        scale = largest if scope == "global" else float(jnp.sqrt(jnp.square(gate).sum()))
        room = 1 - sigmoid(-np.asarray(gate) / scale)
        for leaf in ("kernel", "bias"):
            wanted = -0.1 * np.asarray(gradients[name][leaf]) * room
            np.testing.assert_allclose(updates[name][leaf], wanted, rtol=1e-3)
    noisy = updates_of(gradients, params, **options, sigma=1.0, weight_decay=0.0)
    np.testing.assert_allclose(noisy["head"]["kernel"], -0.1 * gradients["head"]["kernel"], rtol=1e-6)
    assert np.all(np.asarray(noisy["dense_0"]["kernel"] != updates["dense_0"]["kernel"]))


def test_a_reset_forgets_the_utility():
    tx = upgd(0.1)
    _, state = tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)
    where = {"kernel": jnp.zeros((3, 2), bool).at[:, 0].set(True)}
    cleared = clear_moments(state, where)
    assert not np.any(cleared.trace["kernel"][:, 0])
    np.testing.assert_array_equal(cleared.trace["kernel"][:, 1], state.trace["kernel"][:, 1])
    assert int(cleared.count) == 1


def test_a_unit_that_is_reset_forgets_its_utility(key):
    network = mlp((3,), 2, widths=(4,))
    params, _ = network.init(key)
    tx = upgd(0.1, utility="feature", wiring=network.wiring)
    _, state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    state = state._replace(trace={"dense_0": jnp.arange(1.0, 5.0)})
    units = {"dense_0": jnp.array([True, False, False, True])}
    after = reset_units(key, Learned(params, {}, state), network.wiring, units)
    assert after.optimizer.trace["dense_0"].tolist() == [0.0, 2.0, 3.0, 0.0]


def test_a_schedule_sets_the_rate():
    tx = upgd(lambda count: 0.1 / (count + 1), **QUIET)
    first, state = tx.update(GRADIENT, tx.init(WEIGHTS), WEIGHTS)
    second, _ = tx.update(GRADIENT, state, WEIGHTS)
    np.testing.assert_allclose(second, first / 2, rtol=1e-5)


def test_bfloat16_parameters_keep_their_type_and_utilities_are_wide():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    tx = upgd(0.1, base="adam")
    updates, state = tx.update(params, tx.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(state.trace)} == {jnp.dtype(jnp.float32)}
    assert isinstance(state, UPGDState)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 1.0}, r"got beta=1.0; wanted a number in \[0, 0.999999\]. 0.999 is usual"),
        ({"sigma": -1.0}, "got sigma=-1.0; wanted a finite number ≥ 0. Use 0 for no noise"),
        ({"weight_decay": -1.0}, "got weight_decay=-1.0; wanted a finite number ≥ 0. Use 0 for none"),
        ({"learning_rate": -1.0}, "got learning_rate=-1.0; wanted a finite number ≥ 0"),
        ({"utility": "unit"}, "got utility='unit'; wanted 'weight' or 'feature'. Leave it out for 'weight'"),
        ({"scope": "layer"}, "got scope='layer'; wanted 'global' or 'local'. Leave it out for 'global'"),
        ({"base": "lion"}, "got base='lion'; wanted 'sgd' or 'adam'. Leave it out for 'sgd'"),
        (
            {"utility": "feature"},
            r"got utility='feature' without a wiring; wanted the wiring of a network.*Pass wiring=",
        ),
        (
            {"utility": "feature", "wiring": mlp((3,), 2, widths=(4,), activation="maxmin").wiring},
            "got utility='feature' behind maxmin; wanted the wiring of a network in which every unit owns its output",
        ),
        (
            {"utility": "feature", "wiring": mlp((3,), 2, widths=()).wiring},
            "got utility='feature' on a network without hidden layers",
        ),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        unchecked(upgd)(**({"learning_rate": 0.1} | options))


def test_parameters_are_needed():
    tx = upgd(0.1)
    with pytest.raises(UserError, match=r"got update\(gradients, state\); wanted update\(gradients, state, params\)"):
        tx.update(GRADIENT, tx.init(WEIGHTS))


def test_utilities_of_units_want_kernels_that_are_applied_as_they_are():
    network = cnn((4, 4, 1), 2, channels=(3,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(3,), linear="scaled")
    with pytest.raises(UserError, match=r"got utility='feature' for a network that does not apply 'dense_0/kernel' as"):
        upgd(0.1, utility="feature", wiring=network.wiring)
    assert upgd(0.1, wiring=network.wiring)


@pytest.mark.parametrize("beta", [0.0, 0.9])
@pytest.mark.parametrize("first", [True, False])
def test_utility_stays_where_a_gradient_is_not_finite(beta, first):
    """Û of the first weight, which is U / (1 − βᵗ); the other weight takes the batch in."""
    tx = upgd(0.1, beta=beta, **QUIET)
    state = tx.init(WEIGHTS)
    if not first:
        _, state = tx.update(GRADIENT, state, WEIGHTS)
    before = np.asarray(state.trace) / max(1 - beta ** int(state.count), 1e-9)
    _, state = tx.update(jnp.array([jnp.nan, 0.5]), state, WEIGHTS)
    after = np.asarray(state.trace) / (1 - beta ** int(state.count))
    np.testing.assert_allclose(after[0], before[0], rtol=1e-5)
    np.testing.assert_allclose(after[1], -1.0, rtol=1e-5)
    assert np.isfinite(state.info["mean_utility"])
    updates, _ = tx.update(GRADIENT, state, WEIGHTS)
    assert np.isfinite(updates).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_moments_of_narrow_gradients_are_in_float32(dtype):
    """In float16 the square of 1e-4 is 0, and Adam's direction infinite."""
    tx = upgd(0.1, base="adam", **QUIET)
    weights, gradient = jnp.zeros(2, dtype), jnp.full(2, 1e-4, dtype)
    updates, state = tx.update(gradient, tx.init(weights), weights)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.base)} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}
    assert updates.dtype == dtype
    np.testing.assert_allclose(np.float32(updates), -0.05, rtol=0.01)
