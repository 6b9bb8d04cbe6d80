"""Methods that keep kernels near isometry."""

from pliant.interventions import fire, reprojection
from pliant.methods._builders import adam_optimizer, on_roles
from pliant.optimizers import adamo
from pliant.penalties import gram, parseval
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
PARSEVAL = Method(
    name="parseval",
    summary="Adam with a penalty that keeps the units of every hidden layer orthogonal",
    reference="Chung et al. 2024, Parseval regularisation",
    optimizer=adam_optimizer,
    penalty=on_roles(parseval, "matrix"),
    off={"strength": 0.0},
    lowers="penalty",
)
NEWTON_SCHULZ = Method(
    name="newton-schulz",
    summary="Adam on hidden layers that apply the orthogonalised value of their weights",
    reference="Anil et al. 2019; Rosseau et al. 2026, appendix B",
    optimizer=adam_optimizer,
    intervention=on_roles(reprojection, "matrix"),
    network={"linear": "newton-schulz"},
    off={"every": 0},
    lowers="isometry_deviation",
)
NEWTON_SCHULZ_MAXMIN = NEWTON_SCHULZ._replace(
    name="newton-schulz-maxmin",
    summary="Adam on orthogonalised hidden layers with MaxMin between: isometric by construction",
    reference="Anil et al. 2019; Rosseau et al. 2026, section 3.1 and appendix B",
    network={"linear": "newton-schulz", "activation": "maxmin"},
)
FIRE = Method(
    name="fire",
    summary="Adam; when the task changes, every kernel becomes an isometry close to it",
    reference="Han et al. 2026, FIRE",
    optimizer=adam_optimizer,
    intervention=on_roles(fire, "matrix", "head"),
    off={"every_tasks": 0},
    boundary_aware=True,
)

METHODS = (ADAMO, ADAMO_MAXMIN, GRAM_PENALTY, PARSEVAL, NEWTON_SCHULZ, NEWTON_SCHULZ_MAXMIN, FIRE)
