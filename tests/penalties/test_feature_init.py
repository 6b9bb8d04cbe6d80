import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.networks import cnn, mlp
from pliant.penalties import feature_init
from pliant.supervised import RunConfig, make_plan
from pliant.types import Forward, Head, Wiring

X = jax.random.normal(jax.random.key(1), (6, 3))
NETWORK = mlp((3,), 2, widths=(5, 4), activation="tanh")
START, _ = NETWORK.init(jax.random.key(0))
NOW = jax.tree.map(lambda leaf: leaf + 0.1, START)


def forward_of(network, params, x, state=None):
    def evaluate(params, inputs):
        return network.apply(params, state or {}, inputs, train=False, key=None)[:2]

    return Forward(x, *evaluate(params, x), jnp.float32(0.0), evaluate, lambda number: x)


def value_and_gradient(penalty, start, now, network=NETWORK, x=X):
    state = penalty.init(start)
    return jax.value_and_grad(lambda params: penalty.loss(params, state, forward_of(network, params, x))[0])(now)


def features(params):
    return np.asarray(forward_of(NETWORK, params, X).features["dense_1"])


def test_golden():
    """Features (1, 2) and (3, 1), at the start (0, 0) and (1, 1): (1 + 4 + 4 + 0) / 2 examples."""
    wiring = Wiring((), {}, {"output": Head((), "hidden")})
    now, start = jnp.array([[1.0, 2.0], [3.0, 1.0]]), jnp.array([[0.0, 0.0], [1.0, 1.0]])
    forward = Forward(X, now, {"hidden": now}, jnp.float32(0), lambda p, x: (p, {"hidden": p}), lambda number: X)
    assert float(feature_init(wiring, strength=0.5).loss(now, start, forward)[0]) == 0.5 * 9 / 2


def test_of_a_network():
    value, gradient = value_and_gradient(feature_init(NETWORK.wiring, strength=0.3), START, NOW)
    moved = features(NOW) - features(START)
    np.testing.assert_allclose(value, 0.3 * (moved**2).sum(1).mean(), rtol=1e-5)
    assert np.any(gradient["dense_0"]["kernel"])
    assert not np.any(gradient["head"]["kernel"]), "the head is behind the features"


def test_nothing_at_the_start():
    value, gradient = value_and_gradient(feature_init(NETWORK.wiring), START, START)
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_weights_that_compute_the_same_are_not_pulled():
    """Exchanging two units of the first layer moves the weights, but no feature."""
    swap = jnp.array([1, 0, 2, 3, 4])
    swapped = {**START, "dense_0": jax.tree.map(lambda leaf: leaf[..., swap], START["dense_0"])}
    swapped["dense_1"] = {**START["dense_1"], "kernel": START["dense_1"]["kernel"][swap]}
    value, _ = value_and_gradient(feature_init(NETWORK.wiring), START, swapped)
    assert float(value) < 1e-13


def test_the_start_gets_no_gradient():
    penalty = feature_init(NETWORK.wiring)
    state, forward = penalty.init(START), forward_of(NETWORK, NOW, X)
    gradient = jax.grad(lambda state: penalty.loss(NOW, state, forward)[0])(state)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_positions_are_averaged(key):
    network = cnn((4, 4, 1), 2, channels=(3,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=())
    start, _ = network.init(key)
    now, x = jax.tree.map(lambda leaf: leaf + 0.1, start), jax.random.normal(key, (5, 4, 4, 1))
    value, _ = value_and_gradient(feature_init(network.wiring, strength=1.0), start, now, network, x)
    moved = forward_of(network, now, x).features["conv_0"] - forward_of(network, start, x).features["conv_0"]
    np.testing.assert_allclose(value, np.square(moved).sum(-1).mean(), rtol=1e-5)


def test_strength_zero_is_exactly_zero():
    value, gradient = value_and_gradient(feature_init(NETWORK.wiring, strength=0.0), START, NOW)
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_state_is_a_copy_that_stays():
    penalty = feature_init(NETWORK.wiring)
    _, after = penalty.loss(NOW, penalty.init(START), forward_of(NETWORK, NOW, X))
    jax.tree.map(np.testing.assert_array_equal, after, START)


def test_negative_strength_is_refused():
    with pytest.raises(UserError, match=r"got strength=-0.1; wanted a finite number ≥ 0. Use 0 to switch"):
        feature_init(NETWORK.wiring, strength=-0.1)


def test_a_linear_model_is_refused():
    with pytest.raises(UserError, match="got a network whose head reads the inputs; wanted hidden features to keep"):
        feature_init(mlp((3,), 2, widths=()).wiring)


def test_the_method_refuses_linear_models():
    with pytest.raises(UserError, match="reads the inputs; wanted"):
        make_plan(RunConfig(methods=("feature-init",), widths=()))


def test_features_of_every_branch_are_kept():
    wiring = Wiring((), {}, {"policy": Head((), "actor"), "value": Head((), "critic"), "third": Head((), "actor")})
    penalty = feature_init(wiring, strength=0.5)

    def evaluate(params, x):
        return {}, {"actor": x * params["actor"], "critic": x * params["critic"]}

    start, now = (
        {"actor": jnp.float32(1), "critic": jnp.float32(1)},
        {"actor": jnp.float32(3), "critic": jnp.float32(4)},
    )
    x = jnp.ones((2, 3))
    forward = Forward(x, *evaluate(now, x), jnp.float32(0), evaluate, lambda number: x)
    value, _ = penalty.loss(now, penalty.init(start), forward)
    assert float(value) == 0.5 * (3 * 2**2 + 3 * 3**2)
