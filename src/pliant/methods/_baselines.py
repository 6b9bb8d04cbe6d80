"""Baselines: what everything else is measured against."""

import optax

from pliant.errors import require_adam, require_range
from pliant.methods._builders import adam_optimizer
from pliant.types import Method, Number, Wiring


def _sgd_optimizer(
    wiring: Wiring, *, learning_rate: Number, momentum: Number = 0.0, weight_decay: Number = 0.0
) -> optax.GradientTransformationExtraArgs:
    """The decay joins the gradient, of all parameters, as in PyTorch's SGD."""
    del wiring
    require_range("learning_rate", learning_rate, 0, do="Use a step size such as 0.01.")
    require_range("momentum", momentum, 0, 0.999999, do="0 or 0.9 are usual.")
    require_range("weight_decay", weight_decay, 0, do="Use 0 for none.")
    decay = optax.add_decayed_weights(weight_decay)
    return optax.with_extra_args_support(optax.chain(decay, optax.sgd(learning_rate, momentum)))


def _tuned_adam_optimizer(
    wiring: Wiring,
    *,
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.9,
    eps: Number = 1e-9,
    eps_root: Number = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    del wiring
    require_adam(learning_rate, b1, b2, eps)
    require_range("eps_root", eps_root, 0, do="1e-3 is the authors'.")
    return optax.with_extra_args_support(optax.adam(learning_rate, b1, b2, eps, eps_root))


def _weight_decay_optimizer(
    wiring: Wiring,
    *,
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: Number = 1e-2,
) -> optax.GradientTransformationExtraArgs:
    require_adam(learning_rate, b1, b2, eps)
    require_range("weight_decay", weight_decay, 0, do="Use 0 for plain Adam.")
    return optax.with_extra_args_support(
        optax.adamw(
            learning_rate,
            b1,
            b2,
            eps,
            weight_decay=weight_decay,
            mask=lambda params: wiring.mask(params, "matrix", "head"),
        )
    )


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
WEIGHT_DECAY = Method(
    name="weight-decay",
    summary="Adam with decoupled weight decay on kernels (AdamW)",
    reference="Loshchilov and Hutter 2019, algorithm 2",
    optimizer=_weight_decay_optimizer,
    off={"weight_decay": 0.0},
    lowers="weight_norm",
)

METHODS = (SGD, ADAM, TUNED_ADAM, WEIGHT_DECAY)
