"""From what names a network to a network."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import PyTree

from pliant.diagnostics import failure
from pliant.errors import UserError
from pliant.networks import NETWORKS
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


def make_network(name: str, factory: Callable[..., Network], options: Mapping[str, Any], source: Source) -> Network:
    """Makes a network for a source; one that is not registered is checked.

    Args:
      name: of the network, for messages.
      factory: see `network_factory`.
      options: of the factory.
      source: what the network learns from.

    Raises:
      UserError: if the factory returns something else, or a network that does not fit the source.
    """
    network: Any = factory(source.input_shape, source.num_outputs, **options)
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
    if why is None and isinstance(found[0], jax.ShapeDtypeStruct) and found[0].shape[-1:] != (source.num_outputs,):
        return f"its output for 2 examples has shape {found[0].shape}"
    return why
