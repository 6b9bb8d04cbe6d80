"""Methods that pull the network towards where it started."""

from pliant.methods._builders import adam_optimizer, on_roles
from pliant.penalties import l2_init
from pliant.types import Method

L2_INIT = Method(
    name="l2-init",
    summary="Adam with a penalty on the squared distance from the initial weights",
    reference="Kumar et al. 2023, section 4",
    optimizer=adam_optimizer,
    penalty=on_roles(l2_init, "matrix", "head", "bias", "embed", "other"),
    off={"strength": 0.0},
    lowers="distance_from_init",
)

METHODS = (L2_INIT,)
