"""From a method and a network to what training needs: an optimizer, a penalty, an intervention."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import optax

from pliant.errors import UserError
from pliant.interventions import keep_frozen
from pliant.methods._focus import focus
from pliant.methods._parts import Parts, make, parameters
from pliant.networks import branch_wiring
from pliant.optimizers import adam, hold_frozen
from pliant.types import Intervention, Method, Network, Penalty, Stream, Wiring


def build(
    method: Method,
    wiring: Wiring,
    values: Mapping[str, Any],
    *,
    rate: Any = None,
    fraction: Any = 0.0,
    branch: str | None = None,
) -> Parts:
    """Builds the method's parts, each with the hyperparameters that it has.

    Args:
      method: from the registry, or of your own.
      wiring: the layer graph of the network, with the method's network changes already made.
      values: all hyperparameters, numbers or traced scalars.
      rate: what the learning rate is multiplied by, if anything.
      fraction: of the task's updates that are done, for methods with a schedule.
      branch: the branch of the network that the method acts on, such as "actor"; by default the whole network. Other
        branches are trained by Adam with the method's learning rate, without its schedule, and with its b1, b2 and eps
        unless their defaults are its own.

    Returns:
      The optimizer, and the penalty and the intervention or None. None of them changes what the wiring calls frozen.

    Raises:
      UserError: from the parts, for numbers out of range and for networks that the method cannot work on; for networks
        without that branch, see `pliant.networks.branch_wiring`.

    Example:
      >>> from pliant.methods import METHODS, defaults
      >>> from pliant.networks import mlp
      >>> method, network = METHODS["l2-init"], mlp((2,), 1, widths=(3,))
      >>> parts = build(method, network.wiring, {**defaults(method), "strength": 0.5})
      >>> params, _ = network.init(jax.random.key(0))
      >>> moved = jax.tree.map(lambda leaf: leaf + 1.0, params)
      >>> value, _ = parts.penalty.loss(moved, parts.penalty.init(params), None)
      >>> round(float(value), 4), parts.intervention
      (6.5, None)
    """
    if branch is not None:
        own = branch_wiring(wiring, branch)
        built = build(method, own, values, rate=rate, fraction=fraction)
        return focus(built, hold_frozen(_plain_adam(method, values, rate), wiring), branch, next(iter(own.heads)))

    def made(part: Any) -> Any:
        return make(part, values, wiring=wiring, output_axes=wiring) if part else None

    factors = [rate] if rate is not None else []
    if method.schedule:
        factors.append(made(method.schedule)(fraction))
    for factor in factors if "learning_rate" in values else []:
        values = {**values, "learning_rate": values["learning_rate"] * factor}
    parts = made(method.optimizer or adam), made(method.penalty), made(method.intervention)
    kinds = optax.GradientTransformation, Penalty, Intervention
    for name, part, kind in zip(Parts._fields, parts, kinds, strict=True):
        if not isinstance(part, kind) and (part is not None or getattr(method, name) is not None):
            raise UserError(
                got=f"the {name} of {method.name!r}, which is {type(part).__name__}",
                wanted=f"a function that returns {kind.__module__.partition('.')[0]}'s {kind.__name__}",
                do=f"Let the {name} of the method return one.",
            )
    optimizer, penalty, intervention = parts
    return Parts(hold_frozen(optimizer, wiring), penalty, intervention and keep_frozen(intervention, wiring))


def _plain_adam(method: Method, values: Mapping[str, Any], rate: Any) -> optax.GradientTransformationExtraArgs:
    """Adam for what a method does not act on."""
    own, plain = parameters(method.optimizer or adam), parameters(adam)
    if "learning_rate" not in own:
        raise UserError(
            got=f"the method {method.name!r} on one branch of a network; its optimizer has no learning_rate",
            wanted="a learning rate, with which Adam trains the other branches",
            do="Let the method act on all branches, or give its optimizer a learning_rate.",
        )
    is_shared = {name: name in own and own[name].default == each.default for name, each in plain.items()}
    options = {  # float32, as hyperparameters are in compiled programs: other types would change the last bits
        name: values[name] if is_shared[name] else np.float32(each.default) for name, each in plain.items()
    }
    return adam(**options if rate is None else {**options, "learning_rate": options["learning_rate"] * rate})


def retarget(method: Method, stream: Stream, values: Mapping[str, Any]) -> Stream:
    """Returns the stream with the method's targets: unchanged, or with other outputs and another loss.

    Args:
      method: from the registry, or of your own.
      stream: the stream as it is.
      values: the hyperparameters; only static ones are read.

    Returns:
      The stream; the same object for most methods.

    Raises:
      UserError: from the method, for streams that it does not suit and numbers out of range.

    Example:
      >>> from pliant.methods import METHODS, defaults
      >>> from pliant.streams import slowly_changing_regression
      >>> method, stream = METHODS["hl-gauss"], slowly_changing_regression()
      >>> stream.num_outputs, retarget(method, stream, defaults(method)).num_outputs
      (1, 51)
    """
    pose = posing(method, values)
    if pose is None:
        return stream
    try:
        posed = pose(stream.objective, stream.num_outputs)
    except UserError as error:
        got = f"the method {method.name!r} on {stream.name!r}: {error.got}"
        raise UserError(got=got, wanted=error.wanted, do=error.do) from error
    return stream._replace(**posed._asdict())


def posing(method: Method, values: Mapping[str, Any]) -> Any:
    """How a method poses tasks, see `Method.targets`; None if it leaves them as they are.

    Args:
      method: from the registry, or of your own.
      values: the hyperparameters; only static ones are read.

    Example:
      >>> from pliant.methods import METHODS, defaults
      >>> len(posing(METHODS["two-hot"], defaults(METHODS["two-hot"])).centres)
      51
    """
    return make(method.targets, values) if method.targets else None


def wrapped(method: Method, network: Network, values: Mapping[str, Any]) -> Network:
    """Returns the network with what the method adds to it, if anything.

    Args:
      method: from the registry, or of your own.
      network: as it is built.
      values: the hyperparameters; only static ones are read.

    Returns:
      The network; the same object for most methods.

    Raises:
      UserError: from the method, for networks that it cannot work on and numbers out of range.

    Example:
      >>> from pliant.methods import METHODS, defaults
      >>> from pliant.networks import mlp
      >>> method = METHODS["infer"]
      >>> network = wrapped(method, mlp((2,), 1, widths=(3,)), defaults(method))
      >>> sorted(network.init(jax.random.key(0))[0])
      ['dense_0', 'head', 'infer']
    """
    return make(method.wrap, values, network=network) if method.wrap else network
