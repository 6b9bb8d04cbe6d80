"""Methods that pull the network towards where it started."""

from pliant.methods._baselines import adam_optimizer
from pliant.penalties import l2_init
from pliant.types import Method, Number, Penalty, Wiring


def _l2_init_penalty(wiring: Wiring, *, strength: Number = 1e-2) -> Penalty:
    return l2_init(strength, mask=lambda params: wiring.mask(params, "matrix", "head", "bias", "embed", "other"))


L2_INIT = Method(
    name="l2-init",
    summary="Adam with a penalty on the squared distance from the initial weights",
    reference="Kumar et al. 2023, section 4",
    optimizer=adam_optimizer,
    penalty=_l2_init_penalty,
    off={"strength": 0.0},
    lowers="distance_from_init",
)

METHODS = (L2_INIT,)
