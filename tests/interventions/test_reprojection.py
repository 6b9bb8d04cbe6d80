import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from one_update import parts
from pliant.errors import UserError
from pliant.interventions import reprojection
from pliant.methods import METHODS
from pliant.networks import mlp, orthogonal
from pliant.types import Learned, Signals

SIGNALS = Signals({}, {}, None, None)


def updated(method, learned, step=1):
    return method.update(jax.random.key(0), step, learned, method.init(learned), SIGNALS)


@jax.jit
def reprojected(kernel, step=1, every=1):
    """The kernel after that update, and what is told."""
    (kernel, _, _), _, info = updated(reprojection(every=every), Learned(kernel, {}, ()), step)
    return kernel, info


def with_condition(key, shape, condition):
    """A kernel with singular values from 1 down to 1 over `condition`, and its polar factor."""
    left, right = jax.random.split(key)
    size = min(shape)
    u, v = orthogonal(1.0)(left, (shape[0], size)), orthogonal(1.0)(right, (shape[1], size))
    return (u * jnp.linspace(1 / condition, 1, size)[None]) @ v.T, u @ v.T


def after_an_update(params):
    """Adam's state with moments that are not 0."""
    tx = optax.adam(0.1)
    return tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params))[1]


def network_with(key, condition, **options):
    """A network of Newton–Schulz layers whose weights have that condition number."""
    network = mlp((6,), 3, widths=(8, 8), linear="newton-schulz", **options)
    params, state = jax.jit(network.init)(key)
    for i, name in enumerate(("dense_0", "dense_1")):
        kernel, _ = with_condition(jax.random.fold_in(key, i), params[name]["kernel"].shape, condition)
        params[name] = params[name] | {"kernel": kernel}
    return network, Learned(params, state, after_an_update(params))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("condition", [1.5, 100.0])
def test_kernels_become_their_polar_factors(key, shape, scale, condition):
    kernel, polar = with_condition(key, shape, condition)
    after, info = reprojected(scale * kernel)
    np.testing.assert_allclose(after, polar, atol=1e-4)
    np.testing.assert_allclose(info["norm_moved"], np.linalg.norm(polar - scale * kernel), rtol=1e-3)


@pytest.mark.parametrize("activation", ["relu", "maxmin"])
def test_the_network_goes_on_computing_what_it_did(key, activation):
    """Up to 10⁻³, for condition numbers up to 8; but its raw weights are isometries again."""
    network, learned = network_with(key, 5.0, activation=activation)
    after, _, info = updated(parts("newton-schulz", network, every=1).intervention, learned)
    x = jax.random.normal(key, (16, 6))
    output = jax.jit(lambda of: network.apply(of.params, of.statistics, x, train=False, key=None)[0])
    old, new = output(learned), output(after)
    np.testing.assert_allclose(new, old, atol=1e-3)
    assert float(info["norm_moved"]) > 1
    for name in ("dense_0", "dense_1"):
        sigma = np.linalg.svd(np.asarray(after.params[name]["kernel"]), compute_uv=False)
        np.testing.assert_allclose(sigma, 1.0, atol=1e-5)


def test_gradients_reach_the_weights_evenly_again(key):
    """Behind a small singular value they are large: about 1/σ."""
    network, learned = network_with(key, 50.0)
    x = jax.random.normal(key, (16, 6))

    @jax.jit
    def size(of):
        def loss(params):
            return jnp.sum(network.apply(params, of.statistics, x, train=False, key=None)[0] ** 2)

        return jnp.linalg.norm(jax.grad(loss)(of.params)["dense_1"]["kernel"])

    after, _, _ = updated(parts("newton-schulz", network, every=1).intervention, learned)
    assert size(after) < size(learned) / 3


@pytest.mark.parametrize("name", ["newton-schulz", "newton-schulz-maxmin"])
def test_nothing_but_hidden_kernels_is_touched(key, name):
    network, learned = network_with(key, 5.0, activation=METHODS[name].network.get("activation", "relu"))
    after, _, _ = updated(parts(name, network, every=1).intervention, learned)
    jax.tree.map(np.testing.assert_array_equal, after.optimizer, learned.optimizer)
    jax.tree.map(np.testing.assert_array_equal, after.statistics, learned.statistics)
    changed = jax.tree.map(lambda old, new: bool((old != new).any()), learned.params, after.params)
    hidden = {"bias": False, "kernel": True}
    assert changed == {"dense_0": hidden, "dense_1": hidden, "head": {"bias": False, "kernel": False}}


def test_moments_can_be_cleared_with_the_kernels(key):
    network, learned = network_with(key, 5.0)
    method = parts("newton-schulz", network, every=2, clears_moments=True).intervention
    after, _, _ = updated(method, learned, step=2)
    for name in ("mu", "nu"):
        moments = getattr(after.optimizer[0], name)
        assert not np.any(moments["dense_0"]["kernel"])
        assert np.all(np.asarray(moments["dense_0"]["bias"]) != 0)
        assert np.all(np.asarray(moments["head"]["kernel"]) != 0)
    assert int(after.optimizer[0].count) == 1
    between, _, _ = updated(method, learned, step=3)
    jax.tree.map(np.testing.assert_array_equal, between, learned)


@pytest.mark.parametrize(("every", "due"), [(1, (1, 2, 3, 4)), (2, (2, 4)), (3, (3,)), (0, ())])
def test_it_fires_at_its_period_only(key, every, due):
    kernel = jax.random.normal(key, (3, 3))
    for step in range(1, 5):
        after, info = reprojected(kernel, step, every)
        assert bool((after != kernel).any()) == (step in due)
        assert bool(info["norm_moved"] > 0) == (step in due)


def test_unbatched_step_keeps_a_branch_under_vmap(key):
    kernels = jax.random.normal(key, (2, 3, 3))
    update = jax.jit(lambda kernels, step: jax.vmap(lambda kernel: reprojected(kernel, step, 2)[0])(kernels))
    assert "stablehlo.case" in update.lower(kernels, 2).as_text()
    np.testing.assert_array_equal(update(kernels, 1), kernels)
    np.testing.assert_allclose(update(kernels, 2)[1], reprojected(kernels[1])[0], atol=1e-6)


def test_narrow_types_stay(key):
    after, info = reprojected(jax.random.normal(key, (6, 4)).astype(jnp.bfloat16))
    assert (after.dtype, info["norm_moved"].dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": -1}, "got every=-1; wanted a finite number ≥ 0. Use the period in updates, 10,000 by default"),
        ({"iterations": -1}, "got iterations=-1; wanted a finite number ≥ 0. Use 20"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        reprojection(**options)


def test_masks_that_select_no_kernel_are_refused():
    with pytest.raises(UserError, match="got a mask that selects none of 1 parameter leaves"):
        reprojection().init(Learned({"bias": jnp.ones(3)}, {}, ()))
