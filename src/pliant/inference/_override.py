"""Joins what was found with what the user states."""

from collections.abc import Collection, Mapping

from pliant.errors import UserError, unknown_name
from pliant.types import Wiring


def overridden(found: Wiring, stated: Wiring | None, features: Collection[str]) -> Wiring:
    """What the user states replaces what was found: layers by name, and everything else entry by entry.

    Args:
      found: the inferred wiring.
      stated: the user's; None for none.
      features: those that the network returns or that were captured.

    Raises:
      UserError: for a layer whose feature is not known, and a parameter that does not exist.
    """
    if stated is None:
        return found
    for layer in stated.layers:
        if layer.name not in features:
            raise unknown_name(
                "hidden layer", layer.name, features, do="Return its activations from `apply`: (output, features)."
            )
    slots = [slot for layer in stated.layers for slot in (*(feed.slot for feed in layer.feeds), *layer.readers)]
    for path in (*stated.roles, *(slot.path for slot in slots)):
        if path not in found.roles:
            raise unknown_name("parameter", path, found.roles, do="See pliant.types.leaf_path.")
    own = {layer.name: layer for layer in stated.layers}
    kept = tuple(own.pop(layer.name, layer) for layer in found.layers)
    return found._replace(
        layers=(*kept, *own.values()),
        roles={**found.roles, **stated.roles},
        heads={**found.heads, **stated.heads},
        indirect=found.indirect | stated.indirect,
        output_axes={**found.output_axes, **stated.output_axes},
        frozen=found.frozen | stated.frozen,
        biases={**found.biases, **stated.biases},
    )


def require_true(stated: Wiring | None, wrong: Mapping[str, str]) -> None:
    """Raises if a layer that the user states failed its check.

    Args:
      stated: the user's wiring.
      wrong: by layer, what is wrong with it.
    """
    for layer in stated.layers if stated else ():
        if layer.name in wrong:
            raise UserError(
                got=f"the hidden layer {layer.name!r} in wiring=, of which {wrong[layer.name]}",
                wanted="the parameters that feed its units, and all that read them",
                do="Correct its feeds and readers, or leave the layer out.",
            )
