"""What is counted of a traced program, against numbers counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from pliant.cluster import count_work
from pliant.xla.convolution import convolution

X = jax.ShapeDtypeStruct((4, 6), "float32")
W = jax.ShapeDtypeStruct((6, 10), "float32")


def _products(function, *arguments, steps=range(12)):
    return count_work(function, steps, *arguments).products


def test_a_product_and_its_gradients():
    assert _products(lambda _, x, w: x @ w, X, W) == 2 * 4 * 6 * 10
    everything = jax.value_and_grad(lambda x, w: (x @ w).sum(), argnums=(0, 1))
    assert _products(lambda _, x, w: everything(x, w), X, W) == 3 * 2 * 4 * 6 * 10
    assert _products(jax.vmap(lambda step, x: x @ x.T, (None, 0)), jax.ShapeDtypeStruct((3, 4, 6), "float32")) == (
        3 * 2 * 4 * 6 * 4
    )


def test_convolutions_ours_and_jaxs():
    x, k = jax.ShapeDtypeStruct((2, 8, 8, 3), "float32"), jax.ShapeDtypeStruct((3, 3, 3, 5), "float32")
    forward = 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)

    def stock(x, k):
        return jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    for each in (stock, lambda x, k: convolution(x, k)):
        assert _products(lambda _, x, k, each=each: each(x, k), x, k) == forward
    everything = jax.value_and_grad(lambda x, k: convolution(x, k).sum(), argnums=(0, 1))
    assert _products(lambda _, x, k: everything(x, k), x, k) == 3 * forward


def test_branches_count_as_often_as_they_are_taken():
    def every(step, period, x):
        def nested():
            return jax.lax.cond(step % (2 * period) == 0, lambda: (x @ x.T @ x).sum(), lambda: (x @ x.T).sum())

        return jax.lax.cond(jnp.logical_and(step % period == 0, step > 0), nested, lambda: 0.0)

    of_one = 2 * 4 * 6 * 4
    assert _products(every, 3, X, steps=range(1, 13)) == of_one * (2 * 2 + 2) / 12
    assert _products(every, np.int32(4), X, steps=range(1, 13)) == of_one * (2 + 2) / 12
    unknown = jax.ShapeDtypeStruct((), "int32")
    assert _products(every, unknown, X) == 2 * of_one  # the branch with the most work


def test_loops_and_calls():
    def looped(_, x):
        return jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ x.T @ x), None), x, length=5)[0]

    assert _products(looped, X) == 5 * 2 * (2 * 4 * 6 * 4)
    assert _products(jax.jit(jax.checkpoint(lambda _, x: x @ x.T)), X) == 2 * 4 * 6 * 4


def test_everything_else():
    assert count_work(lambda _, x: jnp.exp(x), [0], X).elements == 24
    assert count_work(lambda _, x: x.sum(), [0], X).elements == 24
    assert count_work(lambda _, x: x.reshape(-1)[::-1], [0], X).elements == 0
    assert count_work(lambda _, x: jnp.linalg.svd(x, compute_uv=False), [0], X).products == 20 * 4 * 6 * 4
    assert count_work(lambda _, x: jnp.linalg.svd(x, compute_uv=False), [0], X).kernels >= 10
    assert count_work(lambda _, x: jnp.sort(x), [0], X).elements > 24
    assert count_work(lambda _: jax.random.normal(jax.random.key(0), (1000,)), [0]).elements > 1000 * 20
