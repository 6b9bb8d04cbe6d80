import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.diagnostics import DIAGNOSTICS, dense_hessian, find_diagnostic, hessian_rank
from pliant.errors import UserError
from pliant.networks import mlp
from subjects import measure, subject


def test_golden():
    found = hessian_rank(np.array([-2.0, 1.0, 0.05, 0.0]), epsilon=0.02, absolute=0.5)
    assert tuple(found) == (0.75, 0.5, 2.0)


def test_weights_of_nodes_and_what_does_not_count():
    nodes, weights = np.array([4.0, 0.001, np.nan]), np.array([0.25, 0.75, 0.0])
    assert tuple(hessian_rank(nodes, weights)) == (0.25, 0.25, 4.0)


def test_scale_changes_the_absolute_rank_alone():
    spectrum = np.array([10.0, 1.0, 0.01, 0.0])
    large, small = hessian_rank(spectrum), hessian_rank(1e-3 * spectrum)
    assert large.relative == small.relative == 0.5
    assert (large.absolute, small.absolute) == (0.5, 0.0)


def test_a_constant_loss_has_rank_zero_and_nan_has_none():
    assert tuple(hessian_rank(np.zeros(5))) == (0.0, 0.0, 0.0)
    assert np.isnan(hessian_rank(np.array([1.0, np.nan]))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"epsilon": -1.0}, "got epsilon=-1.0; wanted"), ({"absolute": np.nan}, "got absolute=nan; wanted")],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        hessian_rank(np.ones(2), **options)


def test_no_eigenvalues_are_refused():
    with pytest.raises(UserError, match="got no eigenvalues; wanted at least one"):
        hessian_rank(np.zeros(0))


@pytest.mark.parametrize("option", ["epsilon=-1", "absolute=-1", "num_steps=0", "num_starts=0"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(UserError, match=f"got hessian-rank:{option.partition('=')[0]}="):
        find_diagnostic(f"hessian-rank:{option}")


def test_the_dense_hessian_is_that_of_jax(key):
    def loss(params):
        return (jnp.tanh(params["a"] @ params["b"]) ** 3).sum()

    params = {"a": jax.random.normal(key, (2, 3)), "b": jax.random.normal(jax.random.key(1), (3,))}
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    wanted = jax.hessian(lambda flat: loss(unravel(flat)))(flat)
    np.testing.assert_allclose(dense_hessian(loss, params), wanted, rtol=1e-4, atol=1e-5)


def linear(key, num_inputs, rank):
    """A linear model on inputs of some rank: the Hessian of its squared error is 2 XᵀX / n."""
    network = mlp((num_inputs,), 1, widths=(), use_bias=False)
    directions = jnp.linalg.qr(jax.random.normal(key, (num_inputs, rank)))[0]
    x = jax.random.normal(jax.random.key(1), (64, rank)) @ directions.T
    return subject(network, *network.init(key), x, jnp.zeros((64, 1))), x


def test_diagnostic_finds_the_rank_of_a_quadratic(key):
    of, x = linear(key, 10, rank=4)
    found = measure("hessian-rank", of).numbers
    assert found["hessian_rank"] == pytest.approx(4.0)
    assert found["hessian_rank_fraction"] == pytest.approx(0.4)
    assert found["hessian_largest"] == pytest.approx(2 * np.linalg.norm(x, 2) ** 2 / 64, rel=1e-4)


def test_quadrature_agrees_with_the_whole_spectrum(key):
    """Above 512 parameters: the estimate has a standard deviation of about √(2 r / starts) / P."""
    of, _ = linear(key, 600, rank=60)
    found = measure("hessian-rank:num_starts=10:num_steps=70", of).numbers
    assert found["hessian_rank"] == pytest.approx(60.0, abs=4 * (2 * 60 / 10) ** 0.5)
    assert DIAGNOSTICS["hessian-rank"].make is not None


def test_quadrature_of_a_network_is_near_its_dense_hessian(key, monkeypatch):
    network = mlp((6,), 3, widths=(10, 10), activation="tanh")
    params, state = network.init(key)
    labels = jax.random.randint(key, (64,), 0, 3)
    of = subject(network, params, state, jax.random.normal(key, (64, 6)), labels)
    exact = measure("hessian-rank:epsilon=0.05", of).numbers
    monkeypatch.setattr("pliant.diagnostics._hessian_rank._DENSE", 0)
    found = measure("hessian-rank:epsilon=0.05:num_starts=8", of).numbers
    assert found["hessian_largest"] == pytest.approx(exact["hessian_largest"], rel=1e-2)
    assert found["hessian_rank_fraction"] == pytest.approx(exact["hessian_rank_fraction"], abs=0.05)
    assert 0.02 < exact["hessian_rank_fraction"] < 0.9


def test_diagnostic_falls_where_units_die(key):
    """Ten of twelve units are silent: the loss is flat in all that feeds and reads them."""
    network = mlp((6,), 3, widths=(12,))
    params, state = network.init(key)
    labels = jax.random.randint(key, (64,), 0, 3)
    of = subject(network, params, state, jax.random.normal(key, (64, 6)), labels)
    bias = params["dense_0"]["bias"].at[:10].set(-100.0)
    dead = params | {"dense_0": params["dense_0"] | {"bias": bias}}
    whole, collapsed = (measure("hessian-rank", of._replace(params=each)).numbers for each in (params, dead))
    assert collapsed["hessian_rank"] <= 2 * (6 + 1 + 3) + 3
    assert whole["hessian_rank"] > 2 * collapsed["hessian_rank"]


@pytest.mark.parametrize("most", [0, 512])
def test_diagnostic_of_nan_one_example_half_precision_and_seeds(key, monkeypatch, most):
    monkeypatch.setattr("pliant.diagnostics._hessian_rank._DENSE", most)
    network = mlp((3,), 2, widths=(4,))
    params, state = network.init(key)
    of = subject(network, params, state, jax.random.normal(key, (1, 3)))
    found = measure("hessian-rank", of).numbers
    assert np.isfinite(list(found.values())).all()
    broken = of._replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, params))
    assert np.isnan(list(measure("hessian-rank", broken).numbers.values())).all()
    half = of._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))
    assert measure("hessian-rank", half).numbers["hessian_largest"] == pytest.approx(found["hessian_largest"], rel=0.3)
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    diagnostic = find_diagnostic("hessian-rank")
    together = jax.jit(jax.vmap(lambda params: diagnostic.measure(of._replace(params=params))))(twice)
    again = diagnostic.summarize(jax.tree.map(lambda leaf: np.asarray(leaf[1]), together)).numbers
    assert again["hessian_largest"] == pytest.approx(found["hessian_largest"], rel=1e-3)
