"""From what names a network to a network."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from pliant.diagnostics import failure
from pliant.errors import UserError
from pliant.networks import NETWORKS, side_by_side, takes_outputs, with_gains, with_heads
from pliant.specs import find
from pliant.types import Network, Source

_WANTED = "a function (input_shape, num_outputs, *, options) -> pliant.types.Network, or a Network"


def network_factory(spec: Any) -> Callable[..., Network]:
    """Finds the factory of a network.

    Args:
      spec: a registered name, `path/to/file.py:name`, a factory, or a network, whose factory returns it.

    Raises:
      UserError: if there is no such network.

    Example:
      >>> network_factory("mlp")((3,), 2, widths=(4,)).wiring.layers[0].width
      4
    """
    found: Any = find("network", spec, NETWORKS, lambda each: isinstance(each, Network) or callable(each), _WANTED)
    if isinstance(found, Network):
        return lambda *_: found
    factory: Callable[..., Network] = found
    return factory


class Others(NamedTuple):
    """How the other branches are made where a method changes one branch of a network."""

    branch: str
    """The one that the method changes."""
    factory: Callable[..., Network]
    options: Mapping[str, Any]
    wrap: Callable[[Network], Network]
    """What the method adds to its branch."""


def make_network(
    name: str,
    factory: Callable[..., Network],
    options: Mapping[str, Any],
    source: Source,
    others: Others | None = None,
) -> Network:
    """Makes a network for a source; one that is not registered is checked.

    Args:
      name: of the network, for messages.
      factory: see `network_factory`.
      options: of the factory.
      source: what the network learns from.
      others: by default all branches are made alike.

    Raises:
      UserError: if the factory returns something else, or a network that does not fit the source.
    """
    network: Any = _made(factory, options, source, others)
    if any(factory is each for each in NETWORKS.values()):
        return network
    if not isinstance(network, Network):
        raise UserError(
            got=f"the network {name!r}, whose factory returns {type(network).__name__}",
            wanted=_WANTED,
            do="Let the factory return a Network.",
        )
    why = _misfit(network, source)
    if why is not None:
        raise UserError(
            got=f"the network {name!r}, which does not fit this problem: {why}",
            wanted=f"one for inputs of shape {source.input_shape} with {source.num_outputs} outputs",
            do="Give a factory, which is told input_shape and num_outputs.",
        )
    return network


def _made(factory: Callable[..., Network], options: Mapping[str, Any], source: Source, others: Others | None) -> Any:
    """The network of a source: of several outputs each has its own, or all are heads of one."""
    sizes = source.num_outputs
    if isinstance(sizes, int):
        return factory(source.input_shape, sizes, **options)
    if not source.branches and takes_outputs(factory):
        network = factory(source.input_shape, dict(sizes), **options)
        return with_gains(network, source.gains) if isinstance(network, Network) else network
    if not source.branches:
        network = factory(source.input_shape, next(iter(sizes.values())), **options)
        return with_heads(network, sizes, source.gains) if _has_one_output(network, sizes) else network
    parts: dict[str, Network] = {}
    for output, size in sizes.items():
        is_other = others is not None and source.branches[output] != others.branch
        make, given = (others.factory, others.options) if others and is_other else (factory, options)
        part = make(source.input_shape, size, **given)
        if not _has_one_output(part, sizes):
            return _as_it_is(part, options, others)
        parts[output] = others.wrap(part) if others and not is_other else part
    return side_by_side(parts, source.branches, source.gains)


def _has_one_output(network: Any, outputs: Mapping[str, int]) -> bool:
    """Whether it is a network, but not one that brings all outputs with it."""
    return isinstance(network, Network) and set(network.wiring.heads) != set(outputs)


def _as_it_is(network: Any, options: Mapping[str, Any], others: Others | None) -> Any:
    """A user's own network with all outputs, of which no branch alone can be changed."""
    if others and (options != others.options or others.wrap(network) is not network):
        raise UserError(
            got=f"a method that changes the network, on {others.branch} alone, and a network that has all outputs",
            wanted="a network for one output, of which each branch gets its own",
            do="Let the method act on all branches, or give a factory for one output.",
        )
    return network


def _misfit(network: Network, source: Source) -> str | None:
    """Why a network does not fit a source; found by tracing it, nothing is computed."""
    found: list[Any] = []

    def output(inputs: PyTree) -> Any:
        params, statistics = network.init(jax.random.key(0))
        return network.apply(params, statistics, inputs, train=False, key=None)[0]

    def trace() -> None:
        batch = jax.tree.map(lambda each: jax.ShapeDtypeStruct((2, *each.shape), each.dtype), source.inputs)
        found.append(jax.eval_shape(output, batch))

    why = failure(trace)
    if why is not None:
        return why
    sizes, made = source.num_outputs, found[0]
    if isinstance(sizes, Mapping):
        shapes = {name: each.shape for name, each in made.items()} if isinstance(made, Mapping) else None
        wanted = {name: (2, size) for name, size in sizes.items()}
        return None if shapes == wanted else f"its outputs for 2 examples have the shapes {shapes}, not {wanted}"
    if isinstance(made, jax.ShapeDtypeStruct) and made.shape[-1:] != (sizes,):
        return f"its output for 2 examples has shape {made.shape}"
    return None
