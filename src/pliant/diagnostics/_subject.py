"""What diagnostics ask of a subject: its features, outputs and losses, always in eval mode."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pliant.errors import UserError
from pliant.sampling import evenly
from pliant.types import Batch, Features, Inputs, Params, Scalar, State, Subject, Text

_FEATURES_AT_ONCE = 2**24
"""Numbers; what a network keeps of them for a derivative is a few times that: some hundred MiB."""


def outputs(subject: Subject) -> Callable[[Params, Inputs], Array]:
    """The network as a function `(params, inputs) -> output`."""
    return lambda params, inputs: _apply(subject, params, subject.state, inputs)[0]


def outputs_in_blocks(subject: Subject) -> Callable[[Params, Inputs], Array]:
    """The same function, a few examples after others if the features of all are large.

    Derivatives compute the features of a block anew, so that memory does not grow with the number of examples.
    """
    apply = outputs(subject)

    def run(params: Params, inputs: Inputs) -> Array:
        number = len(jax.tree.leaves(inputs)[0])
        found: Features = jax.eval_shape(
            lambda params, inputs: _apply(subject, params, subject.state, inputs)[1], params, inputs
        )
        num_blocks = -(-sum(leaf.size for leaf in found.values()) // _FEATURES_AT_ONCE)
        if num_blocks <= 1 or number <= 1:
            return apply(params, inputs)
        size = -(-number // num_blocks)
        filled = np.minimum(np.arange(-(-number // size) * size), number - 1)  # the last example fills the last block
        blocks = jax.tree.map(lambda leaf: leaf[filled].reshape(-1, size, *leaf.shape[1:]), inputs)
        output = jax.lax.map(jax.checkpoint(lambda block: apply(params, block)), blocks)
        return output.reshape(-1, *output.shape[2:])[:number]

    return run


def features(subject: Subject, at: tuple[Params, State] | None = None) -> Features:
    """Features of the probe examples, now or at other parameters and running statistics."""
    params, state = at or (subject.params, subject.state)
    return _apply(subject, params, state, subject.probe.inputs)[1]


def unit_features(subject: Subject, at: tuple[Params, State] | None = None) -> tuple[Features, Mapping[str, int]]:
    """Features of the layers in which a unit owns its output and can be silent, and their numbers of units."""
    layers = [layer for layer in subject.network.wiring.layers if layer.elementwise and layer.activation != "fourier"]
    found = features(subject, at)
    return {layer.name: found[layer.name] for layer in layers}, {layer.name: layer.width for layer in layers}


def head_features(subject: Subject) -> Array:
    """What the head reads, (examples, width): positions of texts are examples too; the inputs of a linear model.

    Raises:
      UserError: if that is not among the features.
    """
    read = subject.network.wiring.head_input
    if read is None:
        images = images_only(subject)
        return images.reshape(len(images), -1)
    found = features(subject)
    if read not in found:
        raise UserError(
            got=f"features {', '.join(found) or 'of no layer'}",
            wanted="those that the output layer reads",
            do="Return the hidden layers' activations beside the output, the last layer's as the last.",
        )
    return found[read].reshape(-1, found[read].shape[-1])


def loss(subject: Subject) -> Callable[[Params, Batch], Scalar]:
    """The mean loss of a batch as a function of the parameters; its memory is bounded as `outputs_in_blocks` says."""
    apply = outputs_in_blocks(subject)
    return lambda params, batch: subject.losses(apply(params, batch.inputs), batch.targets).mean()


def some(batch: Batch, most: int) -> Batch:
    """At most so many examples of a batch, evenly spread: data sets may be sorted by class."""
    number = len(jax.tree.leaves(batch.inputs)[0])
    if number == 0:
        raise UserError(got="an empty batch", wanted="at least one example", do="Pass examples to measure on.")
    return jax.tree.map(lambda leaf: leaf[evenly(number, most)], batch)


def images_only(subject: Subject) -> Array:
    """The probe inputs, if derivatives with respect to them mean something.

    Raises:
      UserError: for texts.
    """
    if isinstance(subject.probe.inputs, Text):
        raise UserError(
            got="texts", wanted="inputs that are numbers", do="Leave this diagnostic out: tokens have no derivatives."
        )
    return jnp.asarray(subject.probe.inputs)


def _apply(subject: Subject, params: Params, state: State, inputs: Inputs) -> tuple[Array, Features]:
    output, found, _ = subject.network.apply(params, state, inputs, train=False, key=subject.key)
    return output, found
