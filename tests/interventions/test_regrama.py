import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import regrama
from pliant.networks import cnn, mlp
from pliant.types import Feed, HiddenLayer, Learned, Signals, Slot, Wiring


def updated(network, params, gradients, *, step=1, opt_state=(), **options):
    method = regrama(network.wiring, **({"every": 1} | options))
    signals = Signals(gradients=gradients, features={}, probe=None, fresh=None)
    learned = Learned(params, {}, opt_state)
    return jax.jit(lambda learned, signals: method.update(jax.random.key(3), step, learned, (), signals))(
        learned, signals._replace(probe=(), fresh=())
    )


def reset_columns(old, new, layer):
    return np.any(
        np.asarray(old[layer]["kernel"] != new[layer]["kernel"]), axis=(*range(old[layer]["kernel"].ndim - 1),)
    )


@pytest.fixture
def small(key):
    network = mlp((2,), 3, widths=(4,))
    params, _ = network.init(key)
    return network, params


def test_a_unit_that_never_fires_gets_no_gradient_and_is_reset(key, small):
    network, params = small
    params["dense_0"]["bias"] = params["dense_0"]["bias"].at[2].set(-50.0)
    x = jax.random.normal(key, (32, 2))
    gradients = jax.grad(lambda p: (network.apply(p, {}, x, train=True, key=None)[0] ** 2).sum())(params)
    opt_state = optax.adam(1e-2).update(gradients, optax.adam(1e-2).init(params))[1]
    (new, _, new_opt), _, info = updated(network, params, gradients, opt_state=opt_state, threshold=0.0)
    assert int(info["units_reset"]) == 1
    assert reset_columns(params, new, "dense_0").tolist() == [False, False, True, False]
    assert new["dense_0"]["bias"][2] == 0.0
    np.testing.assert_array_equal(new["head"]["kernel"][2], np.zeros(3))
    np.testing.assert_array_equal(new_opt[0].nu["dense_0"]["kernel"][:, 2], np.zeros(2))


def test_scores_are_relative_to_the_mean_of_the_layer(small):
    """Means of |g| (1, 0.4, 2.59, 0.01): their mean is 1, so the last score is 0.01, and τ = 0.01 includes it."""
    network, params = small
    gradients = jax.tree.map(jnp.ones_like, params)
    gradients["dense_0"]["kernel"] = jnp.array([[1.0, -0.8, 2.59, 0.0], [-1.0, 0.0, 2.59, 0.02]])
    for threshold, wanted in ((0.009, 0), (0.011, 1), (0.39, 1), (0.41, 2), (-1.0, 0)):
        assert int(updated(network, params, gradients, threshold=threshold)[2]["units_reset"]) == wanted


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_the_loss_does_not_matter(small, scale):
    network, params = small
    gradients = jax.tree.map(jnp.ones_like, params)
    gradients["dense_0"]["kernel"] = scale * jnp.array([[1.0, 0.5, 2.0, 0.001]] * 2)
    new = updated(network, params, gradients)[0].params
    assert reset_columns(params, new, "dense_0").tolist() == [False, False, False, True]


def test_a_layer_without_any_gradient_is_left_alone(small):
    network, params = small
    (new, _, _), _, info = updated(network, params, jax.tree.map(jnp.zeros_like, params), threshold=1.0)
    assert int(info["units_reset"]) == 0
    jax.tree.map(np.testing.assert_array_equal, new, params)


def test_a_channel_is_a_unit(key):
    network = cnn((5, 5, 2), 2, channels=(3,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=())
    params, _ = network.init(key)
    gradients = jax.tree.map(jnp.ones_like, params)
    gradients["conv_0"]["kernel"] = gradients["conv_0"]["kernel"].at[..., 1].set(0.0).at[0, 0, 0, 1].set(0.1)
    new = updated(network, params, gradients)[0].params
    assert reset_columns(params, new, "conv_0").tolist() == [False, True, False]
    np.testing.assert_array_equal(np.asarray(new["head"]["kernel"]).reshape(25, 3, 2)[:, 1], np.zeros((25, 2)))


def test_all_kernels_of_a_unit_count_and_its_bias_does_not():
    """A gated unit has two: it is idle only if neither gets a gradient."""
    feeds = tuple(Feed(Slot(path, -1), jax.nn.initializers.ones) for path in ("gate", "up", "bias"))
    layer = HiddenLayer("mlp", 3, feeds, (Slot("down", -2),), "gelu", elementwise=True)
    wiring = Wiring((layer,), {"gate": "matrix", "up": "matrix", "bias": "bias", "down": "matrix"})
    params = {"gate": jnp.zeros((2, 3)), "up": jnp.zeros((2, 3)), "bias": jnp.zeros(3), "down": jnp.ones((3, 2))}
    gradients = params | {
        "gate": jnp.zeros((2, 3)).at[:, 0].set(1.0),
        "up": jnp.zeros((2, 3)).at[:, 1].set(1.0),
        "bias": jnp.ones(3),
    }
    method = regrama(wiring, every=1)
    signals = Signals(gradients, {}, None, None)
    new, _, info = method.update(jax.random.key(0), 1, Learned(params, {}, ()), (), signals)
    assert int(info["units_reset"]) == 1
    assert new.params["up"][0].tolist() == [0.0, 0.0, 1.0]


def test_it_fires_at_its_period_only(small):
    network, params = small
    gradients = jax.tree.map(jnp.ones_like, params)
    gradients["dense_0"]["kernel"] = gradients["dense_0"]["kernel"].at[:, 0].set(0.0)
    fired = [int(updated(network, params, gradients, every=3, step=step)[2]["units_reset"]) for step in range(1, 7)]
    assert fired == [0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ({"activation": "maxmin"}, {}, "got ReGraMa behind maxmin; wanted hidden layers in which every unit owns"),
        ({"widths": ()}, {}, "got ReGraMa on a network without hidden layers"),
        ({}, {"every": 0}, "got every=0; wanted a finite number ≥ 1"),
    ],
)
def test_refuses(network, options, message):
    wiring = mlp((3,), 2, **({"widths": (4,)} | network)).wiring
    with pytest.raises(UserError, match=message):
        regrama(wiring, **options)
