import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from pliant.interventions import redo
from pliant.isometry import gram_deviation
from pliant.networks import from_linen, from_nnx
from pliant.optimizers import adamo
from pliant.types import Feed, HiddenLayer, Learned, Network, Signals, Slot, Wiring, leaf_path

normal = jax.nn.initializers.he_normal()
zeros = jax.nn.initializers.zeros


def hidden_layer(name, feeds, reader):
    return HiddenLayer(name, 5, feeds, (reader,), activation="relu", elementwise=True)


class Linen(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        features = {}
        for name in ("one", "two"):
            x = features[name] = flax.linen.relu(flax.linen.Dense(5, name=name)(x))
        return flax.linen.Dense(2, name="head")(x), features


def linen_network():
    layers = tuple(
        hidden_layer(
            name,
            (Feed(Slot(f"{name}/kernel", -1), normal), Feed(Slot(f"{name}/bias", -1), zeros)),
            Slot(f"{reader}/kernel", -2),
        )
        for name, reader in (("one", "two"), ("two", "head"))
    )
    roles = {
        "one/kernel": "matrix",
        "two/kernel": "matrix",
        "head/kernel": "head",
        "one/bias": "bias",
        "two/bias": "bias",
        "head/bias": "bias",
    }
    return from_linen(Linen(), jnp.zeros((1, 3)), Wiring(layers, roles))


class Equinox(eqx.Module):
    layers: list[eqx.nn.Linear]

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.layers = [eqx.nn.Linear(i, o, key=k) for (i, o), k in zip([(3, 5), (5, 5), (5, 2)], keys, strict=True)]

    def __call__(self, x):
        features = {}
        for name, layer in zip(("one", "two"), self.layers[:-1], strict=True):
            x = features[name] = jax.nn.relu(layer(x))
        return self.layers[-1](x), features


def equinox_network():
    layers = tuple(
        hidden_layer(
            name,
            (Feed(Slot(f"layers/{i}/weight", 0), normal), Feed(Slot(f"layers/{i}/bias", 0), zeros)),
            Slot(f"layers/{i + 1}/weight", 1),
        )
        for i, name in enumerate(("one", "two"))
    )
    roles = {f"layers/{i}/weight": "head" if i == 2 else "matrix" for i in range(3)}
    _, static = eqx.partition(Equinox(jax.random.key(0)), eqx.is_array)

    def init(key):
        return eqx.filter(Equinox(key), eqx.is_array), {}

    def apply(params, state, inputs, *, train, key=None):
        output, features = jax.vmap(eqx.combine(params, static))(inputs)
        return output, features, state

    return Network(init, apply, Wiring(layers, roles | {f"layers/{i}/bias": "bias" for i in range(3)}))


def by_path(tree):
    return {leaf_path(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


NETWORKS = {
    "linen": (linen_network, ["one/kernel", "two/kernel", "head/kernel"], ["one/bias", "two/bias"]),
    "equinox": (equinox_network, [f"layers/{i}/weight" for i in range(3)], ["layers/0/bias", "layers/1/bias"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_output_and_features(key, name):
    network = NETWORKS[name][0]()
    params, state = network.init(key)
    assert set(by_path(params)) == set(network.wiring.roles)
    output, features, new_state = network.apply(params, state, jnp.ones((4, 3)), train=False, key=None)
    assert output.shape == (4, 2)
    assert {name: layer.shape for name, layer in features.items()} == {"one": (4, 5), "two": (4, 5)}
    assert state == new_state == {}
    other = network.init(jax.random.key(1))[0]
    assert not np.array_equal(by_path(params)[NETWORKS[name][1][0]], by_path(other)[NETWORKS[name][1][0]])


@pytest.mark.parametrize("name", NETWORKS)
def test_adamo_moves_the_hidden_kernels_towards_isometry(key, name):
    make, kernels, _ = NETWORKS[name]
    network = make()
    params, _ = network.init(key)
    tx = adamo(1e-2, isometry_strength=1.0, isometry_every=1, mask=lambda params: network.wiring.mask(params, "matrix"))

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        return optax.apply_updates(params, updates), state

    new, opt_state = params, tx.init(params)
    for _ in range(3):
        new, opt_state = step(new, opt_state)
    before, after = by_path(params), by_path(new)
    for path in before:
        if path in kernels[:2]:
            assert gram_deviation(jnp.asarray(after[path])) < 0.97 * gram_deviation(jnp.asarray(before[path]))
        else:
            np.testing.assert_array_equal(after[path], before[path])


@pytest.mark.parametrize("name", NETWORKS)
def test_redo_recycles_the_right_entries(key, name):
    make, kernels, biases = NETWORKS[name]
    network = make()
    params, state = network.init(key)
    silent = np.arange(5) == 2
    out = (0 if name == "equinox" else 1), (1 if name == "equinox" else 0)  # axes of outputs and of inputs

    def quiet(path, leaf):
        if leaf_path(path) == biases[0]:
            return jnp.where(silent, -1e3, leaf)
        return leaf

    params = jax.tree_util.tree_map_with_path(quiet, params)
    x = jax.random.normal(key, (32, 3))
    tx = optax.adam(1e-2)
    _, opt_state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    signals = Signals(
        params, {}, lambda learned, key, _: network.apply(learned.params, state, x, train=False)[1], fresh=None
    )
    method = redo(network.wiring, threshold=0.0, every=1)
    (new, _, new_opt), _, info = jax.jit(lambda: method.update(key, 1, Learned(params, {}, opt_state), (), signals))()

    features = network.apply(params, state, x, train=False, key=None)[1]
    silent_two = ~np.any(np.asarray(features["two"]) != 0, axis=0)
    assert int(info["units_reset"]) == 1 + silent_two.sum()
    wanted = {path: np.zeros(leaf.shape, bool) for path, leaf in by_path(params).items()}
    for flags, kernel, bias, reader in zip((silent, silent_two), kernels, biases, kernels[1:], strict=False):
        np.moveaxis(wanted[kernel], out[0], 0)[flags] = True
        wanted[bias][flags] = True
        np.moveaxis(wanted[reader], out[1], 0)[flags] = True
    moments = by_path(new_opt[0].mu)
    for path, leaf in by_path(new).items():
        old = by_path(params)[path]
        np.testing.assert_array_equal(leaf[~wanted[path]], old[~wanted[path]])
        np.testing.assert_array_equal(moments[path] == 0, wanted[path])
    reader = np.moveaxis(by_path(new)[kernels[1]], out[1], 0)
    np.testing.assert_array_equal(reader[2], np.zeros(5))
    feed = np.moveaxis(by_path(new)[kernels[0]], out[0], 0)[2]
    assert np.all(feed != np.moveaxis(by_path(params)[kernels[0]], out[0], 0)[2])
    assert by_path(new)[biases[0]][2] == 0.0
    outputs = [network.apply(p, state, x, train=False, key=None)[0] for p in (new, params)]
    np.testing.assert_array_equal(*outputs)


class Counting(nnx.Module):
    def __init__(self, rngs):
        self.head = nnx.Linear(3, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(3, momentum=0.5, rngs=rngs)

    def __call__(self, x, *, train, key):
        del key
        return self.head(self.norm(x, use_running_average=not train)), {}


def test_nnx_running_statistics_are_the_state(key):
    roles = {"head/kernel": "head", "head/bias": "bias", "norm/scale": "norm", "norm/bias": "norm"}
    network = from_nnx(Counting, Wiring((), roles))
    params, state = network.init(key)
    assert set(by_path(params)) == set(roles)
    x = 3.0 + jax.random.normal(key, (16, 3))
    _, _, kept = network.apply(params, state, x, train=False, key=None)
    _, _, moved = jax.jit(lambda state: network.apply(params, state, x, train=True, key=None))(state)
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    np.testing.assert_allclose(moved["norm"]["mean"], 0.5 * x.mean(0), rtol=1e-5)


class Counter(nnx.Variable):
    """State of a kind that Flax does not know."""


class Nested(nnx.Module):
    def __init__(self, rngs):
        self.inner = Counting(rngs)
        self.calls = Counter(jnp.zeros(()))

    def __call__(self, x, *, train, key):
        if train:
            self.calls[...] = self.calls[...] + 1.0
        output, features = self.inner(x, train=train, key=key)
        return output * (1.0 + self.calls[...]), features


def nested():
    roles = {"head/kernel": "head", "head/bias": "bias", "norm/scale": "norm", "norm/bias": "norm"}
    return from_nnx(Nested, Wiring((), {f"inner/{path}": role for path, role in roles.items()}))


def test_nnx_state_of_any_kind_is_read_and_written(key):
    network = nested()
    params, state = network.init(key)
    assert set(by_path(params)) == set(network.wiring.roles)
    assert set(by_path(state)) == {"calls", "inner/norm/mean", "inner/norm/var"}
    x = jax.random.normal(key, (16, 3))
    output, _, state = network.apply(params, state, x, train=False, key=None)
    assert state["calls"] == 0.0
    state["calls"] = jnp.ones(())
    np.testing.assert_allclose(network.apply(params, state, x, train=False, key=None)[0], 2.0 * output, rtol=1e-6)


def test_nnx_state_is_carried_through_transformations(key):
    network = nested()
    params, state = network.init(key)
    x = 3.0 + jax.random.normal(key, (16, 3))

    def loss(params, state):
        output, _, state = network.apply(params, state, x, train=True, key=None)
        return jnp.mean(output**2), state

    def step(_, carry):
        params, state = carry
        gradients, state = jax.grad(loss, has_aux=True)(params, state)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradients), state

    many = jax.jit(lambda carry: jax.lax.fori_loop(0, 3, step, carry))
    looped = many((params, state))
    alone = (params, state)
    for i in range(3):
        alone = step(i, alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), looped, alone)
    assert looped[1]["calls"] == 3.0
    np.testing.assert_allclose(looped[1]["inner"]["norm"]["mean"], (1 - 0.5**3) * x.mean(0), rtol=1e-5)
    together = jax.vmap(many)(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (params, state)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-6), together, looped)
    tangents = jax.jvp(lambda p: loss(p, state)[0], (params,), (params,))[1]
    assert jnp.isfinite(tangents)
