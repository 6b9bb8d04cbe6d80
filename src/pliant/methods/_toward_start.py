"""Methods that pull the network towards where it started."""

from pliant.interventions import pull_to_init
from pliant.methods._builders import adam_optimizer, on_roles
from pliant.penalties import feature_init, infer, l2_init, wasserstein_init, with_auxiliary_heads
from pliant.types import Method, Role

_PULLED: tuple[Role, ...] = ("matrix", "head", "bias", "embed", "other")

L2_INIT = Method(
    name="l2-init",
    summary="Adam with a penalty on the squared distance from the initial weights",
    reference="Kumar et al. 2023, section 4",
    optimizer=adam_optimizer,
    penalty=on_roles(l2_init, *_PULLED),
    off={"strength": 0.0},
    lowers="distance_from_init",
    remembers="the initial weights",
)
L2_INIT_DECOUPLED = Method(
    name="l2-init-decoupled",
    summary="Adam with a pull towards the initial weights after every update, past the moments",
    reference="Kumar et al. 2023, section 4; decoupled as in Loshchilov and Hutter 2019, algorithm 2",
    optimizer=adam_optimizer,
    intervention=on_roles(pull_to_init, *_PULLED),
    off={"strength": 0.0},
    remembers="the initial weights",
)
WASSERSTEIN_INIT = Method(
    name="wasserstein-init",
    summary="Adam with a penalty on the distance of the weights' distribution from the initial one",
    reference="Lewandowski et al. 2023 (arXiv 2312.00246)",
    optimizer=adam_optimizer,
    penalty=on_roles(wasserstein_init, *_PULLED),
    off={"strength": 0.0},
    lowers="penalty",
    remembers="the initial weights",
)
INFER = Method(
    name="infer",
    summary="Adam with linear functions of the features held at a multiple of their initial values (InFeR)",
    reference="Lyle et al. 2022, section 4",
    optimizer=adam_optimizer,
    penalty=infer,
    wrap=with_auxiliary_heads,
    off={"strength": 0.0},
    lowers="penalty",
    remembers="the initial features",
)
FEATURE_INIT = Method(
    name="feature-init",
    summary="Adam with a penalty on the distance of the last hidden features from their initial values",
    reference="Lyle et al. 2022, a variant",
    optimizer=adam_optimizer,
    penalty=feature_init,
    off={"strength": 0.0},
    lowers="penalty",
    remembers="the initial features",
)

METHODS = (L2_INIT, L2_INIT_DECOUPLED, WASSERSTEIN_INIT, INFER, FEATURE_INIT)
