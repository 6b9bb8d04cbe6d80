import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.networks import ACTIVATIONS
from pliant.networks._moe_mlp import moe_mlp, top_k_gates
from wiring_checks import assert_wiring_is_true

SMALL = {"widths": (4,), "num_experts": 2, "expert_width": 4, "mixture_width": 4}

SEED = 1
"""Of a router that chooses either expert now and then."""


def run(network, params, x):
    return network.apply(params, {}, x, train=False, key=None)[:2]


@pytest.mark.parametrize("top_k", [1, None])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_wiring_is_true(key, name, top_k):
    network = moe_mlp((5,), 3, activation=name, top_k=top_k, **SMALL)
    assert_wiring_is_true(network, jax.random.normal(key, (48, 5)), seed=SEED)


@pytest.mark.parametrize("options", [{"norm": "layer"}, {"use_bias": False}, {"widths": ()}, {"widths": (4, 3)}])
def test_wiring_of_variants_is_true(key, options):
    network = moe_mlp((5,), 3, **SMALL | options)
    assert_wiring_is_true(network, jax.random.normal(key, (48, 5)))


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_computes_what_it_says(key, norm, top_k):
    network = moe_mlp(
        (2, 2),
        3,
        widths=(4,),
        num_experts=3,
        top_k=top_k,
        expert_width=5,
        mixture_width=6,
        activation="tanh",
        norm=norm,
    )
    params, state = network.init(key)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    x = jax.random.normal(key, (7, 2, 2))
    out, features, state = network.apply(params, state, x, train=True, key=None)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(x, name):
        return x @ p[name]["kernel"] + p[name]["bias"]

    def units(x, name):
        if norm == "layer":
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
            x = x * p[f"{name}_norm"]["scale"] + p[f"{name}_norm"]["bias"]
        return np.tanh(x)

    h = units(dense(np.asarray(x, np.float64).reshape(7, 4), "dense_0"), "dense_0")
    logits = h @ p["router"]["kernel"]
    gates = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gates[gates < np.sort(gates, axis=1)[:, [-top_k]]] = 0.0
    assert np.all((gates > 0).sum(1) == top_k)
    mixture = 0.0
    for i in range(3):
        hidden = units(dense(h, f"expert_{i}"), f"expert_{i}")
        np.testing.assert_allclose(features[f"expert_{i}"], gates[:, [i]] * hidden, atol=2e-6)
        mixture = mixture + gates[:, [i]] * dense(hidden, f"expert_{i}_out")
    np.testing.assert_allclose(features["mixture"], units(mixture, "mixture"), atol=5e-6)
    np.testing.assert_allclose(out, dense(units(mixture, "mixture"), "head"), atol=1e-5)
    assert set(features) == {"dense_0", "expert_0", "expert_1", "expert_2", "mixture"}
    assert state == {}


def test_gates_golden():
    logits = jnp.log(jnp.array([[0.5, 0.2, 0.3], [0.25, 0.25, 0.5]]))
    np.testing.assert_allclose(top_k_gates(logits, 3), [[0.5, 0.2, 0.3], [0.25, 0.25, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(top_k_gates(logits, 2), [[0.5, 0.0, 0.3], [0.25, 0.0, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(top_k_gates(logits, 1), [[0.5, 0.0, 0.0], [0.0, 0.0, 0.5]], rtol=1e-6)


def test_one_expert_that_is_the_only_one_is_a_plain_network(key):
    network = moe_mlp((5,), 3, **SMALL | {"num_experts": 1})
    params, _ = network.init(key)
    x = jax.random.normal(key, (6, 5))
    h = x
    for name in ("dense_0", "expert_0", "expert_0_out"):
        h = jax.nn.relu(h @ params[name]["kernel"])
    np.testing.assert_allclose(run(network, params, x)[0], h @ params["head"]["kernel"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_the_router_learns_however_many_are_chosen(key, top_k):
    network = moe_mlp((5,), 3, **SMALL | {"num_experts": 3, "top_k": top_k})
    params, _ = network.init(key)
    x = jax.random.normal(key, (32, 5))
    gradient = jax.grad(lambda params: jnp.mean(run(network, params, x)[0] ** 2))(params)
    assert jnp.linalg.norm(gradient["router"]["kernel"]) > 1e-3
    reached = [bool(jnp.any(gradient[f"expert_{i}"]["kernel"] != 0)) for i in range(3)]
    assert all(reached)


def test_an_expert_that_nobody_chooses_is_silent_and_learns_nothing(key):
    network = moe_mlp((5,), 3, **SMALL | {"top_k": 1})
    params, _ = network.init(key)
    params["router"]["kernel"] = jnp.array([[1.0, -1.0]] * 4)  # rectified inputs: expert 0 always wins
    x = jax.random.normal(key, (32, 5))
    assert not np.any(run(network, params, x)[1]["expert_1"])
    gradient = jax.grad(lambda params: jnp.mean(run(network, params, x)[0] ** 2))(params)
    assert not np.any(gradient["expert_1"]["kernel"])
    assert np.any(gradient["expert_0"]["kernel"])


def test_roles_and_layers():
    wiring = moe_mlp((5,), 3, widths=(4, 3), num_experts=2).wiring
    assert [layer.name for layer in wiring.layers] == ["dense_0", "dense_1", "expert_0", "expert_1", "mixture"]
    readers = [tuple(slot.path.split("/")[0] for slot in layer.readers) for layer in wiring.layers]
    assert readers == [
        ("dense_1",),
        ("router", "expert_0", "expert_1"),
        ("expert_0_out",),
        ("expert_1_out",),
        ("head",),
    ]
    assert wiring.roles["router/kernel"] == "other"
    assert wiring.roles["expert_0/kernel"] == wiring.roles["expert_1_out/kernel"] == "matrix"
    assert wiring.head_reads() == "mixture"


@pytest.mark.parametrize(
    ("options", "expert", "mixture"),
    [
        ({}, 128, 128),
        ({"widths": (8, 6)}, 6, 6),
        ({"widths": ()}, 128, 128),
        ({"widths": (8,), "expert_width": 4}, 4, 8),
        ({"widths": (8,), "mixture_width": 4}, 8, 4),
    ],
)
def test_experts_are_as_wide_as_the_layer_before_them(options, expert, mixture):
    layers = {layer.name: layer.width for layer in moe_mlp((5,), 3, **options).wiring.layers}
    assert (layers["expert_0"], layers["mixture"]) == (expert, mixture)


def test_every_experts_kernels_start_orthogonal(key):
    params, _ = moe_mlp((12,), 4, widths=(8,), num_experts=3, expert_width=10, mixture_width=9).init(key)
    gains = {"dense_0": 2**0.5, "router": 1.0, "head": 1.0}
    gains |= {f"expert_{i}{part}": 2**0.5 for i in range(3) for part in ("", "_out")}
    assert set(params) == set(gains)
    for module, gain in gains.items():
        sigma = np.linalg.svd(params[module]["kernel"], compute_uv=False)
        np.testing.assert_allclose(sigma, np.full_like(sigma, gain), rtol=2e-6)
        assert not np.any(params[module].get("bias", 0.0))
    assert np.all(params["expert_0"]["kernel"] != params["expert_1"]["kernel"])


def test_gradients_of_gradients_under_vmap(key):
    network = moe_mlp((5,), 2, activation="tanh", norm="layer", top_k=1, **SMALL)
    params = jax.vmap(lambda key: network.init(key)[0])(jax.random.split(key, 2))
    x = jax.random.normal(key, (6, 5))

    def norm_of_gradient(params):
        gradient = jax.grad(lambda p: jnp.mean(run(network, p, x)[0] ** 2))(params)
        return sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(gradient))

    together = jax.jit(jax.vmap(jax.grad(norm_of_gradient)))(params)
    alone = jax.jit(jax.grad(norm_of_gradient))(jax.tree.map(lambda leaf: leaf[1], params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=2e-3, atol=1e-5), together, alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rleu"}, r"got the activation 'rleu'; .*Did you mean 'relu'\?"),
        ({"norm": "batch"}, "got norm='batch'; wanted 'none' or 'layer'. Leave it out"),
        ({"expert_width": 0}, "got a layer of width 0; wanted widths ≥ 1. Give positive"),
        ({"activation": "maxmin", "mixture_width": 7}, "got width 7 with activation 'maxmin'; .* of 2. Choose 8"),
        ({"num_experts": 0}, "got num_experts=0; wanted a finite number ≥ 1. Use 4"),
        ({"top_k": 0}, r"got top_k=0; wanted a number in \[1, 4\]. Leave it out"),
        ({"top_k": 5}, r"got top_k=5; wanted a number in \[1, 4\]. Leave it out"),
        ({"gain": 0.0}, "got gain=0.0; wanted a finite number ≥ 1e-12. Leave it out"),
    ],
)
def test_refuses(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=message):
        moe_mlp((5,), 2, **options)


def test_refuses_no_outputs():
    with pytest.raises(UserError, match="got num_outputs=0; wanted a finite number ≥ 1"):
        moe_mlp((5,), 0)
