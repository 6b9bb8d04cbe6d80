"""One call that brings a method into somebody's own training loop."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pliant.errors import UserError, unknown_name
from pliant.methods._fitting import require_arrays
from pliant.methods._hyperparameters import as_arrays, defaults, split_static, with_settings
from pliant.methods._plastic import Plastic, Setup, make_plastic
from pliant.methods._registry import find
from pliant.methods._users_network import as_network, find_layers
from pliant.types import Key, Method, Params, State, Wiring

_RATE = "learning_rate"


def attach(
    method: str | Method,
    apply: Callable[..., Any],
    params: Params,
    x: Any,
    *,
    learning_rate: Any = None,
    wiring: Wiring | None = None,
    init: Callable[[Key], Any] | None = None,
    statistics: State = None,
    optimizer: optax.GradientTransformation | None = None,
    task_updates: Any = None,
    has_changes: bool = False,
    **options: Any,
) -> Plastic:
    r"""Brings a method into your own training loop.

    Use it to try any registered method on your network, or one of your own, without changing how you train:

        plastic = pliant.attach("redo+l2-init", apply, params, x, learning_rate=1e-3)
        state = plastic.init(params, jax.random.key(0))
        params, state, info = plastic.update(grads, state, params, x)   # after each jax.grad of your loss
        params, state, info = plastic.switch(state, params)             # where the task is known to change

    An update is what the engine of `pliant.run` does with the gradients g of the task's loss:

    .. math:: g \leftarrow g + \nabla_\theta\, \text{penalty}, \qquad
      \theta \leftarrow \text{intervention}(\theta + \text{optimizer}(g))

    With the same batches, initial parameters and seed, it gives the numbers of a run. `plastic` is like an
    `optax.GradientTransformation`, except that `update` returns new parameters, because resets and projections rewrite
    them and the optimizer's statistics together. It can be jitted, scanned, and vmapped over all its arguments;
    hyperparameters may be traced: infer the wiring first, then call
    `attach(method, inferred.forward, ..., wiring=inferred.wiring)` inside a vmapped function of them. The state has
    arrays of numbers only. Gradients may come from anywhere: accumulated, averaged over devices, of a scaled loss once
    they are scaled back.

    Args:
      method: a registered name, several with "+", `path/to/file.py:name`, or a `Method`.
      apply: `apply(params, x) -> output`, or `-> (output, features)` with the hidden layers' post-activation arrays by
        name. With `statistics`, `apply(params, statistics, x)`. Methods see the network through it: in evaluation mode.
      params: the parameters, any pytree, as training begins; see `pliant.infer_wiring`.
      x: inputs of a batch, any pytree of arrays with the examples as their first axis; batches may have other sizes.
      learning_rate: a number, a traced one, or an optax schedule of the number of updates; 1e-3 by default.
      wiring: which parameters feed and read the units of each layer. If it is given and `apply` returns features, they
        are taken as they are. Otherwise `pliant.infer_wiring` finds the layers, and a wiring replaces parts of what it
        finds.
      init: `init(key) -> params`, or `(params, statistics)`, as training begins: for methods that draw new networks.
      statistics: running statistics, such as those of BatchNorm, if the network has any. The state carries them: begin
        with `plastic.init(params, key, statistics)`, read `state.statistics`, and hand those after the forward pass to
        `plastic.update(..., statistics=statistics)`.
      optimizer: any optax transformation in place of Adam, for methods without an optimizer of their own.
      task_updates: updates of a task, for methods whose learning rate follows its course.
      has_changes: says that the network already has what the method requires of it: a norm, an activation, more
        parameters, another output.
      **options: hyperparameters of the method, under the names that `pliant list methods` shows.

    Returns:
      A `Plastic`: `init`, `update`, `switch` and `reported`. Cost of an update beside your forward and backward pass:
      that of the method. Methods that look at features need another forward pass, which XLA shares with yours if both
      are compiled together and alike; penalties of features another backward pass.

    Raises:
      UserError: for an unknown method or option, numbers out of range, networks that the method cannot work on, and if
        something is missing that the method needs. `update` and the others raise it, when they are traced, for
        gradients or inputs that do not fit.

    Example:
      >>> apply = lambda params, x: jax.nn.relu(x @ params["in"]) @ params["out"]
      >>> loss = lambda params, x: ((apply(params, x) - 1.0) ** 2).mean()
      >>> params, x = {"in": jnp.array([[1.0, -1.0, 0.5]]), "out": jnp.ones((3, 1))}, jnp.ones((4, 1))
      >>> plastic = attach("redo", apply, params, x, learning_rate=0.01, every=10)
      >>> state = plastic.init(params, jax.random.key(0))
      >>> for _ in range(10):
      ...     params, state, info = plastic.update(jax.grad(loss)(params, x), state, params, x)
      >>> int(info["units_reset"])  # the second unit never fires
      1

    References:
      See each method.

    Differs from:
      The engine, where penalties and unit utilities see the training pass, with its dropout and batch statistics. Here
      they see `apply`.
    """
    chosen = _method(find(method), optimizer, has_changes=has_changes)
    if chosen.schedule and task_updates is None:
        raise UserError(
            got=f"the method {chosen.name!r}, whose learning rate follows the course of a task, without task_updates",
            wanted="the number of updates of a task",
            do="Give task_updates=, and call plastic.switch when a task begins.",
        )
    values, rate = _values(chosen, learning_rate, options)
    require_arrays("params", params)
    require_arrays("statistics", statistics)
    layers = find_layers(apply, params, statistics, x, wiring)
    network = as_network(layers, chosen.name, init, params, statistics)
    of_params, of_x, of_statistics = (jax.tree.map(_shape, tree) for tree in (params, x, statistics))
    setup = Setup(chosen, network, of_params, of_x, values, rate, task_updates, statistics is not None)
    plastic = make_plastic(setup, layers.notes)
    _try(plastic, of_params, of_x, of_statistics)
    return plastic


def _method(method: Method, optimizer: Any, *, has_changes: bool) -> Method:
    """The method with another optimizer, if there is one; what changes the network must be in it."""
    changes = [f"{name}={value!r}" for name, value in method.network.items()]
    changes += [f"{new!r} in place of {old!r}" for old, new in method.replaces.items()]
    changes += ["parts of its own"] if method.wrap else []
    changes += ["an output that stands for a distribution of values"] if method.targets else []
    if changes and not has_changes:
        raise UserError(
            got=f"the method {method.name!r}, which requires of the network: {', '.join(changes)}",
            wanted="a network that has this already",
            do="Build it into your network, then say has_changes=True. `pliant list methods` shows what each requires.",
        )
    if optimizer is None:
        return method
    if method.optimizer or method.schedule:
        raise UserError(
            got=f"optimizer= beside {method.name!r}, which sets {'the optimizer' if method.optimizer else 'its rate'}",
            wanted="a method that leaves the optimizer as it is",
            do="Leave optimizer= out.",
        )
    given = optax.with_extra_args_support(optimizer)
    return method._replace(optimizer=lambda: given)


def _values(method: Method, learning_rate: Any, options: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The hyperparameters as a compiled program gets them, and the learning rate, if the method has one."""
    known = defaults(method)
    for name in options:
        if name not in known or name == _RATE:
            others = [each for each in known if each != _RATE]
            raise unknown_name(f"option of {method.name!r}", name, others, do="See `pliant list methods`.")
    if _RATE not in known and learning_rate is not None:
        raise UserError(
            got="learning_rate= beside optimizer=", wanted="one of them", do="The optimizer has a rate of its own."
        )
    arrays = {name: value for name, value in options.items() if isinstance(value, jax.Array | np.ndarray)}
    values = with_settings(method, {name: v for name, v in options.items() if name not in arrays}, 1e-3)
    static, traced = split_static(method, values)
    for name, value in arrays.items():
        if name in static or value.ndim:
            raise UserError(
                got=f"{name}, an array of shape {value.shape}",
                wanted="a Python value: it shapes the program" if name in static else "one number",
                do="Attach once for each." if name in static else "Use jax.vmap over a function that attaches.",
            )
    numbers = {name: array[()] for name, array in as_arrays(traced).items()}
    if _RATE not in known:
        return {**static, **numbers, **arrays}, None
    del numbers[_RATE]
    rate = 1e-3 if learning_rate is None else learning_rate
    is_number = isinstance(rate, int | float | np.number)
    return {**static, **numbers, **arrays}, np.float32(rate) if is_number else rate


def _try(plastic: Plastic, params: Params, x: Any, statistics: Any) -> None:
    """Traces everything once, so that what is missing is missed now."""

    def everything(params: Params, x: Any, statistics: Any) -> Any:
        state = plastic.init(params, jax.random.key(0), statistics)
        params, state, _ = plastic.update(params, state, params, x, loss=jnp.zeros(()))
        return plastic.reported(*plastic.switch(state, params)[:2])

    jax.eval_shape(everything, params, x, statistics)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))
