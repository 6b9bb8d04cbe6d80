"""Subjects to measure, and a diagnostic's whole way from one to its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pliant.diagnostics import find_diagnostic
from pliant.types import Batch, Measured, Subject


def subject(network, params, state, inputs, targets=None, **fields):
    """A subject with classes (cross-entropy) or, for targets that are floating-point, values (squared error)."""
    if targets is None:
        targets = jnp.zeros(len(inputs), jnp.int32)
    is_classes = jnp.issubdtype(targets.dtype, jnp.integer)

    def losses(output, targets):
        if is_classes:
            return optax.softmax_cross_entropy_with_integer_labels(output, targets)
        return jnp.square(output - targets).mean(axis=-1)

    return Subject(network, params, state, Batch(inputs, targets), losses, jax.random.key(7), **fields)


def measure(name, of) -> Measured:
    """Compiled, then summarised on the host, as in a run."""
    diagnostic = find_diagnostic(name)
    arrays = jax.jit(lambda params: diagnostic.measure(of._replace(params=params)))(of.params)
    return diagnostic.summarize(jax.tree.map(np.asarray, arrays))
