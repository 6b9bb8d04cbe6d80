"""Every attached method against the same method in JAX, on networks with the same weights and batches."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch")

from pliant.methods import build, defaults, find
from pliant.networks import mlp
from pliant.torch import attach
from pliant.types import Fresh, Learned, Signals, by_path
from torch_twins import images, nchw, to_torch, twins

WIDTHS = (6, 5)


def cases(*given):
    """All cases in the tier `whole`, the last in every tier: each compiles a method in JAX."""
    return [pytest.param(*each, marks=[] if each is given[-1] else [pytest.mark.whole]) for each in given]


def module_of(has_norm):
    layers, num_in = [], 4
    for width in WIDTHS:
        layers += [torch.nn.Linear(num_in, width, bias=not has_norm)]
        layers += [torch.nn.LayerNorm(width, eps=1e-6)] * has_norm + [torch.nn.ReLU()]
        num_in = width
    return torch.nn.Sequential(*layers, torch.nn.Linear(num_in, 3, bias=not has_norm))


def names_of(module):
    """Torch's names by those of JAX."""
    kernels = [name for name, part in module.named_children() if isinstance(part, torch.nn.Linear)]
    names = {}
    for i, name in enumerate(kernels):
        jax_name = "head" if i == len(WIDTHS) else f"dense_{i}"
        names |= {f"{jax_name}/kernel": f"{name}.weight", f"{jax_name}/bias": f"{name}.bias"}
        names |= {f"norm_{i}/scale": f"{int(name) + 1}.weight", f"norm_{i}/bias": f"{int(name) + 1}.bias"}
    return names


def pair_of(has_norm=False):
    options = {"norm": "layer", "use_bias": False} if has_norm else {}
    network = mlp((4,), 3, widths=WIDTHS, **options)
    params, _ = network.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.05 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params)
    module = module_of(has_norm)
    names = names_of(module)
    module.load_state_dict({names[path]: torch.tensor(np.array(leaf).T) for path, leaf in by_path(params).items()})
    return network, params, module, names


def batch(step):
    rng = np.random.default_rng(step)
    return rng.standard_normal((16, 4)).astype(np.float32), rng.integers(0, 3, 16)


class InJax:
    """A training loop of a method in JAX."""

    def __init__(self, name, network, params, statistics=None, **options):
        method = find(name)
        values = defaults(method) | {"learning_rate": 1e-2} | options
        self.parts, self.network = build(method, network.wiring, values), network
        self.learned = Learned(params, statistics or {}, self.parts.optimizer.init(params))
        self.state = self.parts.intervention and self.parts.intervention.init(self.learned)
        self.penalty_state = self.parts.penalty and self.parts.penalty.init(params)
        self.step, self.info = 0, {}

    def update(self, x, y):
        self.step += 1
        params, x = self.learned.params, jnp.asarray(x, jnp.float32)

        def loss(params):
            output, features, _ = self.network.apply(params, self.learned.statistics, x, train=True, key=None)
            task = optax.softmax_cross_entropy_with_integer_labels(output, jnp.asarray(y)).mean()
            if not self.parts.penalty:
                return task, (features, ())
            penalty, state = self.parts.penalty.loss(params, self.penalty_state, None)
            return task + penalty, (features, state)

        gradients, (features, self.penalty_state) = jax.grad(loss, has_aux=True)(params)
        updates, optimizer = self.parts.optimizer.update(gradients, self.learned.optimizer, params)
        self.learned = self.learned._replace(params=optax.apply_updates(params, updates), optimizer=optimizer)
        if self.parts.intervention and self.parts.intervention.update:

            def probe(learned, key, num):
                del key, num
                return self.network.apply(learned.params, learned.statistics, x, train=False, key=None)[1]

            signals = Signals(gradients, features, probe, Fresh(self.network.init, self.parts.optimizer.init))
            self.learned, self.state, self.info = self.parts.intervention.update(
                jax.random.key(self.step), self.step, self.learned, self.state, signals
            )


def update(module, optimizer, x, y):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(module(x), torch.tensor(y)) + optimizer.penalty()
    loss.backward()
    optimizer.step()


def require_same(module, names, params, atol=2e-5):
    own = dict(module.named_parameters())
    for path, leaf in by_path(params).items():
        np.testing.assert_allclose(own[names[path]].detach().numpy().T, leaf, atol=atol, err_msg=path)


@pytest.mark.parametrize(
    ("name", "options"),
    cases(
        ("adam", {}),
        ("adamo", {"isometry_strength": 0.1, "isometry_every": 2}),
        ("l2-init", {"strength": 0.1}),
        ("spectral", {"strength": 0.1}),
        ("spectral", {"strength": 0.1, "target": "start", "include_head": False}),
        ("spectral", {"strength": 0.1, "pull_to_one": True, "include_bias": False}),
        ("weight-clipping", {"kappa": 0.8}),
        ("weight-clipping", {"kappa": 0.8, "include_head": False}),
        ("nap", {"every": 2}),
        ("nap", {"every": 2, "norms": "learned", "strength": 0.7}),
        ("l2-init+weight-clipping", {"strength": 0.1, "kappa": 1.0}),
    ),
)
def test_updates_without_chance_are_equal(name, options):
    has_norm = name == "nap" or "pull_to_one" in options
    network, params, module, names = pair_of(has_norm)
    optimizer = attach(name, module, torch.zeros(2, 4), lr=1e-2, **options)
    twin = InJax(name, network, params, **options)
    for step in range(5):
        x, y = batch(step)
        twin.update(x, y)
        update(module, optimizer, torch.tensor(x), y)
        require_same(module, names, twin.learned.params)
        for key, value in optimizer.info.items():
            np.testing.assert_allclose(value, twin.info[key], atol=1e-4, err_msg=key)


SILENT = {"conv_0": [1], "conv_1": [0, 3], "dense_0": [2, 7, 8], "dense_1": [6]}


def silenced():
    """The twins with some units dead."""
    network, params, _ = twins()
    params = jax.tree.map(jnp.copy, params)
    for name, units in SILENT.items():
        params[name]["kernel"] = params[name]["kernel"].at[..., np.array(units)].set(0.0)
        params[name]["bias"] = jnp.full_like(params[name]["bias"], 0.3).at[np.array(units)].set(-1.0)
    module = copy.deepcopy(twins().module)
    module.load_state_dict(to_torch(params))
    return network, params, module


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("redo", {"threshold": 0.3, "every": 2}),
        ("redo", {"threshold": 0.05, "every": 2, "relative": False, "max_fraction": 0.4}),
        ("redo", {"threshold": 0.3, "every": 1, "start_after": 1}),
        ("continual-backprop", {"replacement_rate": 0.3, "maturity": 1, "decay": 0.9}),
        ("continual-backprop", {"replacement_rate": 0.3, "maturity": 1, "utility": "contribution"}),
        ("continual-backprop", {"replacement_rate": 0.3, "maturity": 1, "utility": "zero-contribution"}),
        ("continual-backprop", {"replacement_rate": 0.3, "maturity": 1, "transfer_mean": False}),
        ("regrama", {"threshold": 0.2, "every": 2}),
    ],
)
def test_the_same_units_are_reset(name, options):
    network, params, module = silenced()
    x, y = images(16)
    optimizer = attach(name, module, nchw(x).float(), lr=1e-2, **options)
    assert [layer.name for layer in optimizer.wiring.layers] == [layer.name for layer in network.wiring.layers]
    twin = InJax(name, network, params, **options)
    for _ in range(2):
        twin.update(x, y)
        update(module, optimizer, nchw(x).float(), y)
        for key in ("mature_fraction", "mean_age"):
            assert key not in twin.info or optimizer.info[key] == pytest.approx(float(twin.info[key]))
        assert optimizer.info["units_reset"] == int(twin.info["units_reset"])
    assert optimizer.info["units_reset"] > 0
    after, wanted, state = module.state_dict(), to_torch(twin.learned.params), optimizer.state
    nu = to_torch(twin.learned.optimizer[0].nu)
    for key, value in after.items():
        assert torch.equal(value == 0, wanted[key] == 0) or not key.endswith("weight"), key
        exp_avg_sq = state[module.get_parameter(key)]["exp_avg_sq"]
        assert torch.equal(exp_avg_sq == 0, nu[key] == 0), key
    np.testing.assert_allclose(after["head.bias"], wanted["head.bias"], atol=1e-5)
    if name == "continual-backprop":
        for layer, own in twin.state.items():
            parts = optimizer.state_dict()["pliant"]["parts"]["continual-backprop"]
            for key in ("age", "utility", "output", "waiting", "credit"):
                np.testing.assert_allclose(parts[f"{layer}/{key}"], getattr(own, key), atol=1e-5, err_msg=key)


@pytest.mark.whole
def test_shrink_perturb_mixes_alike():
    network, params, module, names = pair_of()
    shares = {"mode": "to-init", "shrink": 0.2, "perturb": 0.8}
    optimizer = attach("shrink-perturb", module, torch.zeros(2, 4), lr=1e-2, **shares)
    twin = InJax("shrink-perturb", network, params, **shares)
    for step in range(2):
        x, y = batch(step)
        twin.update(x, y)
        update(module, optimizer, torch.tensor(x), y)
    fresh = Fresh(network.init, twin.parts.optimizer.init)
    learned, _, info = twin.parts.intervention.switch(jax.random.key(0), 1, twin.learned, twin.state, fresh)
    assert optimizer.switch()["norm_moved"] == pytest.approx(float(info["norm_moved"]), rel=1e-4)
    require_same(module, names, learned.params)
