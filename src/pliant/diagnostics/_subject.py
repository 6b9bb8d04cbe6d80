"""A subject's features, outputs and losses, always in evaluation mode."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from pliant.errors import UserError, unknown_name
from pliant.isometry import matrix_view
from pliant.layouts import find_output_axes
from pliant.sampling import evenly
from pliant.types import Batch, Features, HiddenLayer, Params, Role, Scalar, State, Subject, Text, by_path

_FEATURES_AT_ONCE = 2**24
"""Numbers; what a network keeps of them for a derivative is a few times that: some hundred MiB."""


def outputs(subject: Subject) -> Callable[[Params, PyTree], Array]:
    """The network as a function `(params, inputs) -> output`, the one that is measured; see `Subject.output`."""
    return lambda params, inputs: picked(subject, all_outputs(subject)(params, inputs))


def all_outputs(subject: Subject) -> Callable[[Params, PyTree], PyTree]:
    """The network as a function `(params, inputs) -> output`, or all of its named outputs: what losses are of."""
    return lambda params, inputs: _apply(subject, params, subject.state, inputs)[0]


def picked(subject: Subject, output: PyTree) -> Array:
    """The output that is measured.

    Raises:
      UserError: if there are several and none is named, and for a name that is not among them.

    Example:
      >>> subject = Subject(None, {}, {}, None, None, None, output="value")
      >>> float(picked(subject, {"policy": jnp.array(1.0), "value": jnp.array(2.0)}))
      2.0
    """
    named = _by_name(output)
    if subject.output is None and len(named) > 1:
        raise UserError(
            got=f"a network with the outputs {', '.join(named)}",
            wanted="the name of the one to measure",
            do=f"Say output={next(iter(named))!r}, for example.",
        )
    if subject.output is not None and subject.output not in named:
        raise unknown_name("output", subject.output, named, do="See the heads of the network's wiring.")
    return named[subject.output or next(iter(named))]


def with_picked(subject: Subject, output: PyTree, one: Array) -> PyTree:
    """All outputs, with another array in the place of the one that is measured."""
    return {**output, subject.output or next(iter(output)): one} if isinstance(output, Mapping) else one


def outputs_in_blocks(subject: Subject) -> Callable[[Params, PyTree], Array]:
    """The same as `outputs`, computed in blocks of examples if the features of all are large.

    Derivatives recompute the features of each block, so that memory does not grow with the number of examples.
    """
    return lambda params, inputs: picked(subject, _in_blocks(subject)(params, inputs))


def _in_blocks(subject: Subject) -> Callable[[Params, PyTree], PyTree]:
    apply = all_outputs(subject)

    def run(params: Params, inputs: PyTree) -> PyTree:
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
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:number], output)

    return run


def _by_name(output: PyTree) -> Mapping[str, Array]:
    return output if isinstance(output, Mapping) else {"output": output}


def features_of(subject: Subject) -> Callable[[Any], tuple[Array, Features]]:
    """The network as a function `inputs -> (output, features)`, of the output that is measured."""

    def run(inputs: Any) -> tuple[Array, Features]:
        output, found = _apply(subject, subject.params, subject.state, inputs)
        return picked(subject, output), found

    return run


def features(subject: Subject, at: tuple[Params, State] | None = None) -> Features:
    """Features of the probe examples, now or at other parameters and running statistics."""
    params, state = at or (subject.params, subject.state)
    return _apply(subject, params, state, subject.probe.inputs)[1]


def unit_features(
    subject: Subject, at: tuple[Params, State] | None = None, layers: Sequence[HiddenLayer] | None = None
) -> tuple[Features, Mapping[str, int]]:
    """Features of layers, units on the last axis, and their numbers of units.

    Args:
      subject: whose features.
      at: other parameters and running statistics.
      layers: of the wiring; by default those in which a unit owns its output and can be silent.

    Raises:
      UserError: if the network does not return them, or not with their units where the wiring says.
    """
    if layers is None:
        every = subject.network.wiring.layers
        layers = [layer for layer in every if layer.elementwise and layer.traits.can_be_silent]
    found = features(subject, at) if layers else {}
    return {layer.name: _units_last(found, layer) for layer in layers}, {layer.name: layer.width for layer in layers}


def head_features(subject: Subject) -> Array:
    """What the head reads, (examples, width): positions of texts are examples too; the inputs of a linear model.

    Raises:
      UserError: if that is not among the features.
    """
    read = subject.network.wiring.head_reads(subject.output)
    if read is None:
        images = images_only(subject)
        return images.reshape(len(images), -1)
    found = features(subject)
    if read not in found:
        several = f", of which the output layer reads {read}" if " and " in read else ""
        raise UserError(
            got=f"features {', '.join(found) or 'of no layer'}{several}",
            wanted="those that the output layer reads, in one",
            do="Return the hidden layers' activations beside the output, what the output layer reads among them.",
        )
    last = subject.network.wiring.units_last(read, found[read])
    return last.reshape(-1, last.shape[-1])


def kernels(subject: Subject, *roles: Role) -> dict[str, Array]:
    """The kernels of some roles as matrices (in, out), by path: where their outputs are, the wiring says.

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((3,), 2, widths=(4,))
      >>> of = Subject(network, *network.init(jax.random.key(0)), None, None, None)
      >>> {path: kernel.shape for path, kernel in kernels(of, "matrix", "head").items()}
      {'dense_0/kernel': (3, 4), 'head/kernel': (4, 2)}
    """
    wiring = subject.network.wiring
    leaves, chosen = by_path(subject.params), by_path(wiring.mask(subject.params, *roles))
    taken = [chosen[path] and leaf.size > 0 for path, leaf in leaves.items()]
    found = zip(leaves.items(), find_output_axes(wiring, subject.params, taken), taken, strict=True)
    return {path: matrix_view(leaf, axes) for (path, leaf), axes, take in found if take}


def _units_last(found: Features, layer: HiddenLayer) -> Array:
    if layer.name not in found:
        raise UserError(
            got=f"features {', '.join(found) or 'of no layer'}",
            wanted=f"that of the layer {layer.name!r} among them",
            do="Return the activations of the wiring's layers beside the output, under their names.",
        )
    return layer.units_last(found[layer.name])


def loss(subject: Subject) -> Callable[[Params, Batch], Scalar]:
    """The mean loss of a batch as a function of the parameters; its memory is bounded as `outputs_in_blocks` says."""
    apply = _in_blocks(subject)
    return lambda params, batch: subject.losses(apply(params, batch.inputs), batch.targets).mean()


def gradient(subject: Subject) -> Callable[[Params, Batch], Params]:
    """The gradient of `loss` by the parameters; NaN where the loss is not finite: that of a ReLU is 0 even there."""
    of_loss = jax.value_and_grad(loss(subject))

    def of_batch(params: Params, batch: Batch) -> Params:
        value, found = of_loss(params, batch)
        return jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(value), leaf, jnp.nan), found)

    return of_batch


def some(batch: Batch, most: int) -> Batch:
    """At most so many examples of a batch, evenly spaced: data sets may be sorted by class."""
    number = len(jax.tree.leaves(batch.inputs)[0])
    if number == 0:
        raise UserError(got="an empty batch", wanted="at least one example", do="Pass examples to measure on.")
    return jax.tree.map(lambda leaf: leaf[evenly(number, most)], batch)


def images_only(subject: Subject) -> Array:
    """The probe inputs, if they are one array.

    Raises:
      UserError: for texts, and for inputs of several arrays.
    """
    if len(jax.tree.leaves(subject.probe.inputs)) != 1:
        raise UserError(
            got="texts" if isinstance(subject.probe.inputs, Text) else "inputs of several arrays",
            wanted="inputs that are numbers, in one array",
            do="Leave this diagnostic out: tokens have no derivatives.",
        )
    return jnp.asarray(jax.tree.leaves(subject.probe.inputs)[0])


def _apply(subject: Subject, params: Params, state: State, inputs: PyTree) -> tuple[PyTree, Features]:
    output, found, _ = subject.network.apply(params, state, inputs, train=False, key=subject.key)
    return jax.tree.map(widened, output), {name: widened(feature) for name, feature in found.items()}


def widened(array: Array) -> Array:
    """In float32 or wider, so that nothing is summed in less; what holds no floating-point numbers as it is.

    Example:
      >>> widened(jnp.ones(2, jnp.float16)).dtype.name, widened(jnp.ones(2, int)).dtype.name
      ('float32', 'int32')
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))
