import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.diagnostics import probe_loss, random_step
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from subjects import measure, subject

COSINES = ("mean", "negative_fraction", "mean_absolute")
LANDSCAPE = ("hessian_top", *(f"gradient_cosine_{name}" for name in COSINES))
NAMES = {
    "twin_distance_from_init",
    "twin_weight_norm",
    *(f"{of}_{name}" for of in ("twin", "probe") for name in LANDSCAPE),
}


def small(key, **options):
    network = mlp((3,), 2, **({"widths": (4,), "activation": "tanh"} | options))
    params, state = network.init(key)
    inputs = jax.random.normal(key, (6, 3))
    return subject(network, params, state, inputs, followed={"brownian-twin": params}, initial=(params, state))


def test_golden_length():
    params = {"w": jnp.ones((3, 2)), "b": jnp.arange(4.0)}
    moved = random_step(jax.random.key(1), params, 0.5)
    np.testing.assert_allclose(optax.tree.norm(jax.tree.map(jnp.subtract, moved, params)), 0.5, rtol=1e-5)
    assert jax.tree.structure(moved) == jax.tree.structure(params)


def test_no_length_no_step():
    params = {"w": jnp.ones((3, 2))}
    np.testing.assert_array_equal(random_step(jax.random.key(1), params, 0.0)["w"], params["w"])


def walk(key, params, num_steps, length):
    keys = jax.random.split(key, num_steps)
    return jax.lax.scan(lambda at, key: (random_step(key, at, length), None), params, keys)[0]


def test_the_expected_squared_distance_of_a_walk():
    """n ρ², and each leaf has its share of the numbers in it."""
    start = {"w": jnp.ones((5, 6)), "b": jnp.zeros(10)}
    ends = jax.jit(jax.vmap(lambda key: walk(key, start, 20, 0.3)))(jax.random.split(jax.random.key(0), 500))
    moved = jax.tree.map(lambda end, start: np.asarray(end) - np.asarray(start)[None], ends, start)
    squares = {name: np.square(leaf).reshape(500, -1).sum(axis=1) for name, leaf in moved.items()}
    total = squares["w"] + squares["b"]
    np.testing.assert_allclose(total.mean(), 20 * 0.3**2, rtol=0.05)
    np.testing.assert_allclose([squares["w"].mean(), squares["b"].mean()], [1.8 * 0.75, 1.8 * 0.25], rtol=0.08)


def test_seeds_may_be_mapped(key):
    params = {"w": jax.random.normal(key, (3, 4)), "b": jnp.zeros((3, 2))}
    keys, lengths = jax.random.split(key, 3), jnp.array([0.1, 1.0, 10.0])
    together = jax.jit(jax.vmap(random_step))(keys, params, lengths)
    for i in range(3):
        one = random_step(keys[i], jax.tree.map(lambda leaf, i=i: leaf[i], params), lengths[i])
        np.testing.assert_allclose(together["w"][i], one["w"], rtol=1e-5, atol=1e-6)


def test_nan_in_nan_out(key):
    assert np.isnan(random_step(key, jnp.ones(2), jnp.nan)).all()
    of = small(key, widths=(2,))
    numbers = measure(
        "brownian-twin", of._replace(followed=jax.tree.map(lambda leaf: leaf * jnp.nan, of.followed))
    ).numbers
    assert {name for name, value in numbers.items() if np.isnan(value)} == {n for n in NAMES if n.startswith("twin")}


def test_parameters_are_wanted(key):
    with pytest.raises(UserError, match="got no parameters; wanted at least one array"):
        random_step(key, {}, 1.0)


def test_a_twin_at_the_start_is_the_network_under_the_probe_loss(key):
    """Against the dense Hessian of `probe_loss`, and explicit gradients of its examples."""
    of = small(key)
    numbers = measure("brownian-twin", of).numbers
    assert numbers.keys() == NAMES
    assert numbers["twin_distance_from_init"] == 0.0
    np.testing.assert_allclose(numbers["twin_weight_norm"], optax.tree.norm(of.params), rtol=1e-6)

    flat, unravel = jax.flatten_util.ravel_pytree(of.params)
    noise = jax.random.split(of.key)[0]

    def apply(params, inputs):
        return of.network.apply(params, of.state, inputs, train=False, key=None)[0]

    def errors(flat):
        """By example; the targets are those of `probe_loss`."""
        output = apply(of.params, of.probe.inputs)
        targets = output + output.std() * jax.random.normal(noise, output.shape)
        return jnp.square(apply(unravel(flat), of.probe.inputs) - targets).mean(axis=1)

    loss = probe_loss(apply, of.params, of.probe.inputs, noise)
    np.testing.assert_allclose(errors(1.1 * flat).mean(), loss(unravel(1.1 * flat)), rtol=1e-5)
    hessian = jax.jit(jax.hessian(lambda flat: loss(unravel(flat))))(flat)
    gradients = np.asarray(jax.jit(jax.jacrev(errors))(flat), np.float64)
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[~np.eye(6, dtype=bool)]
    wanted = {
        "hessian_top": np.linalg.eigvalsh(np.asarray(hessian, np.float64))[-1],
        "gradient_cosine_mean": pairs.mean(),
        "gradient_cosine_negative_fraction": (pairs < 0).mean(),
        "gradient_cosine_mean_absolute": np.abs(pairs).mean(),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose([numbers[f"probe_{name}"], numbers[f"twin_{name}"]], [value] * 2, rtol=1e-3)


def test_sharper_parameters_are_found(key):
    """Ten times the weights in the first layer, and the output is ten times as steep in the weights behind it."""
    of = small(key, activation="relu", use_bias=False)
    steep = of.params | {"dense_0": jax.tree.map(lambda leaf: 10 * leaf, of.params["dense_0"])}
    numbers = measure("brownian-twin", of._replace(params=steep)).numbers
    assert numbers["probe_hessian_top"] > 10 * numbers["twin_hessian_top"]


def test_examples_that_a_network_confuses_interfere(key):
    """With one output and nearly equal inputs all derivatives are the same: cosines are ±1, as the noise says."""
    network = mlp((3,), 1, widths=())
    params, state = network.init(key)
    inputs = 1 + 1e-3 * jax.random.normal(key, (6, 3))
    numbers = measure(
        "brownian-twin",
        subject(network, params, state, inputs, followed={"brownian-twin": params}, initial=(params, state)),
    ).numbers
    for of in ("twin", "probe"):
        negative = numbers[f"{of}_gradient_cosine_negative_fraction"]
        assert negative >= 5 / 15  # one example against five, or more of them
        np.testing.assert_allclose(numbers[f"{of}_gradient_cosine_mean"], 1 - 2 * negative, atol=1e-3)
        np.testing.assert_allclose(numbers[f"{of}_gradient_cosine_mean_absolute"], 1.0, atol=1e-3)


def test_a_convolutional_network(key):
    network = cnn((4, 4, 1), 2, channels=(2,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(4,))
    params, state = network.init(key)
    twin = random_step(key, params, 2.0)
    x = jax.random.normal(key, (5, 4, 4, 1))
    numbers = measure(
        "brownian-twin", subject(network, params, state, x, followed={"brownian-twin": twin}, initial=(params, state))
    ).numbers
    np.testing.assert_allclose(numbers["twin_distance_from_init"], 2.0, rtol=1e-5)
    assert np.isfinite(list(numbers.values())).all()


def test_one_example_is_refused(key):
    of = small(key)
    one = of._replace(probe=jax.tree.map(lambda leaf: leaf[:1], of.probe))
    with pytest.raises(UserError, match="got a probe of one example; wanted at least two"):
        measure("brownian-twin", one)
