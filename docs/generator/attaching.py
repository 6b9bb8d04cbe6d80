"""How each method is attached to a training loop, found by attaching it to a small network."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import pliant
from pliant.errors import UserError
from pliant.methods import defaults
from pliant.networks import mlp
from pliant.types import Method

IN_TORCH: Mapping[str, str] = {
    "adam": "",
    "adamo": "",
    "redo": "",
    "regrama": "",
    "continual-backprop": "",
    "shrink-perturb": "switch",
    "l2-init": "penalty",
    "spectral": "penalty",
    "nap": "",
    "weight-clipping": "",
}
"""The methods of `pliant.torch.attach`, and what the loop calls beside `step`. Not imported: the site is built without
torch."""
_ARGUMENTS: Mapping[str, tuple[Any, str, str]] = {
    "init": (lambda key: _NETWORK.init(key)[0], "init", "draws new weights: `init(key)` returns a new `params`"),
    "task_updates": (1, "1000", "is the number of updates of a task, which the learning rate follows"),
    "has_changes": (True, "True", "says that your network has what the method changes"),
}
"""Arguments that only some methods need: a value to try, how it is spelled, what it is for."""
_NETWORK = mlp((4,), 2, widths=(4, 4))


class Needs(NamedTuple):
    """What a method needs beside the network."""

    arguments: tuple[str, ...]
    """Of `attach`."""
    loss: bool
    """Whether `update` needs the value of the loss."""
    network: str
    """What the network must be; "" for any."""


def section(method: Method) -> list[str]:
    """The part of a method's page that shows how it is attached."""
    needs = needs_of(method)
    given = [f'"{method.name}"', "apply", "params", "x"]
    rate = defaults(method).get("learning_rate")
    given += [f"learning_rate={rate}"] if rate is not None else []
    given += [f"{name}={_ARGUMENTS[name][1]}" for name in needs.arguments]
    loss = ", loss=loss" if needs.loss else ""
    lines = [f"plastic = pliant.attach({', '.join(given)})", "state = plastic.init(params, jax.random.key(0))", ""]
    lines += [f"params, state, info = plastic.update(gradients, state, params, x{loss})  # each update"]
    if method.boundary_aware:
        lines += ["params, state, info = plastic.switch(state, params)  # where the task changes"]
    told = [f"`{name}` {_ARGUMENTS[name][2]}." for name in needs.arguments]
    told += [f"The network must be as follows: {needs.network}."] if needs.network else []
    told += ["[The tutorial](../../tutorials/attach.md) has the whole loop."]
    return ["## In your own loop", _block(lines), " ".join(told), *_in_torch(method.name)]


def needs_of(method: Method) -> Needs:
    """What a method asks for when it is attached to a small MLP."""
    params = _NETWORK.init(jax.random.key(0))[0]
    x = jnp.ones((2, 4))
    arguments: dict[str, Any] = {}
    while True:
        try:
            plastic = pliant.attach(method, _apply, params, x, wiring=_NETWORK.wiring, **arguments)
            break
        except UserError as error:
            missing = [name for name in _ARGUMENTS if name not in arguments and name in str(error)]
            if not missing:
                return Needs(tuple(arguments), loss=False, network=error.wanted)
            arguments[missing[0]] = _ARGUMENTS[missing[0]][0]
    update: Callable[..., Any] = functools.partial(_update, plastic)
    try:
        jax.eval_shape(update, params, x)
    except UserError:
        return Needs(tuple(arguments), loss=True, network="")
    return Needs(tuple(arguments), loss=False, network="")


def _apply(params: Any, x: Any) -> Any:
    return _NETWORK.apply(params, {}, x, train=False, key=None)[:2]


def _update(plastic: Any, params: Any, x: Any) -> Any:
    return plastic.update(params, plastic.init(params, jax.random.key(0)), params, x)


def _in_torch(name: str) -> list[str]:
    if name not in IN_TORCH:
        return []
    penalty = " + optimizer.penalty()" if IN_TORCH[name] == "penalty" else ""
    lines = [f'optimizer = pliant.torch.attach("{name}", model, x, lr=1e-3)', ""]
    lines += [f"loss = loss_of(model(x), y){penalty}", "optimizer.zero_grad()", "loss.backward()", "optimizer.step()"]
    lines += ["optimizer.switch()  # where the task changes"] if IN_TORCH[name] == "switch" else []
    return ["In [PyTorch](../../tutorials/attach-torch.md):", _block(lines)]


def _block(lines: list[str]) -> str:
    return "```python\n" + "\n".join(lines) + "\n```"
