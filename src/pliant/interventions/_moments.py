"""Clearing of optimizer statistics, found in any optimizer's state by field name."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from pliant.errors import UserError
from pliant.types import Params, by_path, leaf_path

MOMENTS = (
    *("mu", "nu", "nu_max", "trace"),  # Adam and relatives, momentum, RMSProp, Lion, Muon; utilities of `upgd`
    *("m1", "m2", "m", "n", "v", "g"),  # AdEMAMix, Adan
    *("e_g", "e_x", "sum_of_squares"),  # AdaDelta, AdaGrad
    *("ema", "exp_avg", "exp_avg_sq", "grad_sum"),  # averages of gradients; MoMo, D-Adaptation, Prodigy
    *("previous_gradient", "prev_updates"),  # optimistic gradients, Rprop
)
"""Field names of optax states that hold statistics of a parameter's gradients, one entry a weight."""
MASSES = ("mu_mass", "nu_mass")
"""Field names of states by which each weight's moments are divided to correct their bias, see
`pliant.optimizers.scale_by_adam_per_weight`."""
_ITERATE = "z"  # of schedule-free optimizers: the parameters that updates move, whose average the network uses
_KEPT = (
    *("acc_grads", "grad_acc", "avg_grad"),  # gradients that wait for their update
    *(_ITERATE, "x0", "params0", "init_params", "params", "start"),  # copies of parameters
    "step_sizes",  # of Rprop, which are a weight's own learning rates
)


def clear_moments(
    opt_state: optax.OptState,
    where: Mapping[str, Bool[Array, "..."]],
    units: Mapping[str, Bool[Array, " width"]] | None = None,
    *,
    params: Params | None = None,
) -> optax.OptState:
    """Zeroes an optimizer's gradient statistics at chosen weights, and nothing else.

    Use it after you rewrite weights: the statistics belong to the old ones.

    Statistics are found by field name (`MOMENTS`, and `MASSES` for a weight's bias correction) and by the path of their
    parameter, wherever they sit: in chains, masks, partitions, `MultiSteps`, `inject_hyperparams`, schedule-free.
    Counts that weights share, accumulated gradients and stored copies of parameters are left alone. Schedule-free's `z`
    is such a copy, not a moment. The averaged weights follow it: if only they were rewritten, later updates would bring
    the old ones back. So z takes the new weights.

    Args:
      opt_state: an optax state.
      where: by the parameter's `leaf_path`, True at the entries to clear.
      units: by the name of the hidden layer, True at the units whose own statistics are to be cleared, such as the
        utilities of `pliant.optimizers.upgd`.
      params: the parameters after they were rewritten, which `z` takes where `where` is True; None leaves it alone.

    Returns:
      A state of the same structure.

    Raises:
      UserError: for statistics that several weights share (Adafactor, SM3, NovoGrad, GaLore, LBFGS, `optax.flatten`),
        and for fields of parameters that are not known to be statistics or copies. Of states that are plain
        dictionaries only keys in `MOMENTS` are looked at.

    Example:
      >>> tx = optax.chain(optax.clip(1.0), optax.adam(0.1))
      >>> params = {"w": jnp.ones(2)}
      >>> _, state = tx.update(params, tx.init(params))
      >>> cleared = clear_moments(state, {"w": jnp.array([True, False])})
      >>> [round(float(m), 3) for m in cleared[1][0].mu["w"]], int(cleared[1][0].count)
      ([0.0, 0.1], 1)

    References:
      google/dopamine#209 and timoklein/redo#6, where users ask for it.

    Differs from:
      `optax.tree.map_params`, which also reaches copies of parameters and accumulated gradients.
    """
    new = {} if params is None else by_path(params)
    doubts: list[tuple[Any, str, Array]] = []  # of a parameter, but not of its shape: known fields say more

    def clear(path: Any, leaf: Array) -> Array:
        fields = _fields(path)
        for i, field in enumerate(fields):
            name = leaf_path(path[i + 1 :])
            chosen = [flags[name] for flags in (where, units or {}) if field is not None and name in flags]
            fitting = [flags for flags in chosen if flags.shape == leaf.shape]
            if chosen and field in MOMENTS + MASSES:
                _require(bool(fitting), field, name, "that weights share", leaf)
                return jnp.where(fitting[0], jnp.zeros_like(leaf), leaf)
            if fitting and field == _ITERATE and name in new:
                return jnp.where(fitting[0], new[name].astype(leaf.dtype), leaf)
            if not isinstance(path[i], jax.tree_util.GetAttrKey) or field in _KEPT or leaf.size <= 1:
                continue
            _require(not fitting, field, name, "that may be statistics", leaf)
            if chosen:
                doubts.append((field, name, leaf))
            is_last = not set(fields[i + 1 :]) & {*MOMENTS, *MASSES, *_KEPT, _ITERATE}
            inside = is_last and any(path and name.startswith(f"{path}/") for path in where)
            is_whole = field in MOMENTS and name == "" and "" not in where  # flattened: one vector for all weights
            _require(not inside and not is_whole, field, name, "that weights share", leaf)
        return leaf

    cleared = jax.tree_util.tree_map_with_path(clear, opt_state)
    for field, name, leaf in doubts:
        _require(False, field, name, "that weights share", leaf)
    return cleared


def reset_counts(opt_state: optax.OptState) -> optax.OptState:
    """Resets the counts by which Adam and its relatives correct the bias of their moments.

    Use it to let an optimizer start again without losing its moments.

    Counts of learning-rate schedules stay.

    Example:
      >>> tx = optax.adam(0.1)
      >>> _, state = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
      >>> int(reset_counts(state)[0].count)
      0

    References:
      See `optimizer_reset`, whose `keep_moments` it is.

    Differs from:
      See `optimizer_reset`.
    """

    def reset(node: Any) -> Any:
        zeros = {name: jax.tree.map(jnp.zeros_like, getattr(node, name)) for name in _counters(node)}
        return node._replace(**zeros) if zeros else node

    return jax.tree.map(reset, opt_state, is_leaf=lambda node: bool(_counters(node)))


def has_counts(opt_state: optax.OptState) -> bool:
    """Whether there is anything for `reset_counts` to reset."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: bool(_counters(node)))
    return any(map(_counters, leaves))


def _counters(node: Any) -> list[str]:
    """The fields of a state of Adam, or a relative, that count updates."""
    fields = getattr(node, "_fields", ())
    return [name for name in ("count", *MASSES) if name in fields and {"mu", "nu"} & set(fields)]


def _fields(path: Any) -> list[str | None]:
    """The names of the fields that lead to a leaf; for states made of dictionaries, their keys that are texts."""
    if any(hasattr(entry, "name") for entry in path):
        return [getattr(entry, "name", None) for entry in path]
    keys = [getattr(entry, "key", None) for entry in path]
    return [key if isinstance(key, str) else None for key in keys]


def _require(known: bool, field: Any, name: str, what: str, leaf: Array) -> None:
    if not known:
        raise UserError(
            got=f"the field {field!r} of an optimizer's state, {what}, of shape {leaf.shape} for {name!r}",
            wanted="statistics with one entry a weight, in fields named as in pliant.interventions.MOMENTS",
            do="Use Adam, momentum or another optimizer whose statistics can be forgotten weight by weight.",
        )
