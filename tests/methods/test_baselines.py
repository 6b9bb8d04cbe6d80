import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import clear_moments
from pliant.methods import METHODS, build, defaults, find
from pliant.networks import NETWORKS, cnn, mlp, vit
from strict_types import unchecked

MLP = mlp((3,), 2, widths=(5, 4), norm="layer")
CNN = cnn((4, 4, 2), 3, channels=(5,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(6,))


def parts(name, network=MLP, **values):
    method = find(name)
    return build(method, network.wiring, defaults(method, 0.1) | values)


def params_of(network, seed=0):
    params, _ = network.init(jax.random.key(seed))
    return jax.tree.map(lambda leaf: leaf + 0.1, params)


def moved(name, gradients, network=MLP, **values):
    params, optimizer = params_of(network), parts(name, network, **values).optimizer
    updates, _ = optimizer.update(gradients, optimizer.init(params), params, step=1, key=jax.random.key(0))
    return updates


def still(network=MLP):
    return jax.tree.map(jnp.zeros_like, params_of(network))


def by_role(network, tree):
    """Leaves by role, in order."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found.setdefault(network.wiring.roles[name], []).append(np.asarray(leaf))
    return found


@pytest.mark.parametrize(("name", "spared"), [("adamw", ()), ("weight-decay", ("bias", "norm"))])
def test_decoupled_decay_multiplies_by_one_minus_rate_times_decay(name, spared):
    updates, params = by_role(MLP, moved(name, still(), weight_decay=0.3)), by_role(MLP, params_of(MLP))
    assert updates.keys() == {"matrix", "head", "bias", "norm"}
    for role, leaves in updates.items():
        for update, leaf in zip(leaves, params[role], strict=True):
            np.testing.assert_allclose(update, 0 * leaf if role in spared else -0.03 * leaf, rtol=1e-5)


@pytest.mark.parametrize(("parameters", "spared"), [("all", ()), ("kernels", ("bias", "norm"))])
def test_what_l2_pulls(parameters, spared):
    penalty, params = parts("l2", strength=0.3, parameters=parameters).penalty, params_of(MLP)
    gradients = jax.grad(lambda params: penalty.loss(params, penalty.init(params), None)[0])(params)
    wanted = by_role(MLP, params)
    for role, leaves in by_role(MLP, gradients).items():
        for gradient, leaf in zip(leaves, wanted[role], strict=True):
            np.testing.assert_allclose(gradient, 0 * leaf if role in spared else 0.3 * leaf, rtol=1e-5)


def test_l2_of_unknown_parameters_is_refused():
    with pytest.raises(UserError, match="got parameters='biases'; wanted 'kernels' or 'all'"):
        unchecked(METHODS["l2"].penalty)(MLP.wiring, parameters="biases")


@pytest.mark.parametrize("name", ["layernorm", "layernorm-weight-decay"])
def test_layernorm_is_in_the_network(name):
    network = NETWORKS["mlp"]((3,), 2, widths=(5, 4), **METHODS[name].network)
    assert network.wiring.roles == MLP.wiring.roles


def test_muon_steps_are_nearly_orthogonal_and_of_published_size():
    """Singular values of 20 · 0.1 · √max(1, out/in) times something in [0.68, 1.16]."""
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), still())
    updates = moved("muon", gradients)
    for kernel, factor in ((updates["dense_0"]["kernel"], (5 / 3) ** 0.5), (updates["dense_1"]["kernel"], 1.0)):
        sizes = np.linalg.svd(kernel, compute_uv=False) / (20 * 0.1 * factor)
        assert np.all((sizes > 0.67) & (sizes < 1.17)), sizes


def test_muon_takes_hidden_kernels_and_adam_the_rest():
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), still())
    found, plain = by_role(MLP, moved("muon", gradients)), by_role(MLP, moved("adam", gradients))
    for role in ("head", "bias", "norm"):
        for a, b in zip(found[role], plain[role], strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.any(np.isclose(found["matrix"][0], plain["matrix"][0]))


def test_muon_of_a_convolution_is_that_of_its_matrix():
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), still(CNN))
    kernel, gradient = moved("muon", gradients, CNN)["conv_0"]["kernel"], gradients["conv_0"]["kernel"]
    dense = mlp((18,), 2, widths=(5,))
    alone = still(dense) | {"dense_0": {**still(dense)["dense_0"], "kernel": gradient.reshape(18, 5)}}
    np.testing.assert_allclose(kernel.reshape(18, 5), moved("muon", alone, dense)["dense_0"]["kernel"], atol=1e-5)


def test_muon_orthogonalises_in_float32():
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


def test_resets_find_muons_momentum():
    params, optimizer = params_of(MLP), parts("muon").optimizer
    gradients = jax.tree.map(jnp.ones_like, params)
    _, state = optimizer.update(gradients, optimizer.init(params), params)
    where = {f"dense_0/{leaf}": jnp.ones(params["dense_0"][leaf].shape, bool) for leaf in ("kernel", "bias")}
    before, after = (
        [np.any(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(s) if "dense_0" in str(path)]
        for s in (state, clear_moments(state, where))
    )
    assert (len(before), all(before), any(after)) == (3, True, False)  # momentum; first and second moment of the bias


def test_muon_without_hidden_kernels_is_refused():
    linear = mlp((3,), 2, widths=())
    with pytest.raises(UserError, match="got a mask that selects none of 2 parameter leaves"):
        moved("muon", still(linear), linear)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("adamw", {"weight_decay": -0.1}, r"got weight_decay=-0.1; wanted a finite number ≥ 0. Use 0 for plain Adam"),
        ("l2", {"strength": -0.1}, r"got strength=-0.1; wanted a finite number ≥ 0"),
        ("muon", {"momentum": 1.0}, r"got momentum=1.0; wanted a number in \[0, 0.999999\]. 0.95 is usual"),
        ("muon", {"rate_factor": -1.0}, r"got rate_factor=-1.0; wanted a finite number ≥ 0. 20 makes"),
    ],
)
def test_refuses(name, values, message):
    with pytest.raises(UserError, match=message):
        parts(name, **values)


@pytest.mark.parametrize("name", ["weight-decay", "l2"])
def test_embeddings_are_kernels(name):
    network = vit((4, 4, 1), 2, width=4, num_heads=1, num_blocks=1, mlp_width=4)
    params = params_of(network)
    built = build(METHODS[name], network.wiring, defaults(METHODS[name]))
    if name == "l2":
        moves = jax.grad(lambda params: built.penalty.loss(params, built.penalty.init(params), None)[0])(params)
    else:
        moves, _ = built.optimizer.update(still(network), built.optimizer.init(params), params)
    assert np.any(moves["patch"]["kernel"])
    assert not np.any(moves["patch"]["bias"])
