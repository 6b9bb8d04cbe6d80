"""Methods that reset single units."""

from pliant.interventions import redo
from pliant.methods._baselines import adam_optimizer
from pliant.types import Intervention, Method, Number, Wiring


def _redo_intervention(
    wiring: Wiring, *, threshold: Number = 0.025, reset_every: Number = 1000, num_examples: int = 64
) -> Intervention:
    return redo(wiring, threshold=threshold, every=reset_every, num_examples=num_examples)


REDO = Method(
    name="redo",
    summary="Adam with a periodic reset of dormant units",
    reference="Sokar et al. 2023, algorithm 1",
    optimizer=adam_optimizer,
    intervention=_redo_intervention,
    off={"threshold": -1.0},
    lowers="dormant_fraction",
)

METHODS = (REDO,)
