"""Methods that keep kernels near isometry."""

from pliant.methods._builders import adam_optimizer, on_roles
from pliant.optimizers import adamo
from pliant.penalties import gram
from pliant.types import Method

ADAMO = Method(
    name="adamo",
    summary="Adam with a decoupled step of the hidden kernels towards isometry",
    reference="Rosseau et al. 2026, equations 16–20",
    optimizer=on_roles(adamo, "matrix"),
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
    penalty=on_roles(gram, "matrix"),
    off={"strength": 0.0},
    lowers="isometry_deviation",
)

METHODS = (ADAMO, ADAMO_MAXMIN, GRAM_PENALTY)
