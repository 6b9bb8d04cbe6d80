import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import _ntk, ntk
from pliant.errors import UserError
from pliant.networks import cnn, from_linen, mlp, resnet18, vit
from pliant.types import Wiring
from strict_types import unchecked

few = settings(max_examples=8, deadline=None, database=None)


def linear(params, x):
    y = x @ params["kernel"]
    return y + params["bias"][None] if "bias" in params else y


def compiled(function):
    """Quickly, since it runs once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def kernel(function, params, inputs, mode="full"):
    return compiled(lambda params, inputs: ntk(function, params, inputs, mode=mode))(params, inputs)


def function_of(network, key):
    params, state = compiled(network.init)(key)
    return lambda p, x: network.apply(p, state, x, train=False, key=None)[0], params


def jacobian(function, params, inputs):
    """(N·C, P), leaf by leaf, in float64."""
    leaves = jax.tree.leaves(compiled(jax.jacrev(function))(params, inputs))
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1, leaf[0, 0].size) for leaf in leaves], axis=1)


def explicit(function, params, inputs):
    rows = jacobian(function, params, inputs)
    return rows @ rows.T


def close(found, wanted, tolerance=1e-5):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(np.abs(wanted).max(), 1e-30))


def mean_diagonal(matrix, num_outputs):
    num = len(matrix) // num_outputs
    return np.einsum("acbc->ab", np.asarray(matrix).reshape(num, num_outputs, num, num_outputs)) / num_outputs


def test_orthonormal_inputs_give_the_identity():
    inputs = jnp.asarray(np.linalg.qr(np.random.default_rng(0).standard_normal((5, 4)))[0].T, jnp.float32)
    params = {"kernel": jnp.ones((5, 3))}
    close(kernel(linear, params, inputs).matrix, np.eye(12), 1e-6)
    close(kernel(linear, params, inputs, mode="trace").matrix, np.eye(4), 1e-6)


def test_a_bias_adds_ones(key):
    inputs = jax.random.normal(key, (4, 5))
    found = kernel(linear, {"kernel": jnp.ones((5, 3)), "bias": jnp.zeros(3)}, inputs)
    x = np.asarray(inputs, np.float64)
    close(found.matrix, np.kron(x @ x.T + 1, np.eye(3)))
    np.testing.assert_allclose(found.traces["bias"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(found.traces["kernel"], (x**2).sum() / 4, rtol=1e-5)


def test_rows_are_ordered_by_example():
    """f(x) = (w₀ x, 2 w₁ x): Θ is x_a x_b on the first output, four times that on the second."""
    found = kernel(lambda w, x: x * w[None] * jnp.array([[1.0, 2.0]]), jnp.ones(2), jnp.array([[1.0], [3.0]]))
    close(found.matrix, [[1, 0, 3, 0], [0, 4, 0, 12], [3, 0, 9, 0], [0, 12, 0, 36]])
    assert list(found.traces) == [""]
    assert float(found.traces[""]) == 50 / 4


def test_decomposition_of_a_relu_network(key):
    """Equations 7 and 8, by hand: Grams of activations times Grams of sensitivities, without biases."""
    function, params = function_of(mlp((4,), 3, widths=(6, 5), use_bias=False), key)
    inputs = jax.random.normal(key, (7, 4))
    kernels = [np.asarray(params[name]["kernel"], np.float64) for name in ("dense_0", "dense_1", "head")]
    hidden = [np.asarray(inputs, np.float64)]
    for weights in kernels[:-1]:
        hidden.append(np.maximum(hidden[-1] @ weights, 0))
    sensitivity = np.broadcast_to(np.eye(3), (7, 3, 3))
    wanted = np.zeros((7, 3, 7, 3))
    for weights, below in zip(kernels[::-1], hidden[::-1], strict=True):
        wanted += np.einsum("aco,bdo->acbd", sensitivity, sensitivity) * (below @ below.T)[:, None, :, None]
        sensitivity = (sensitivity @ weights.T) * (below > 0)[:, None]
    close(kernel(function, params, inputs).matrix, wanted.reshape(21, 21))


NETWORKS = {
    "norm": (lambda: mlp((4,), 2, widths=(5, 6), norm="layer"), (4,)),
    "cnn": (
        lambda: cnn((4, 4, 4), 2, channels=(4,), kernel_sizes=(3,), strides=(1,), pool=(2,), widths=(6,)),
        (4, 4, 4),
    ),
    "resnet": (lambda: resnet18((4, 4, 1), 2, width=4, num_blocks=(1,)), (4, 4, 1)),
    "vit": (lambda: vit((4, 4, 1), 2, patch_size=2, width=6, num_blocks=1, num_heads=2), (4, 4, 1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_product_of_jacobians(key, name):
    make, shape = NETWORKS[name]
    function, params = function_of(make(), key)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    inputs = jax.random.normal(key, (3, *shape))
    wanted = explicit(function, params, inputs)
    found = kernel(function, params, inputs)
    close(found.matrix, wanted)
    assert len(found.traces) == len(jax.tree.leaves(params))
    np.testing.assert_allclose(sum(found.traces.values()), np.trace(wanted) / len(wanted), rtol=1e-5)


@pytest.mark.parametrize("name", ["norm", "cnn"])
def test_blocks_of_examples_leaves_and_outputs(key, name, monkeypatch):
    """The mean over outputs, and the same with so little memory that everything is done bit by bit."""
    make, shape = NETWORKS[name]
    function, params = function_of(make(), key)
    inputs = jax.random.normal(key, (3, *shape))
    wanted = mean_diagonal(explicit(function, params, inputs), 2)
    close(kernel(function, params, inputs, "trace").matrix, wanted)
    monkeypatch.setattr(_ntk, "_MOST_NUMBERS", 200)
    monkeypatch.setattr(_ntk, "_MOST_ROWS", 5)
    found = kernel(function, params, inputs, "trace")
    close(found.matrix, wanted)
    np.testing.assert_allclose(sum(found.traces.values()), np.trace(wanted) / 3, rtol=1e-5)


def scanned(params, x):
    """Two layers with stacked kernels, which are read by a loop that returns more than one array."""

    def layer(h, kernel):
        return jnp.tanh(h @ kernel), (jnp.argmax(h, axis=-1), h)

    last, (_, hidden) = jax.lax.scan(layer, x, params["kernels"])
    return last + hidden[1]


PROGRAMS = {
    "tied": (lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"].T, {"w": (4, 4)}),
    "squared": (lambda p, x: x @ (p["w"] @ p["w"]), {"w": (4, 4)}),
    "elementwise": (lambda p, x: x * jnp.exp(p["w"])[None] + jnp.sin(p["w"])[None], {"w": (4,)}),
    "returned": (
        lambda p, x: jnp.concatenate([p["w"] + 0 * x, p["unused"] * 0 + x], 1),
        {"w": (1, 4), "unused": (1, 4)},
    ),
    "alone": (lambda p, x: jnp.broadcast_to(p["w"], x.shape), {"w": (1, 4)}),
    "compiled": (jax.jit(lambda p, x: jax.nn.relu(jax.jit(linear)(p, x))), {"kernel": (4, 3), "bias": (3,)}),
    "checkpointed": (jax.checkpoint(lambda p, x: jnp.tanh(x @ p["w"]) * p["s"]), {"w": (4, 3), "s": (1, 1)}),
    "transposed": (lambda p, x: jnp.tanh(x @ p["w"].reshape(3, 4).T), {"w": (12,)}),
    "scanned": (scanned, {"kernels": (2, 4, 4)}),
    "two inputs": (lambda p, x: (x @ p["a"]) * (x[:, ::-1] @ p["b"]), {"a": (4, 2), "b": (4, 2)}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_however_a_leaf_is_read(key, name, monkeypatch):
    function, shapes = PROGRAMS[name]
    params = {name: jax.random.normal(jax.random.fold_in(key, i), s) for i, (name, s) in enumerate(shapes.items())}
    inputs = jax.random.normal(key, (3, 4))
    each = jax.vmap(lambda p, x: function(p, x[None])[0], (None, 0))
    monkeypatch.setattr(_ntk, "_MOST_NUMBERS", 20)
    close(kernel(function, params, inputs).matrix, explicit(each, params, inputs))


def test_tables_that_are_looked_up(key, monkeypatch):
    """Inputs may be any pytree, and integers; what is no float in the parameters stays as it is."""
    params = {"table": jax.random.normal(key, (7, 3)), "offset": jnp.array(1)}

    def function(params, inputs):
        return params["table"][inputs["tokens"] + params["offset"]].sum(axis=1) * inputs["scale"]

    inputs = {"tokens": jnp.array([[0, 1], [1, 1], [4, 5]]), "scale": jnp.array([[1.0], [2.0], [3.0]])}
    counts = np.array([[1, 1, 0, 0, 0, 0], [0, 4, 0, 0, 0, 0], [0, 0, 0, 0, 3, 3]])
    for most in (2**24, 20):
        monkeypatch.setattr(_ntk, "_MOST_NUMBERS", most)
        found = kernel(function, params, inputs)
        close(found.matrix, np.kron(counts @ counts.T, np.eye(3)))
        assert list(found.traces) == ["table"]


def test_other_module_libraries(key, monkeypatch):
    """The convolution is the stock one; its kernel is too large for the memory that there is, the dense one is not."""
    monkeypatch.setattr(_ntk, "_MOST_NUMBERS", 200)

    class Net(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            hidden = flax.linen.relu(flax.linen.Conv(4, (2, 2))(x))
            return flax.linen.Dense(2)(hidden.mean(axis=(1, 2))), {"hidden": hidden}

    function, params = function_of(from_linen(Net(), jnp.zeros((1, 3, 3, 2)), Wiring((), {})), key)
    inputs = jax.random.normal(key, (4, 3, 3, 2))
    close(kernel(function, params, inputs).matrix, explicit(function, params, inputs))


def test_a_gradient_step_lowers_the_loss_as_predicted(key):
    function, params = function_of(mlp((4,), 3, widths=(8, 8), norm="layer"), key)
    inputs, targets = jax.random.normal(key, (6, 4)), jax.random.normal(key, (6, 3))

    def loss(params):
        return jnp.square(function(params, inputs) - targets).mean()

    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        before, gradients = compiled(jax.value_and_grad(loss))(params)
        g = 2 * (function(params, inputs) - targets) / 18
        found = kernel(function, params, inputs.astype(jnp.float64))
        assert found.matrix.dtype == jnp.float64
        after = compiled(loss)(jax.tree.map(lambda leaf, d: leaf - 1e-6 * d, params, gradients))
        predicted = 1e-6 * g.ravel() @ found.matrix @ g.ravel()
        np.testing.assert_allclose(before - after, predicted, rtol=1e-4)


def test_top_of_the_hessian_of_squared_error_at_zero_residual(key):
    """λ₁ of the Hessian is 2 λ₁(Θ) / n for a mean over n outputs."""
    function, params = function_of(mlp((3,), 2, widths=(4,), activation="tanh"), key)
    inputs = jax.random.normal(key, (5, 3))
    targets = function(params, inputs)
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    hessian = compiled(jax.hessian(lambda flat: jnp.square(function(unflatten(flat), inputs) - targets).mean()))(flat)
    top = np.linalg.eigvalsh(kernel(function, params, inputs).matrix)[-1]
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian)[-1], 2 * top / 10, rtol=1e-4)


def test_isometric_layers_hand_on_the_gram_of_the_inputs(key):
    """MaxMin and square orthogonal kernels keep norms: every layer adds ‖x‖² to the diagonal, the head too."""
    function, params = function_of(mlp((6,), 6, widths=(6, 6), activation="maxmin", use_bias=False), key)
    inputs = jax.random.normal(key, (4, 6))
    found = kernel(function, params, inputs)
    norms = np.square(np.asarray(inputs, np.float64)).sum(axis=1)
    close(np.diag(found.matrix), np.repeat(3 * norms, 6))
    np.testing.assert_allclose(list(found.traces.values()), [norms.mean()] * 3, rtol=1e-5)
    blocks = np.asarray(found.matrix).reshape(4, 6, 4, 6)
    close(blocks[0, :, 0], 3 * norms[0] * np.eye(6))


def test_scaled_layers_in_front_of_a_norm(key):
    """Kernels times 4 leave the function alone, and their share of the trace is a sixteenth."""
    function, params = function_of(mlp((4,), 2, widths=(8,), norm="layer", use_bias=False), key)
    inputs = 10 * jax.random.normal(key, (5, 4))
    scaled = params | {"dense_0": {"kernel": 4 * params["dense_0"]["kernel"]}}
    before, after = (kernel(function, p, inputs).traces for p in (params, scaled))
    np.testing.assert_allclose(after["dense_0/kernel"], before["dense_0/kernel"] / 16, rtol=1e-3)
    np.testing.assert_allclose(after["head/kernel"], before["head/kernel"], rtol=1e-3)


@jax.jit
def relu_kernel(params, inputs):
    return ntk(lambda p, x: jax.nn.relu(x @ p["in"]) @ p["out"], params, inputs, mode="trace").matrix


@given(st.permutations(range(4)), st.floats(0.1, 10), st.integers(0, 2**31))
@few
def test_order_and_scale_of_the_examples(order, scale, seed):
    """Without biases, a ReLU network is homogeneous: the kernel of c·x is c² times that of x."""
    params = {"in": jax.random.normal(jax.random.key(seed), (3, 4)), "out": jnp.ones((4, 2))}
    inputs = jax.random.normal(jax.random.key(seed + 1), (4, 3))
    matrix, order = np.asarray(relu_kernel(params, inputs)), list(order)
    close(relu_kernel(params, inputs[jnp.array(order)]), matrix[order][:, order])
    close(relu_kernel(params, scale * inputs), scale**2 * matrix)


def test_equal_examples_make_it_singular(key):
    function, params = function_of(mlp((3,), 1, widths=(8,)), key)
    inputs = jax.random.normal(key, (3, 3))[jnp.array([0, 1, 0, 2])]
    matrix = kernel(function, params, inputs).matrix
    close(matrix[0], matrix[2])
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert abs(eigenvalues[0]) < 1e-5 * eigenvalues[-1] < eigenvalues[1]


def test_compiled_and_mapped_over_seeds(key):
    network = mlp((3,), 2, widths=(4,))
    params, _ = jax.vmap(network.init)(jax.random.split(key, 3))
    inputs = jax.random.normal(key, (4, 3))

    def found(params):
        return ntk(lambda p, x: network.apply(p, {}, x, train=False, key=None)[0], params, inputs)

    mapped, looped = compiled(jax.vmap(found))(params), compiled(lambda params: jax.lax.map(found, params))(params)
    last = compiled(found)(jax.tree.map(lambda leaf: leaf[2], params))
    close(mapped.matrix, looped.matrix, 1e-6)
    close(mapped.matrix[2], last.matrix, 1e-6)
    for path, trace in last.traces.items():
        np.testing.assert_allclose(mapped.traces[path], looped.traces[path], rtol=1e-5)
        np.testing.assert_allclose(mapped.traces[path][2], trace, rtol=1e-5)


def test_one_output_is_the_same_in_both_modes(key):
    function, params = function_of(mlp((3,), 1, widths=(4,)), key)
    inputs = jax.random.normal(key, (4, 3))
    close(kernel(function, params, inputs, mode="trace").matrix, kernel(function, params, inputs).matrix, 1e-6)


def test_low_precision_is_added_up_in_float32():
    found = kernel(linear, {"kernel": jnp.ones((3, 1), jnp.bfloat16)}, jnp.ones((2, 3), jnp.bfloat16))
    assert found.matrix.dtype == jnp.float32
    assert found.matrix.tolist() == [[3.0, 3.0], [3.0, 3.0]]


def test_zeros_and_nan():
    inputs = jnp.ones((2, 3))
    for mode in ("full", "trace"):
        assert not kernel(linear, {"kernel": jnp.ones((3, 2))}, 0 * inputs, mode=mode).matrix.any()
        found = kernel(
            linear, {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}, inputs.at[0, 0].set(jnp.nan), mode=mode
        )
        assert np.isnan(found.matrix[0, 0])
        assert np.isnan(found.traces["kernel"])
        assert float(found.matrix[-1, -1]) == 4.0
        assert float(found.traces["bias"]) == 1.0


@pytest.mark.parametrize(
    ("function", "params", "inputs", "mode", "message"),
    [
        (
            linear,
            {"kernel": jnp.ones((3, 2))},
            jnp.ones((0, 3)),
            "full",
            "got 0 examples and 6 parameters; wanted at le",
        ),
        (linear, {}, jnp.ones((2, 3)), "full", "got 2 examples and 0 parameters; wanted at least one of each"),
        (linear, {"kernel": jnp.ones((3, 0))}, jnp.ones((2, 3)), "trace", "got 2 examples and 0 parameters"),
        (linear, {"kernel": jnp.ones((3, 2))}, jnp.ones((2, 3)), "sum", "got mode='sum'; wanted 'full' or 'trace'"),
        (
            lambda p, x: x @ p,
            jnp.ones(3),
            jnp.ones((2, 3)),
            "full",
            r"got outputs of shape \(2,\) for 2 examples; wanted",
        ),
        (lambda p, x: (x @ p)[None], jnp.ones((3, 1)), jnp.ones((2, 3)), "full", r"wanted \(batch, out\)"),
        (lambda p, x: p * x[:1], jnp.ones((1, 3)), jnp.ones((2, 3)), "full", r"got outputs of shape \(1, 3\) for 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(function, params, inputs, mode, message):
    with pytest.raises(UserError, match=message):
        unchecked(ntk)(function, params, inputs, mode=mode)
