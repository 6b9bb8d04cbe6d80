"""Baselines against PyTorch's, optax's and NumPy's optimizers, in lockstep for 100 steps from the same start.

Each optimizer sees its own gradients: of a quadratic at its own parameters, plus noise that is the same for all. In
float64: in float32 the same formula, rounded in another order, ends 3e-6 away.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.methods import METHODS, build, defaults
from pliant.networks import mlp
from pliant.types import leaf_path

NUM_STEPS, RATE = 100, 1e-3
NETWORK = mlp((4,), 3, widths=(6, 5), norm="layer")
ROLES = NETWORK.wiring.roles
DRAW = np.random.default_rng(0)
START = {
    leaf_path(path): np.asarray(leaf + 0.1, np.float64)
    for path, leaf in jax.tree_util.tree_leaves_with_path(NETWORK.init(jax.random.key(0))[0])
}
NOISE = {name: DRAW.standard_normal((NUM_STEPS, *leaf.shape)) for name, leaf in START.items()}
HIDDEN = [name for name, role in ROLES.items() if role == "matrix"]


def close(ours, others):
    """Over all steps and parameters."""
    for name, leaf in others.items():
        np.testing.assert_allclose(ours[name], leaf, rtol=0, atol=1e-6, err_msg=name)


def in_optax(tx, penalty=None, names=tuple(START)):
    """The parameters after every step, by name."""

    def run():
        def body(carry, noise):
            params, state = carry
            gradients = jax.tree.map(lambda leaf, one: 0.5 * leaf + one, params, noise)
            if penalty:
                pulls = jax.grad(lambda params: penalty.loss(params, (), None)[0])(params)
                gradients = jax.tree.map(jnp.add, gradients, pulls)
            updates, state = tx.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        start = {name: jnp.asarray(START[name]) for name in names}
        return jax.lax.scan(body, (start, tx.init(start)), {name: jnp.asarray(NOISE[name]) for name in names})[1]

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(run)())


def ours(name, **values):
    """A method; the wiring knows the leaves by their paths, flat or nested."""
    parts = build(METHODS[name], NETWORK.wiring, defaults(METHODS[name], RATE) | values)
    return in_optax(parts.optimizer, parts.penalty)


def in_torch(make, names=tuple(START)):
    """The same with an optimizer of PyTorch, whose kernels are (out, in)."""
    torch = pytest.importorskip("torch")
    params = {name: torch.nn.Parameter(torch.tensor(START[name].T)) for name in names}
    optimizer, seen = make(torch)(params.values()), []
    for i in range(NUM_STEPS):
        for name, leaf in params.items():
            leaf.grad = 0.5 * leaf.detach() + torch.tensor(NOISE[name][i].T)
        optimizer.step()
        seen.append({name: leaf.detach().numpy().T.copy() for name, leaf in params.items()})
    return {name: np.stack([step[name] for step in seen]) for name in names}


def in_numpy(rule):
    """The same by hand: `rule(gradient, memory, t) -> update`."""
    found = {}
    for name, leaf in START.items():
        params, memory, seen = leaf, {"m": 0.0, "v": 0.0}, []
        for i in range(NUM_STEPS):
            params = params + rule(0.5 * params + NOISE[name][i], memory, i + 1)
            seen.append(params)
        found[name] = np.stack(seen)
    return found


def test_they_move():
    """Far enough for the comparisons to mean something."""
    assert max(np.abs(leaf[-1] - START[name]).max() for name, leaf in ours("adam").items()) > 50 * RATE


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2, 1.0])
def test_adamw(weight_decay):
    found = ours("adamw", weight_decay=weight_decay)
    close(found, in_torch(lambda torch: lambda p: torch.optim.AdamW(p, RATE, weight_decay=weight_decay)))
    close(found, in_optax(optax.adamw(RATE, weight_decay=weight_decay)))


def test_weight_decay_is_adamw_on_kernels_and_adam_on_the_rest():
    found = ours("weight-decay", weight_decay=1.0)
    decayed = in_torch(lambda torch: lambda p: torch.optim.AdamW(p, RATE, weight_decay=1.0))
    plain = in_torch(lambda torch: lambda p: torch.optim.Adam(p, RATE))
    close(found, {name: (decayed if ROLES[name] in ("matrix", "head") else plain)[name] for name in START})


@pytest.mark.parametrize("weight_decay", [0.0, 1e-3, 1.0])
def test_l2(weight_decay):
    found = ours("l2", strength=weight_decay, parameters="all")
    close(found, in_torch(lambda torch: lambda p: torch.optim.Adam(p, RATE, weight_decay=weight_decay)))
    close(found, in_optax(optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(RATE))))


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.1)])
def test_sgd(momentum, weight_decay):
    found = ours("sgd", momentum=momentum, weight_decay=weight_decay)
    options = {"momentum": momentum, "weight_decay": weight_decay}
    close(found, in_torch(lambda torch: lambda p: torch.optim.SGD(p, RATE, **options)))


@pytest.mark.parametrize("name", ["adam", "layernorm"])
@pytest.mark.parametrize(("b1", "b2", "eps"), [(0.9, 0.999, 1e-8), (0.5, 0.9, 0.1)])
def test_adam(name, b1, b2, eps):
    found = ours(name, b1=b1, b2=b2, eps=eps)
    close(found, in_torch(lambda torch: lambda p: torch.optim.Adam(p, RATE, (b1, b2), eps)))


def test_tuned_adam_by_hand():
    """PyTorch cannot: its ϵ is outside the root, where 1e-3 is not the same (`eps_root` is inside)."""

    def rule(gradient, memory, t):
        memory["m"] = 0.9 * memory["m"] + 0.1 * gradient
        memory["v"] = 0.9 * memory["v"] + 0.1 * gradient**2
        m, v = (memory[name] / (1 - 0.9**t) for name in ("m", "v"))
        return -RATE * m / (np.sqrt(v + 1e-3) + 1e-9)

    close(ours("adam-tuned"), in_numpy(rule))
    other = in_torch(lambda torch: lambda p: torch.optim.Adam(p, RATE, betas=(0.9, 0.9), eps=1e-3))
    assert max(np.abs(ours("adam-tuned")[name] - leaf).max() for name, leaf in other.items()) > 1e-4


@pytest.mark.parametrize(("name", "step"), [("adam-tuned", 0.00316226), ("adam", 0.9999)])
def test_tuned_adam_takes_small_first_steps_for_small_gradients_where_adam_takes_whole_ones(name, step):
    optimizer = build(METHODS[name], NETWORK.wiring, defaults(METHODS[name], 1.0)).optimizer
    updates, _ = optimizer.update(jnp.float32(1e-4), optimizer.init(jnp.float32(0.0)))
    np.testing.assert_allclose(updates, -step, rtol=1e-5)


def test_muon_is_optax_muon_on_hidden_kernels_and_adam_on_the_rest():
    found, plain = ours("muon"), in_optax(optax.adam(RATE))
    own = in_optax(optax.contrib.muon(20 * RATE), names=tuple(HIDDEN))
    close(found, {name: own[name] if name in HIDDEN else plain[name] for name in START})
    nesterov = in_optax(optax.contrib.muon(RATE))
    assert np.abs(nesterov["head/bias"] - plain["head/bias"]).max() > 1e-4, "the Adam that optax's Muon brings along"


def muon_in_torch(monkeypatch, *, nesterov):
    """In float32: its five Newton–Schulz steps are otherwise in bfloat16."""
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    options = {"weight_decay": 0.0, "momentum": 0.95, "eps": 1e-8, "nesterov": nesterov}
    return in_torch(lambda torch: lambda p: torch.optim.Muon(p, RATE, **options), tuple(HIDDEN))


def test_muon_without_nesterov_is_pytorchs(monkeypatch):
    found = in_optax(optax.contrib.muon(RATE, nesterov=False), names=tuple(HIDDEN))
    close(found, muon_in_torch(monkeypatch, nesterov=False))


def test_muon_with_nesterov_differs_from_pytorchs_by_the_bias_correction(monkeypatch):
    """optax looks ahead with corrected moments, PyTorch with raw ones: equal at first, then less than a step apart."""
    found, other = ours("muon", rate_factor=1.0), muon_in_torch(monkeypatch, nesterov=True)
    for name in HIDDEN:
        apart = np.abs(found[name] - other[name]).max(axis=(1, 2))
        assert apart[0] < 1e-6
        assert 1e-6 < apart.max() < RATE
