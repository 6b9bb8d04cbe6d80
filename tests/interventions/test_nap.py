import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.interventions import nap
from pliant.networks import NETWORKS, cnn, mlp
from pliant.types import Feed, Learned, Network, Slot
from strict_types import unchecked


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def norm(leaf):
    return np.linalg.norm(np.asarray(leaf, np.float64))


class Case(NamedTuple):
    """A network with norms, its start, and NaP on it as one program for all periods and strengths."""

    network: Network
    params: dict
    output: Callable
    update: Callable


@functools.cache
def case(kind="mlp"):
    options = {"norm": "layer", "use_bias": False}
    if kind == "cnn":
        sizes = {"channels": (16, 12), "kernel_sizes": (3, 2), "strides": (1, 2), "pool": (1, 1), "widths": (12,)}
        network, shape = cnn((6, 6, 2), 3, **sizes, **options), (6, 6, 2)
    else:
        network, shape = mlp((7,), 3, widths=(6, 8), **options), (7,)
    params, state = network.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (16, *shape))

    def output(params):
        return network.apply(params, state, x, train=False, key=None)[0]

    @functools.partial(jax.jit, static_argnames="norms")
    def update(now, *, start=params, step=1, every=1, strength=1.0, norms="fixed"):
        method = nap(network.wiring, every=every, strength=strength, norms=norms)
        before = method.init(Learned(start, state, ()))
        return method.update(jax.random.key(0), step, Learned(now, state, ()), before, None)

    return Case(network, params, output, update)


def grown(params, factor=3.0):
    """Parameters with other directions, and norms that have moved."""
    noise = [0.3 * jax.random.normal(jax.random.key(i), leaf.shape) for i, leaf in enumerate(jax.tree.leaves(params))]
    return jax.tree.map(
        lambda leaf, n: factor * leaf + n, params, jax.tree.unflatten(jax.tree.structure(params), noise)
    )


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_every_hidden_matrix_goes_back_to_its_norm_and_nothing_else_moves(kind):
    of = case(kind)
    before = grown(of.params)
    (after, _, _), _, info = of.update(before)
    moved = 0.0
    for module, leaves in after.items():
        if "norm" in module:
            same(leaves, {"scale": jnp.ones_like(leaves["scale"]), "bias": jnp.zeros_like(leaves["bias"])})
        elif module == "head":
            same(leaves, before[module])
        else:
            old, new = before[module]["kernel"], leaves["kernel"]
            np.testing.assert_allclose(norm(new), norm(of.params[module]["kernel"]), rtol=1e-6)
            np.testing.assert_allclose(new / norm(new), old / norm(old), rtol=1e-5, atol=1e-8)
            moved += norm(np.asarray(old) - np.asarray(new)) ** 2
    np.testing.assert_allclose(info["norm_moved"], moved**0.5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_the_projection_changes_no_output(kind):
    """The layer norm makes up for it, up to its ε."""
    of = case(kind)
    held = of.update(grown(of.params), every=2)[0].params
    after = of.update(held)[0].params
    assert norm(after["dense_0"]["kernel"]) < 0.5 * norm(held["dense_0"]["kernel"])
    np.testing.assert_allclose(of.output(after), of.output(held), rtol=1e-5, atol=1e-5)


def test_the_gradient_grows_by_what_the_weights_shrink():
    of = case()
    held = of.update(grown(of.params), every=2)[0].params
    after = of.update(held)[0].params

    @jax.jit
    def gradient(params):
        return jax.grad(lambda params: jnp.sum(jnp.sin(of.output(params))))(params)

    before, now = gradient(held), gradient(after)
    for module in ("dense_0", "dense_1"):
        factor = norm(held[module]["kernel"]) / norm(of.params[module]["kernel"])
        wanted = factor * np.asarray(before[module]["kernel"])
        np.testing.assert_allclose(now[module]["kernel"], wanted, atol=1e-4 * np.abs(wanted).max())


def test_it_projects_at_its_period_and_holds_norms_always():
    of = case()
    before = grown(of.params)
    for step in range(1, 7):
        (after, _, _), _, info = of.update(before, step=step, every=3)
        assert (float(info["norm_moved"]) > 0) == (step % 3 == 0)
        assert (norm(after["dense_0"]["kernel"]) < norm(before["dense_0"]["kernel"])) == (step % 3 == 0)
        np.testing.assert_array_equal(after["norm_1"]["scale"], 1.0)
        np.testing.assert_array_equal(after["norm_1"]["bias"], 0.0)


def test_norms_stay_where_they_began():
    """Rosseau et al. also use a fixed scale other than 1: it is what the network starts with."""
    of = case()
    start = of.params | {"norm_0": {"scale": jnp.full(6, 2**0.5), "bias": jnp.full(6, 0.5)}}
    after = of.update(grown(start), start=start)[0].params
    same(after["norm_0"], start["norm_0"])


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_learned_norms_are_projected_scale_and_offset_together(kind):
    of = case(kind)
    start = {
        module: jax.tree.map(lambda leaf: leaf + 0.5, leaves) if "norm" in module else leaves
        for module, leaves in of.params.items()
    }
    before = grown(start)
    held, (after, _, _) = (of.update(before, start=start, every=every, norms="learned")[0] for every in (2, 1))
    same(held.params, before)
    same(after["head"], before["head"])
    for module in set(start) - {"head"}:
        now, radius = (np.hypot.reduce([norm(leaf) for leaf in each[module].values()]) for each in (before, start))
        for name, leaf in after[module].items():
            np.testing.assert_allclose(leaf, before[module][name] * radius / now, rtol=1e-5)


def test_the_next_norm_undoes_the_projection_of_a_learned_one():
    of = case()
    before = of.params | {"norm_0": grown(of.params["norm_0"])}
    after = of.update(before, norms="learned")[0].params
    assert norm(after["norm_0"]["scale"]) < 0.5 * norm(before["norm_0"]["scale"])
    np.testing.assert_allclose(of.output(after), of.output(before), rtol=1e-4, atol=1e-4)


def test_strength_0_is_a_bitwise_no_op_and_half_is_half_way():
    of = case()
    before = grown(of.params)
    (after, _, _), _, info = of.update(before, strength=0.0)
    same(after, before)
    assert float(info["norm_moved"]) == 0.0
    half = of.update(before, strength=0.5)[0].params
    now, radius = norm(before["dense_0"]["kernel"]), norm(of.params["dense_0"]["kernel"])
    np.testing.assert_allclose(norm(half["dense_0"]["kernel"]), (now + radius) / 2, rtol=1e-6)
    np.testing.assert_allclose(half["norm_0"]["scale"], (before["norm_0"]["scale"] + 1) / 2, rtol=1e-6)


def test_a_matrix_of_zeros_stays():
    of = case()
    before = of.params | {"dense_0": {"kernel": jnp.zeros((7, 6))}}
    (after, _, _), _, info = of.update(before)
    same(after["dense_0"], before["dense_0"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), after, before)  # norms are rounded
    assert float(info["norm_moved"]) < 1e-5


def test_narrow_weights_stay_narrow_with_norms_of_float32():
    of = case()
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), of.params)
    before = jax.tree.map(lambda leaf: 3 * leaf, narrow)
    (after, _, _), state, _ = of.update(before, start=narrow)
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(jnp.bfloat16)}
    assert state.radii["dense_0/kernel"].dtype == jnp.float32
    np.testing.assert_allclose(norm(after["dense_0"]["kernel"]), norm(narrow["dense_0"]["kernel"]), rtol=5e-3)


def test_the_radii_are_of_the_start_and_kept():
    of = case()
    method = nap(of.network.wiring, every=1)
    start = method.init(Learned(of.params, {}, ()))
    np.testing.assert_allclose(start.radii["dense_0/kernel"], norm(of.params["dense_0"]["kernel"]), rtol=1e-6)
    assert set(start.radii) == {"dense_0/kernel", "dense_1/kernel"}
    learned, state, _ = method.update(jax.random.key(0), 1, Learned(grown(of.params), {}, ()), start, None)
    same(state, start)
    again, _, info = method.update(jax.random.key(0), 2, learned, state, None)
    np.testing.assert_allclose(again.params["dense_0"]["kernel"], learned.params["dense_0"]["kernel"], rtol=1e-6)
    assert float(info["norm_moved"]) < 1e-6


def test_unbatched_step_keeps_a_branch_under_vmap():
    of = case()
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), of.params)
    run = jax.jit(lambda params, step: jax.vmap(lambda p: of.update(p, step=step, every=2)[0].params)(params))
    assert "stablehlo.case" in run.lower(stacked, 2).as_text()
    found = run(stacked, 2)["dense_0"]["kernel"]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("wiring", "options", "message"),
    [
        (
            lambda: mlp((3,), 2, widths=(4, 5)).wiring,
            {},
            "got Normalize-and-Project on dense_0, dense_1 without a norm of its own; wanted hidden .* norm='layer'",
        ),
        (lambda: mlp((3,), 2, widths=()).wiring, {}, "on a network without hidden layers; wanted hidden layers with"),
        (
            lambda: NETWORKS["residual-mlp"]((3,), 2, width=4, num_blocks=2, norm="layer", use_bias=False).wiring,
            {},
            "on block_0, block_1 without a norm of its own",
        ),
        (
            lambda: mlp((3,), 2, widths=(4, 5), norm="layer").wiring,
            {},
            "got .* on dense_0, dense_1 with a bias in front of the norm; wanted no biases .* use_bias=False",
        ),
        (lambda: case().network.wiring, {"every": 0}, "got every=0; wanted a finite number ≥ 1. Use the period"),
        (lambda: case().network.wiring, {"norms": "free"}, "got norms='free'; wanted 'fixed' or 'learned'. Leave it"),
        (lambda: case().network.wiring, {"strength": 1.5}, r"got strength=1.5; wanted a number in \[0, 1\]. Use 1 for"),
    ],
)
def test_refuses(wiring, options, message):
    with pytest.raises(UserError, match=message):
        unchecked(nap)(wiring(), **options)


def test_parameters_by_any_names_do():
    """A wiring made by hand, for a plain dict."""
    layer = mlp((2,), 1, widths=(2,)).wiring.layers[0]
    feeds = tuple(Feed(Slot(path, axis=-1), jax.nn.initializers.ones) for path in ("w", "gamma"))
    wiring = mlp((2,), 1, widths=(2,)).wiring._replace(
        layers=(layer._replace(feeds=feeds),), roles={"w": "matrix", "gamma": "norm", "out": "head"}
    )
    params = {"w": 2 * jnp.eye(2), "gamma": jnp.ones(2), "out": jnp.ones((2, 1))}
    method = nap(wiring, every=1)
    state = method.init(Learned(params, {}, ()))
    after, _, info = method.update(
        jax.random.key(0), 1, Learned(jax.tree.map(lambda x: 2 * x, params), {}, ()), state, None
    )
    np.testing.assert_allclose(after.params["w"], params["w"], rtol=1e-6)
    same(after.params["gamma"], params["gamma"])
    same(after.params["out"], 2 * params["out"])
    np.testing.assert_allclose(info["norm_moved"], 8**0.5, rtol=1e-6)
