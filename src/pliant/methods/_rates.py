"""Methods that pace learning: schedules of the learning rate, and churn."""

from typing import Literal

from pliant.methods._builders import adam_optimizer
from pliant.optimizers import task_schedule
from pliant.penalties import churn
from pliant.types import Method, Number, Penalty, Schedule, Wiring


def _cyclic(wiring: Wiring, *, warmup: Number = 0.1, floor: Number = 0.0) -> Schedule:
    del wiring
    return task_schedule(warmup=warmup, floor=floor)


def _rewarmed(wiring: Wiring, *, warmup: Number = 0.1) -> Schedule:
    del wiring
    return task_schedule(warmup=warmup, floor=1.0)


def _churn(
    wiring: Wiring,
    *,
    strength: Number = 0.01,
    decay: Number = 0.99,
    distance: Literal["squared", "kl"] = "squared",
    lag: int = 1,
    num_examples: int = 32,
) -> Penalty:
    del wiring
    return churn(strength, decay=decay, distance=distance, lag=lag, num_examples=num_examples)


CYCLIC_LR = Method(
    name="cyclic-lr",
    summary="Adam with a learning rate that warms up and falls along a cosine within each task",
    reference="Loshchilov and Hutter 2017, equation 5",
    optimizer=adam_optimizer,
    schedule=_cyclic,
    off={"warmup": 0.0, "floor": 1.0},
    boundary_aware=True,
)
REWARMED_LR = Method(
    name="rewarmed-lr",
    summary="Adam with a learning rate that warms up at the start of each task, then stays",
    reference="Gupta et al. 2023, section 3; Lee et al. 2024, a tenth of the task",
    optimizer=adam_optimizer,
    schedule=_rewarmed,
    off={"warmup": 0.0},
    boundary_aware=True,
)
C_CHAIN = Method(
    name="c-chain",
    summary="Adam with a penalty on what an update changes of the outputs on other examples",
    reference="Tang et al. 2025; Tang and Berseth 2024",
    optimizer=adam_optimizer,
    penalty=_churn,
    off={"strength": 0.0},
    remembers="the last weights",
)

METHODS = (CYCLIC_LR, REWARMED_LR, C_CHAIN)
