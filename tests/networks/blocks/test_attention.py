import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pliant.networks.blocks._attention import PROJECTIONS, Attention
from pliant.networks.blocks._kernel_layer import KernelLayer


def normal(shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def pair(use_bias):
    """Ours and Flax', with the same numbers."""
    options = {"use_bias": use_bias, "kernel_init": jax.nn.initializers.normal(1.0)}
    ours, theirs = KernelLayer((3, 5), **options, rngs=nnx.Rngs(0)), nnx.Linear(3, 5, **options, rngs=nnx.Rngs(0))
    for layer in (ours, theirs):
        if use_bias:
            layer.bias[...] = jnp.arange(5.0)
    return ours, theirs


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 0, 3), (0, 5, 3), (6, 101, 3)])
def test_dense_is_flax(use_bias, shape):
    def value_and_gradients(layer):
        graph, params = nnx.split(layer)
        return jax.value_and_grad(lambda params, x: jnp.sin(nnx.merge(graph, params)(x)).sum(), argnums=(0, 1))(
            params, normal(shape)
        )

    ours, theirs = map(value_and_gradients, pair(use_bias))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_types_are_flax(dtype):
    ours, theirs = pair(use_bias=True)
    x = normal((600, 3), dtype)
    assert ours(x).dtype == theirs(x).dtype
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def identities(dtype):
    """One head of two numbers, whose kernels are identities."""
    init = jax.nn.initializers.zeros
    layer = Attention(2, 1, 2, initializers=dict.fromkeys(PROJECTIONS, init), use_bias=False, rngs=nnx.Rngs(0))
    for name in PROJECTIONS:
        getattr(layer, name).kernel = nnx.Param(jnp.eye(2, dtype=dtype))
    return layer


def test_scores_of_float16_do_not_overflow():
    """Each token reads the one that is like it; their scores, 90,000, are beyond the largest number of float16."""
    x = jnp.array([[[300.0, 0.0], [0.0, 300.0]]], jnp.float16)
    y = identities(jnp.float16)(x, x)
    assert y.dtype == jnp.float16
    np.testing.assert_array_equal(y, x)


def test_scores_of_bfloat16_are_not_rounded():
    """Scores of 256 and 257, between which bfloat16 has no number but 256 and 258."""
    x, memory = jnp.array([[[16.0, 1.0]]], jnp.bfloat16), jnp.array([[[16.0, 0.0], [16.0, 1.0]]], jnp.bfloat16)
    share = np.e / (1 + np.e)  # of the second
    np.testing.assert_allclose(np.float32(identities(jnp.bfloat16)(x, memory)[0, 0]), [16.0, share], rtol=0.01)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_attention_by_hand(batch):
    """Of the definition, head by head, in float64."""
    init = jax.nn.initializers.normal(0.5)
    layer = Attention(
        6, 2, 4, initializers=dict.fromkeys(("query", "key", "value", "out"), init), use_bias=True, rngs=nnx.Rngs(0)
    )
    x, memory = normal((batch, 5, 6)), normal((batch, 7, 6))
    mask = jnp.arange(7)[None, None, None] < 6
    y = layer(x, memory, scale=0.3, mask=mask)

    def project(name, inputs):
        part = getattr(layer, name)
        return np.float64(inputs) @ np.float64(part.kernel[...]) + np.float64(part.bias[...])

    query, key, value = project("query", x), project("key", memory), project("value", memory)
    heads = []
    for columns in (slice(0, 4), slice(4, 8)):
        weights = np.exp(0.3 * query[..., columns] @ key[:, :6, columns].swapaxes(1, 2))
        heads.append(weights / weights.sum(-1, keepdims=True) @ value[:, :6, columns])
    np.testing.assert_allclose(y, project("out", np.concatenate(heads, axis=-1)), rtol=1e-4, atol=1e-5)
