"""Methods that keep kernels near isometry."""

import optax

from pliant.methods._baselines import adam_optimizer
from pliant.optimizers import adamo
from pliant.penalties import gram
from pliant.types import Method, Number, Penalty, Wiring


def _adamo_optimizer(
    wiring: Wiring,
    *,
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    isometry_strength: Number = 0.1,
    isometry_every: Number = 16,
    gain: Number = 1.0,
) -> optax.GradientTransformationExtraArgs:
    return adamo(
        learning_rate,
        b1,
        b2,
        eps,
        isometry_strength=isometry_strength,
        isometry_every=isometry_every,
        gain=gain,
        mask=lambda params: wiring.mask(params, "matrix"),
    )


def _gram_penalty(wiring: Wiring, *, strength: Number = 1e-3, gain: Number = 1.0) -> Penalty:
    return gram(strength, gain=gain, mask=lambda params: wiring.mask(params, "matrix"))


ADAMO = Method(
    name="adamo",
    summary="Adam with a decoupled step of the hidden kernels towards isometry",
    reference="Rosseau et al. 2026, equations 16–20",
    optimizer=_adamo_optimizer,
    off={"isometry_strength": 0.0},
    lowers="isometry_deviation",
)
ADAMO_MAXMIN = ADAMO._replace(
    name="adamo-maxmin",
    summary="AdamO on a network with MaxMin activations: isometric almost everywhere",
    reference="Rosseau et al. 2026, sections 3.1 and 4.4",
    network={"activation": "maxmin"},
)
GRAM_PENALTY = Method(
    name="gram-penalty",
    summary="Adam with the Gram deviation of the hidden kernels in the loss: AdamO's coupled form",
    reference="Rosseau et al. 2026, equation 18",
    optimizer=adam_optimizer,
    penalty=_gram_penalty,
    off={"strength": 0.0},
    lowers="isometry_deviation",
)

METHODS = (ADAMO, ADAMO_MAXMIN, GRAM_PENALTY)
