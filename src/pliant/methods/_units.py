"""Methods that reset single units or weights, and an optimizer that takes notice of it."""

import optax

from pliant.errors import require_adam
from pliant.interventions import continual_backprop, redo, regrama, scheduled_redo, selective_reinit, snr
from pliant.methods._builders import adam_optimizer, on_roles
from pliant.optimizers import scale_by_adam_per_weight
from pliant.types import Method, Number, Wiring


def _per_weight_adam_optimizer(
    wiring: Wiring, *, learning_rate: Number, b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Adam with moments that count the updates of each weight.

    Args:
      wiring: not used.
      learning_rate: step size, ≥ 0.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ≥ 0, outside the root.
    """
    del wiring
    require_adam(learning_rate, b1, b2, eps)
    return optax.with_extra_args_support(
        optax.chain(scale_by_adam_per_weight(b1, b2, eps), optax.scale_by_learning_rate(learning_rate))
    )


REDO = Method(
    name="redo",
    summary="Adam with a periodic reset of dormant units",
    reference="Sokar et al. 2023, algorithm 1",
    optimizer=adam_optimizer,
    intervention=redo,
    off={"threshold": -1.0},
    lowers="dormant_fraction",
)
REDO_SCHEDULED = Method(
    name="redo-scheduled",
    summary="Adam with a periodic reset of the least active units, fewer and fewer of them",
    reference="Sokar et al. 2023, the code's scheduled recycler",
    optimizer=adam_optimizer,
    intervention=scheduled_redo,
    off={"fraction": 0.0},
    lowers="dormant_fraction",
)
CONTINUAL_BACKPROP = Method(
    name="continual-backprop",
    summary="Adam that replaces the least useful units all along, a few at a time",
    reference="Dohare et al. 2024, methods; Dohare et al. 2021, algorithm 1",
    optimizer=adam_optimizer,
    intervention=continual_backprop,
    off={"replacement_rate": 0.0},
    remembers="the utilities and ages of units",
)
REGRAMA = Method(
    name="regrama",
    summary="Adam with a periodic reset of units that get hardly any gradient",
    reference="Liu et al. 2025 (arXiv 2505.24061)",
    optimizer=adam_optimizer,
    intervention=regrama,
    off={"threshold": -1.0},
    lowers="dormant_fraction",
)
SNR = Method(
    name="snr",
    summary="Adam that resets units which are silent for longer than is usual for them",
    reference="Farias and Jozefiak 2025, algorithm 1",
    optimizer=adam_optimizer,
    intervention=snr,
    off={"quantile": 1.0},
    remembers="how long units are usually silent",
)
SELECTIVE_WEIGHT_REINIT = Method(
    name="selective-weight-reinit",
    summary="Adam with a periodic fresh start of the least useful weights of every kernel",
    reference="Hernandez-Garcia et al. 2025 (arXiv 2508.00212)",
    optimizer=adam_optimizer,
    intervention=on_roles(selective_reinit, "matrix", "head"),
    off={"fraction": 0.0},
)
ADAM_PER_WEIGHT = Method(
    name="adam-per-weight",
    summary="Adam with a bias correction for every weight: one that is reset starts like a new one; add it to resets",
    reference="Dohare et al. 2024, AdamGnT of their code",
    optimizer=_per_weight_adam_optimizer,
)

METHODS = (REDO, REDO_SCHEDULED, CONTINUAL_BACKPROP, REGRAMA, SNR, SELECTIVE_WEIGHT_REINIT, ADAM_PER_WEIGHT)
