import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from one_update import CNN, MLP, by_role, moved, params_of, parts, still
from pliant.errors import UserError
from pliant.interventions import clear_moments
from pliant.networks import mlp


def test_steps_are_nearly_orthogonal_and_of_published_size():
    """Singular values of 20 · 0.1 · √max(1, out/in) times something in [0.68, 1.16]."""
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), still())
    updates = moved("muon", gradients)
    for kernel, factor in ((updates["dense_0"]["kernel"], (5 / 3) ** 0.5), (updates["dense_1"]["kernel"], 1.0)):
        sizes = np.linalg.svd(kernel, compute_uv=False) / (20 * 0.1 * factor)
        assert np.all((sizes > 0.67) & (sizes < 1.17)), sizes


def test_it_takes_hidden_kernels_and_adam_the_rest():
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), still())
    found, plain = by_role(MLP, moved("muon", gradients)), by_role(MLP, moved("adam", gradients))
    for role in ("head", "bias", "norm"):
        for a, b in zip(found[role], plain[role], strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.any(np.isclose(found["matrix"][0], plain["matrix"][0]))


def test_a_convolution_is_updated_as_its_matrix():
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), still(CNN))
    kernel, gradient = moved("muon", gradients, CNN)["conv_0"]["kernel"], gradients["conv_0"]["kernel"]
    dense = mlp((18,), 2, widths=(5,))
    alone = still(dense) | {"dense_0": {**still(dense)["dense_0"], "kernel": gradient.reshape(18, 5)}}
    np.testing.assert_allclose(kernel.reshape(18, 5), moved("muon", alone, dense)["dense_0"]["kernel"], atol=1e-5)


def test_it_orthogonalises_in_float32():
    """In bfloat16 the products of five steps would be off by more than the rounding of the update."""
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params_of(MLP))
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), narrow)
    optimizer = parts("muon").optimizer
    updates, state = optimizer.update(gradients, optimizer.init(narrow), narrow)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradients)
    wanted = moved("muon", wide)["dense_0"]["kernel"]
    np.testing.assert_allclose(updates["dense_0"]["kernel"].astype(jnp.float32), wanted, rtol=1e-2, atol=1e-2)
    after = optax.apply_updates(narrow, updates)
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(jnp.bfloat16)}
    assert jax.tree.map(jnp.shape, optimizer.init(narrow)) == jax.tree.map(jnp.shape, state)


def test_resets_find_the_momentum():
    params, optimizer = params_of(MLP), parts("muon").optimizer
    gradients = jax.tree.map(jnp.ones_like, params)
    _, state = optimizer.update(gradients, optimizer.init(params), params)
    where = {f"dense_0/{leaf}": jnp.ones(params["dense_0"][leaf].shape, bool) for leaf in ("kernel", "bias")}
    before, after = (
        [np.any(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(s) if "dense_0" in str(path)]
        for s in (state, clear_moments(state, where))
    )
    assert (len(before), all(before), any(after)) == (3, True, False)  # momentum; first and second moment of the bias


def test_networks_without_hidden_kernels_are_refused():
    linear = mlp((3,), 2, widths=())
    with pytest.raises(UserError, match="got a mask that selects none of 2 parameter leaves"):
        moved("muon", still(linear), linear)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"momentum": 1.0}, r"got momentum=1.0; wanted a number in \[0, 0.999999\]. 0.95 is usual"),
        ({"rate_factor": -1.0}, r"got rate_factor=-1.0; wanted a finite number ≥ 0. 20 makes"),
    ],
)
def test_refuses(values, message):
    with pytest.raises(UserError, match=message):
        parts("muon", **values)
