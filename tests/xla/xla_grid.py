"""Counts wrong results of compiled broadcast-matmul-reduce expressions against float64 NumPy; prints the count.

Run as a script, in a process of its own: with the argument `guard` pliant is imported first, otherwise not at all.
"""

import sys

if sys.argv[1:] == ["guard"]:
    import pliant  # noqa: F401

import jax
import jax.numpy as jnp
import numpy as np


def _broadcast_matmul(matrix, c):
    return ((matrix @ xp(matrix).full_like(matrix, c)) * matrix).sum(-1)


def _ones_matmul(matrix, c):
    return (xp(matrix).ones_like(matrix) @ (c * matrix)).sum(-1)


def _row_sums(matrix, c):
    return (matrix * c).sum(-1)


def _column_sums(matrix, c):
    return (matrix * c + 1.0).sum(-2)


def xp(array):
    return np if isinstance(array, np.ndarray) else jnp


EXPRESSIONS = (_broadcast_matmul, _ones_matmul, _row_sums, _column_sums)
SHAPES = [(batch, n, n) for batch in (1, 5, 16) for n in (3, 16, 17, 31, 32, 33, 64)] + [(40_000, 3, 3)]


def main() -> None:
    draw = np.random.default_rng(0)
    wrong = 0
    for shape in SHAPES:
        matrix = draw.normal(size=shape)
        for expression in EXPRESSIONS:
            expected = expression(matrix, 0.7)
            got = jax.jit(expression)(jnp.asarray(matrix, jnp.float32), jnp.float32(0.7))
            wrong += not np.allclose(got, expected, rtol=1e-3, atol=1e-3 * shape[-1])
    print(wrong)


if __name__ == "__main__":
    main()
