"""Continual backprop in lockstep with `ccbp-pytorch`, a wrapper of PyTorch's optimizers, in its discrete mode.

It ranks units by their gradients, so it is handed the published utility; and it draws new weights from a distribution
of its own, so each replaced unit's new weights are copied from here before the next update. What is left to compare:
which units are replaced, that nothing else moves, biases, outgoing weights, and the moments of Adam.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.interventions import continual_backprop
from pliant.networks import mlp
from pliant.types import Learned, Signals

torch = pytest.importorskip("torch")
ccbp = pytest.importorskip("ccbp_pytorch")

LAYERS, WIDTH, RATE, STEPS = ("dense_0", "dense_1", "head"), 8, 0.25, 6


def _theirs(params, features):
    """Their layers and optimizer; `features` holds the batch's activations of each hidden layer when it steps."""
    linears = []
    for name in LAYERS:
        kernel = np.asarray(params[name]["kernel"])
        linear = torch.nn.Linear(*kernel.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(kernel.T))
            linear.bias.zero_()
        linears.append(linear)
    hidden = [
        ccbp.NeuronConfig(param=here.weight, bias=here.bias, outgoing_param=behind.weight, init_fn=torch.nn.init.zeros_)
        for here, behind in itertools.pairwise(linears)
    ]
    index = {id(config): number for number, config in enumerate(hidden)}

    def utility(config):
        outputs = torch.tensor(features[f"dense_{index[id(config)]}"])
        return outputs.abs().mean(dim=0) * config.outgoing_param.abs().mean(dim=0)

    optimizer = ccbp.ContinualBackprop(
        torch.optim.Adam([p for linear in linears for p in linear.parameters()], lr=1e-2),
        neuron_configs=hidden,
        continuous=False,
        replacement_rate=RATE,
        reset_interval=1,
        maturity_steps=0,
        utility_ema_decay=0.0,
        utility_fn=utility,
        second_moment_policy="zero",
    )
    return linears, optimizer


def _compare(linears, optimizer, learned, fed_anew):
    """Parameters, but for the kernels' columns of the units that were replaced just now, and all moments."""
    adam, states = learned.optimizer[0], optimizer.base_optimizer.state
    for name, linear in zip(LAYERS, linears, strict=True):
        kept = ~fed_anew.get(name, np.zeros(linear.out_features, bool))
        weight, kernel = linear.weight.detach().numpy().T, np.asarray(learned.params[name]["kernel"])
        np.testing.assert_allclose(kernel[:, kept], weight[:, kept], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(learned.params[name]["bias"], linear.bias.detach().numpy(), rtol=1e-5, atol=1e-7)
        for moment, buffer in ((adam.mu, "exp_avg"), (adam.nu, "exp_avg_sq")):
            of_weight, of_bias = (states[each][buffer].numpy() for each in (linear.weight, linear.bias))
            np.testing.assert_allclose(moment[name]["kernel"], of_weight.T, rtol=1e-5, atol=1e-8)
            np.testing.assert_allclose(moment[name]["bias"], of_bias, rtol=1e-5, atol=1e-8)


def test_the_same_units_are_replaced_and_nothing_else_moves():
    network, draw = mlp((5,), 3, widths=(WIDTH, WIDTH)), np.random.default_rng(0)
    params, _ = network.init(jax.random.key(0))
    adam, features = optax.adam(1e-2), {}
    method = continual_backprop(
        network.wiring, replacement_rate=RATE, maturity=0, decay=0.0, utility="contribution", transfer_mean=False
    )
    learned = Learned(params, {}, adam.init(params))
    state = method.init(learned)
    linears, optimizer = _theirs(params, features)

    for step in range(1, STEPS + 1):
        gradients = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), jnp.float32), params)
        features |= {name: draw.exponential(size=(16, WIDTH)).astype(np.float32) for name in LAYERS[:-1]}
        for name, linear in zip(LAYERS, linears, strict=True):
            linear.weight.grad = torch.tensor(np.asarray(gradients[name]["kernel"]).T)
            linear.bias.grad = torch.tensor(np.asarray(gradients[name]["bias"]))
        optimizer.step()

        updates, moments = adam.update(gradients, learned.optimizer)
        learned = Learned(optax.apply_updates(learned.params, updates), {}, moments)
        signals = Signals(gradients, {name: jnp.asarray(each) for name, each in features.items()}, None, None)
        learned, state, info = method.update(jax.random.key(step), step, learned, state, signals)

        replaced = {name: np.asarray(state[name].age == 0) for name in LAYERS[:-1]}
        assert info["units_reset"] == sum(flags.sum() for flags in replaced.values()) == 2 * RATE * WIDTH
        _compare(linears, optimizer, learned, replaced)
        with torch.no_grad():
            for name, linear in zip(LAYERS, linears, strict=True):
                linear.weight.copy_(torch.tensor(np.asarray(learned.params[name]["kernel"]).T))
