import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from one_update import parts
from pliant.errors import UserError
from pliant.interventions import fire
from pliant.methods import METHODS, build, defaults
from pliant.networks import mlp
from pliant.types import Fresh, Learned, Wiring

FRESH = Fresh(init_network=lambda key: ((), {}), init_optimizer=lambda params: ())


@functools.partial(jax.jit, static_argnames="iterations")
def switched(params, *, index=1, mix=1.0, iterations=10, every_tasks=1):
    method = fire(mix=mix, iterations=iterations, every_tasks=every_tasks)
    learned = Learned(params, {}, ())
    return method.switch(jax.random.key(0), index, learned, method.init(learned), FRESH)


def singular_values(matrix):
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


def polar(matrix):
    u, _, v = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    return u @ v


def test_golden():
    """(2, 8) goes to singular values of √(8/2); what was moved is reported."""
    kernel = jnp.zeros((2, 8)).at[0, 0].set(5.0).at[1, 3].set(-1.0)
    (params, _, _), _, info = switched({"kernel": kernel})
    wanted = np.zeros((2, 8))
    wanted[0, 0], wanted[1, 3] = 2.0, -2.0
    np.testing.assert_allclose(params["kernel"], wanted, atol=1e-3)
    np.testing.assert_allclose(info["norm_moved"], np.sqrt(3.0**2 + 1.0**2), rtol=1e-3)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_kernels_become_their_polar_factors(key, shape, scale):
    kernel = jax.random.normal(key, shape)
    (params, _, _), _, _ = switched({"kernel": scale * kernel}, iterations=25)
    np.testing.assert_allclose(params["kernel"], (shape[1] / shape[0]) ** 0.5 * polar(kernel), atol=2e-5)


def test_ten_iterations_do_not_bring_all_the_way(key):
    """From 1/‖W‖_F on each brings a factor of at most 3/2: 0.03 ends at 0.97, 0.01 at 0.53."""
    (params, _, _), _, _ = switched({"kernel": jnp.diag(jnp.array([1.0, 0.03, 0.01]))})
    np.testing.assert_allclose(np.diag(params["kernel"]), [1.0, 0.967, 0.529], atol=2e-3)
    (params, _, _), _, _ = switched({"kernel": jnp.diag(jnp.array([3.0, 4.0]))}, iterations=0)
    np.testing.assert_allclose(np.diag(params["kernel"]), [0.6, 0.8], rtol=1e-6)


def test_every_slice_of_a_convolution_is_a_matrix(key):
    kernel = jax.random.normal(key, (3, 2, 4, 8))
    (params, _, _), _, _ = switched({"kernel": kernel}, iterations=25)
    for i, j in np.ndindex(3, 2):
        np.testing.assert_allclose(params["kernel"][i, j], 2**0.5 / 6 * polar(kernel[i, j]), atol=1e-5)


def test_units_keep_their_mean_square_where_layers_do_not_narrow(key):
    inputs = jax.random.normal(key, (7, 5))
    (params, _, _), _, _ = switched({"kernel": jax.random.normal(key, (5, 9))}, iterations=25)
    before, after = (np.mean(np.asarray(x) ** 2, axis=1) for x in (inputs, inputs @ params["kernel"]))
    np.testing.assert_allclose(after, before, rtol=1e-4)


def test_mix_is_the_share_of_the_isometry():
    kernel = jnp.diag(jnp.array([3.0, 3.0]))
    for mix, wanted in ((0.0, 3.0), (0.25, 2.5), (1.0, 1.0)):
        (params, _, _), _, _ = switched({"kernel": kernel}, mix=mix)
        np.testing.assert_allclose(np.diag(params["kernel"]), [wanted] * 2, rtol=1e-5)


@pytest.mark.parametrize(("index", "every_tasks", "acts"), [(1, 1, True), (1, 2, False), (4, 2, True), (1, 0, False)])
def test_it_acts_at_its_tasks_only(key, index, every_tasks, acts):
    kernel = jax.random.normal(key, (3, 3))
    (params, _, _), _, info = switched({"kernel": kernel}, index=index, every_tasks=every_tasks)
    assert bool((params["kernel"] != kernel).any()) == acts
    assert bool(info["norm_moved"] > 0) == acts
    assert fire().update is None


def test_nothing_else_is_touched(key):
    """The method leaves biases, norms and what the optimizer remembers."""
    network = mlp((3,), 2, widths=(5,), norm="layer")
    params, state = jax.jit(network.init)(key)
    tx = optax.adam(0.1)
    _, optimizer = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params))
    learned = Learned(jax.tree.map(lambda leaf: leaf + 0.5, params), state, optimizer)
    method = parts("fire", network).intervention
    after, _, _ = method.switch(key, 1, learned, method.init(learned), FRESH)
    jax.tree.map(np.testing.assert_array_equal, after.optimizer, optimizer)
    changed = jax.tree.map(lambda old, new: bool((old != new).any()), learned.params, after.params)
    assert changed == {
        "dense_0": {"bias": False, "kernel": True},
        "head": {"bias": False, "kernel": True},
        "norm_0": {"bias": False, "scale": False},
    }


def test_embeddings_are_left_out(key):
    wiring = Wiring((), {"embed/embedding": "embed", "head/kernel": "head"})
    params = {"embed": {"embedding": jax.random.normal(key, (7, 4))}, "head": {"kernel": jnp.eye(4, 2)}}
    method = build(METHODS["fire"], wiring, defaults(METHODS["fire"])).intervention
    after, _, _ = method.switch(key, 1, Learned(params, {}, ()), (), FRESH)
    np.testing.assert_array_equal(after.params["embed"]["embedding"], params["embed"]["embedding"])


def test_zeros_stay(key):
    (params, _, _), _, _ = switched({"kernel": jnp.zeros((3, 2))})
    np.testing.assert_array_equal(params["kernel"], 0.0)


def test_narrow_types_are_computed_in_float32(key):
    kernel = jax.random.normal(key, (6, 4)).astype(jnp.bfloat16)
    (params, _, _), _, _ = switched({"kernel": kernel}, iterations=25)
    assert params["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(singular_values(params["kernel"].astype(jnp.float32)), [(4 / 6) ** 0.5] * 4, rtol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": 1.5}, r"got mix=1.5; wanted a number in \[0, 1\]. Use 1 to replace kernels"),
        ({"iterations": -1}, "got iterations=-1; wanted a finite number ≥ 0. Use 10, as published"),
        ({"every_tasks": -1}, "got every_tasks=-1; wanted a finite number ≥ 0. Use 1 for every switch"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        fire(**options)


def test_masks_that_select_no_kernel_are_refused():
    with pytest.raises(UserError, match="got a mask that selects none of 1 parameter leaves"):
        fire().init(Learned({"bias": jnp.ones(3)}, {}, ()))
