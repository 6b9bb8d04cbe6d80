"""What diagnostics ask of a subject: its features, outputs and losses, always in eval mode."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.errors import UserError
from pliant.sampling import evenly
from pliant.types import Batch, Features, Inputs, Params, Scalar, State, Subject, Text


def outputs(subject: Subject) -> Callable[[Params, Inputs], Array]:
    """The network as a function `(params, inputs) -> output`."""
    return lambda params, inputs: _apply(subject, params, subject.state, inputs)[0]


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
    """The mean loss of a batch as a function of the parameters."""
    apply = outputs(subject)
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
