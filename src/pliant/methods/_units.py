"""Methods that reset single units."""

from pliant.interventions import redo
from pliant.methods._builders import adam_optimizer
from pliant.types import Method

REDO = Method(
    name="redo",
    summary="Adam with a periodic reset of dormant units",
    reference="Sokar et al. 2023, algorithm 1",
    optimizer=adam_optimizer,
    intervention=redo,
    off={"threshold": -1.0},
    lowers="dormant_fraction",
)

METHODS = (REDO,)
