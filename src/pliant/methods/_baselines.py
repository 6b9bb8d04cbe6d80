"""Baselines: what everything else is measured against."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from pliant.errors import require_adam, require_choice, require_range
from pliant.isometry import split_axes
from pliant.layouts import find_output_axes
from pliant.masks import select
from pliant.methods._builders import adam_optimizer
from pliant.penalties import l2
from pliant.types import Method, Number, Params, Penalty, Wiring


def _sgd_optimizer(
    wiring: Wiring, *, learning_rate: Number, momentum: Number = 0.0, weight_decay: Number = 0.0
) -> optax.GradientTransformationExtraArgs:
    """The decay joins the gradient, of all parameters, as in PyTorch's SGD.

    Args:
      wiring: not used.
      learning_rate: step size, ≥ 0.
      momentum: decay rate of the sum of gradients, in [0, 1); 0 for none.
      weight_decay: ≥ 0, what the parameters are multiplied by and added to the gradient.
    """
    del wiring
    require_range("learning_rate", learning_rate, 0, do="Use a step size such as 0.01.")
    require_range("momentum", momentum, 0, 0.999999, do="0 or 0.9 are usual.")
    require_range("weight_decay", weight_decay, 0, do="Use 0 for none.")
    return optax.with_extra_args_support(optax.chain(_decay(weight_decay), optax.sgd(learning_rate, momentum)))


def _tuned_adam_optimizer(
    wiring: Wiring,
    *,
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.9,
    eps: Number = 1e-9,
    eps_root: Number = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    """Adam that forgets both moments at one rate, so that a step stays bounded when gradients grow.

    Args:
      wiring: not used.
      learning_rate: step size, ≥ 0.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ≥ 0, outside the root.
      eps_root: ≥ 0, added inside the root.
    """
    del wiring
    require_adam(learning_rate, b1, b2, eps)
    require_range("eps_root", eps_root, 0, do="1e-3 is the authors'.")
    return optax.with_extra_args_support(optax.adam(learning_rate, b1, b2, eps, eps_root))


def _adamw_optimizer(
    wiring: Wiring,
    *,
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: Number = 1e-2,
) -> optax.GradientTransformationExtraArgs:
    """The decay is of all parameters, as in PyTorch's AdamW.

    Args:
      wiring: not used.
      learning_rate: step size, ≥ 0.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ≥ 0, outside the root.
      weight_decay: ≥ 0; an update takes the learning rate times this share off every parameter.
    """
    del wiring
    return _adamw(learning_rate, b1, b2, eps, weight_decay)


def _weight_decay_optimizer(
    wiring: Wiring,
    *,
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: Number = 1e-2,
) -> optax.GradientTransformationExtraArgs:
    """Of all kernels: hidden, head, embeddings.

    Args:
      wiring: names the kernels.
      learning_rate: step size, ≥ 0.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ≥ 0, outside the root.
      weight_decay: ≥ 0; an update takes the learning rate times this share off every kernel.
    """
    return _adamw(learning_rate, b1, b2, eps, weight_decay, mask=lambda params: _kernels(wiring, params))


def _adamw(
    learning_rate: Number, b1: Number, b2: Number, eps: Number, weight_decay: Number, mask: Any = None
) -> optax.GradientTransformationExtraArgs:
    require_adam(learning_rate, b1, b2, eps)
    require_range("weight_decay", weight_decay, 0, do="Use 0 for plain Adam.")
    decay = _decay(weight_decay) if mask is None else optax.masked(_decay(weight_decay), mask)
    chain = optax.chain(optax.scale_by_adam(b1, b2, eps), decay, optax.scale_by_learning_rate(learning_rate))
    return optax.with_extra_args_support(chain)


def _decay(weight_decay: Number) -> optax.GradientTransformation:
    """`optax.add_decayed_weights`, which with a decay of 0 that is not known when compiling makes NaN of infinity."""
    decay = optax.add_decayed_weights(weight_decay)

    def update_fn(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        decayed, state = decay.update(updates, state, params)
        return jax.tree.map(lambda new, old: jnp.where(weight_decay > 0, new, old), decayed, updates), state

    return optax.GradientTransformation(decay.init, update_fn)


def _l2_penalty(
    wiring: Wiring, *, strength: Number = 1e-3, parameters: Literal["kernels", "all"] = "kernels"
) -> Penalty:
    """The squared norm of the kernels or of everything.

    Args:
      wiring: names the kernels.
      strength: ≥ 0, what the squared norm is multiplied by in the loss.
      parameters: "kernels" (hidden, head, embeddings), or "all", as PyTorch's Adam with `weight_decay`.
    """
    require_choice("parameters", parameters, "kernels", "all")
    if parameters == "all":
        return l2(strength)
    return l2(strength, mask=lambda params: _kernels(wiring, params))


def _kernels(wiring: Wiring, params: Params) -> PyTree[bool]:
    return wiring.mask(params, "matrix", "head", "embed")


def _muon_optimizer(
    wiring: Wiring,
    *,
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    momentum: Number = 0.95,
    rate_factor: Number = 20.0,
) -> optax.GradientTransformationExtraArgs:
    """Muon on hidden kernels, with `rate_factor` times the learning rate; plain Adam on all other parameters.

    optax's Muon brings an Adam for the other parameters as well, but that one has Nesterov momentum.

    Args:
      wiring: names the hidden kernels.
      learning_rate: step size of Adam, ≥ 0.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ≥ 0, outside the root.
      momentum: of Muon, in [0, 1).
      rate_factor: ≥ 0, Muon's learning rate over Adam's.
    """
    require_adam(learning_rate, b1, b2, eps)
    require_range("momentum", momentum, 0, 0.999999, do="0.95 is usual.")
    require_range("rate_factor", rate_factor, 0, do="20 makes the published 0.02 of a learning rate of 1e-3.")

    def labels(params: Params) -> Params:
        hidden = select(wiring.mask(params, "matrix"), params, min_axes=2)
        return jax.tree.map(lambda is_hidden: "muon" if is_hidden else "adam", hidden)

    muon = optax.contrib.muon(
        learning_rate * rate_factor,
        beta=momentum,
        mu_dtype=jnp.float32,
        muon_weight_dimension_numbers=functools.partial(_as_matrices, wiring),
    )
    return optax.partition({"muon": muon, "adam": optax.adam(learning_rate, b1, b2, eps)}, labels)


def _as_matrices(wiring: Wiring, kernels: Params) -> PyTree[optax.contrib.MuonDimensionNumbers]:
    """Inputs and outputs, as in `pliant.isometry.matrix_view`."""
    leaves, structure = jax.tree.flatten(kernels)
    found = find_output_axes(wiring, kernels, [True] * len(leaves))
    axes = [split_axes(leaf.shape, outputs) for leaf, outputs in zip(leaves, found, strict=True)]
    return jax.tree.unflatten(structure, [optax.contrib.MuonDimensionNumbers(*each) for each in axes])


SGD = Method(
    name="sgd",
    summary="stochastic gradient descent, with optional momentum",
    reference="Robbins and Monro 1951",
    optimizer=_sgd_optimizer,
)
ADAM = Method(
    name="adam",
    summary="Adam, nothing else: the baseline that loses plasticity",
    reference="Kingma and Ba 2015, algorithm 1",
    optimizer=adam_optimizer,
)
TUNED_ADAM = Method(
    name="adam-tuned",
    summary="Adam whose second moment forgets as fast as its first, with a damped root: stable when the task changes",
    reference="Lyle et al. 2023, section 3.1",
    optimizer=_tuned_adam_optimizer,
)
ADAMW = Method(
    name="adamw",
    summary="Adam with decoupled weight decay on all parameters, biases and norms as well: PyTorch's AdamW",
    reference="Loshchilov and Hutter 2019, algorithm 2",
    optimizer=_adamw_optimizer,
    off={"weight_decay": 0.0},
    lowers="weight_norm",
)
WEIGHT_DECAY = Method(
    name="weight-decay",
    summary="Adam with decoupled weight decay on kernels (AdamW)",
    reference="Loshchilov and Hutter 2019, algorithm 2",
    optimizer=_weight_decay_optimizer,
    off={"weight_decay": 0.0},
    lowers="weight_norm",
)
L2 = Method(
    name="l2",
    summary="Adam with the squared norm of the kernels in the loss: weight decay through the moments",
    reference="Loshchilov and Hutter 2019, algorithm 2, the L2 form",
    optimizer=adam_optimizer,
    penalty=_l2_penalty,
    off={"strength": 0.0},
    lowers="weight_norm",
)
LAYERNORM = Method(
    name="layernorm",
    summary="Adam on a network with LayerNorm before every activation",
    reference="Ba, Kiros and Hinton 2016, equation 4; Lyle et al. 2023, section 5",
    optimizer=adam_optimizer,
    network={"norm": "layer"},
)
LAYERNORM_WEIGHT_DECAY = WEIGHT_DECAY._replace(
    name="layernorm-weight-decay",
    summary="Adam with decoupled weight decay on the kernels of a network with LayerNorm before every activation",
    reference="Lyle et al. 2024 (arXiv 2402.18762)",
    network={"norm": "layer"},
)
MUON = Method(
    name="muon",
    summary="steps of equal size in all directions of a hidden kernel (Muon); Adam for all other parameters",
    reference="Jordan et al. 2024",
    optimizer=_muon_optimizer,
)

METHODS = (SGD, ADAM, TUNED_ADAM, ADAMW, WEIGHT_DECAY, L2, LAYERNORM, LAYERNORM_WEIGHT_DECAY, MUON)
