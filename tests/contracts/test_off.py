"""A mechanism of strength 0 does nothing, to the bit, also where weights are infinite, not numbers or not there."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.methods import METHODS, as_arrays, build, combine, defaults, split_static, wrapped
from pliant.networks import mlp
from pliant.types import Forward, Fresh, Learned, Signals

INPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(16, 6)), jnp.float32)
PENALTIES = ("gram-penalty", "parseval", "spectral", "effective-rank", "l2-init", "wasserstein-init", "infer")
PENALTIES = (*PENALTIES, "feature-init", "c-chain")
INTERVENTIONS = ("l2-init-decoupled", "shrink-perturb", "hare-tortoise", "weight-clipping", "dash", "redo", "snr")
INTERVENTIONS = (*INTERVENTIONS, "continual-backprop", "selective-weight-reinit", "fire", "newton-schulz")
OPTIMIZERS = ("adamo", "adamw", "weight-decay", "soft-reset", "upgd")


def odd(params):
    """Weights that are infinite, not a number, about to overflow and −0, and a leaf without any."""
    kernels = {name: params[name]["kernel"] for name in ("dense_0", "dense_1", "head")}
    kernels["dense_0"] = kernels["dense_0"].at[0, 0].set(jnp.inf).at[1, 1].set(-0.0)
    kernels["dense_1"] = kernels["dense_1"].at[0, 0].set(jnp.nan)
    kernels["head"] = kernels["head"].at[0, 0].set(3e38)
    return params | {name: params[name] | {"kernel": kernel} for name, kernel in kernels.items()}


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def off(method):
    values = defaults(method, 0.1) | {name: 1 for name in defaults(method) if name.endswith("every")} | method.off
    static, traced = split_static(method, values)
    return static, as_arrays(traced)


def subject(method):
    network = wrapped(method, mlp((6,), 3, widths=(8, 5)), defaults(method))
    return network, *network.init(jax.random.key(0))


def test_penalties_of_strength_zero_have_no_value_and_no_gradient():
    method = combine(*map(METHODS.get, PENALTIES))
    (static, traced), (network, start, _) = off(method), subject(method)

    def evaluate(params, inputs):
        return network.apply(params, {}, inputs, train=False)[:2]

    @jax.jit
    def penalised(params, traced):
        penalty = build(method, network.wiring, static | traced).penalty
        state = penalty.init(start)

        def loss(seen, state):
            params, output, features = seen
            forward = Forward(INPUTS, output, features, jnp.float32(1), evaluate, lambda number: INPUTS[:number])
            return penalty.loss(params, state, forward)

        seen = (params, *evaluate(params, INPUTS))
        _, state = loss(seen, state)  # c-chain begins with the second
        return jax.value_and_grad(loss, has_aux=True)(seen, state)

    (value, _), gradient = penalised(odd(start), traced)
    assert float(value) == 0.0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_interventions_of_strength_zero_leave_every_bit():
    method = combine(*map(METHODS.get, INTERVENTIONS))
    (static, traced), (network, start, state) = off(method), subject(method)

    @jax.jit
    def intervened(params, traced):
        intervention = build(method, network.wiring, static | traced).intervention
        learned, kept = Learned(params, state, ()), intervention.init(Learned(start, state, ()))
        features = network.apply(params, state, INPUTS, train=False)[1]
        fresh = Fresh(network.init, lambda params: ())
        signals = Signals(jax.tree.map(jnp.ones_like, params), features, lambda *_: features, fresh)
        learned, kept, _ = intervention.switch(jax.random.key(1), 1, learned, kept, fresh)
        for step in (1, 2):
            learned, kept, _ = intervention.update(jax.random.key(step), step, learned, kept, signals)
        return learned.params

    assert bits(intervened(odd(start), traced)) == bits(odd(start))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_of_strength_zero_are_their_base(name):
    method = METHODS[name]
    (static, traced), (network, start, _) = off(method), subject(method)
    params = odd(start)
    gradients = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), params)

    def updates(method, values):
        tx = build(method, network.wiring, values).optimizer
        return tx.update(gradients, tx.init(params), params, step=1, key=jax.random.key(0))[0]

    base = METHODS[method.base]
    plain = jax.jit(lambda traced: updates(base, traced))(as_arrays(defaults(base, 0.1)))
    assert bits(jax.jit(lambda traced: updates(method, static | traced))(traced)) == bits(plain)


def test_projections_of_strength_zero_leave_every_bit():
    for name in ("nap", "unit-sphere"):
        method = METHODS[name]
        network = mlp((6,), 3, widths=(8, 5), **method.network)
        params, state = network.init(jax.random.key(0))
        params["dense_0"]["kernel"] = params["dense_0"]["kernel"].at[0, 0].set(jnp.inf).at[1, 1].set(-0.0)
        intervention = build(method, network.wiring, defaults(method) | method.off | {"every": 1}).intervention
        learned = Learned(params, state, ())
        after, _, _ = intervention.update(jax.random.key(0), 1, learned, intervention.init(learned), None)
        assert bits(after.params) == bits(params)


@pytest.mark.parametrize("name", ["adamo", "adamw", "soft-reset", "upgd", "adam-per-weight", "muon"])
def test_optimizers_pass_over_leaves_without_entries(name):
    """A kernel of no inputs, the bias of a layer of no units, and leaves that are None."""
    roles = {"kernel": "matrix", "empty": "matrix", "bias": "bias", "none": "bias"}
    params = {"kernel": jnp.ones((4, 3)), "empty": jnp.ones((0, 3)), "bias": jnp.ones(0), "none": None}
    wiring = mlp((6,), 3).wiring._replace(layers=(), roles=roles)
    tx = build(METHODS[name], wiring, defaults(METHODS[name]) | {"isometry_every": 1}).optimizer
    updates, _ = tx.update(params, tx.init(params), params, step=1, key=jax.random.key(0))
    shapes = {name: np.shape(leaf) for name, leaf in optax.apply_updates(params, updates).items()}
    assert shapes == {"kernel": (4, 3), "empty": (0, 3), "bias": (0,), "none": ()}
    assert np.isfinite(updates["kernel"]).all()
