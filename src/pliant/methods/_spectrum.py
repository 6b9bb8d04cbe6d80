"""Methods that keep norms and spectra of the weights in bounds."""

from typing import Literal

from pliant.errors import UserError
from pliant.interventions import nap, unit_sphere, weight_clipping
from pliant.methods._builders import adam_optimizer
from pliant.penalties import effective_rank, spectral
from pliant.types import Method, Number, Penalty, Role, Wiring


def _spectral(
    wiring: Wiring,
    *,
    strength: Number = 1e-3,
    exponent: int = 2,
    gain: Number = 1.0,
    target: Literal["gain", "start"] = "gain",
    include_head: bool = True,
    include_bias: bool = True,
    pull_to_one: bool = False,
) -> Penalty:
    """The penalty on kernels, biases and norms; its other options are those of `spectral`.

    Args:
      wiring: names the parameters.
      strength: ≥ 0, what the penalty is multiplied by in the loss.
      exponent: ≥ 1, of the distance of a spectral norm from its target.
      gain: > 0, the target of every spectral norm.
      target: "gain", or "start" for each kernel's initial spectral norm.
      include_head: whether the output layer's kernel is among them.
      include_bias: whether the norms of biases are pulled to 0.
      pull_to_one: whether the scales of norms are pulled to 1, where they start, and their offsets to 0.
    """
    kernels: tuple[Role, ...] = ("matrix", "head") if include_head else ("matrix",)
    present = set(wiring.roles.values())
    return spectral(
        strength,
        exponent=exponent,
        gain=gain,
        target=target,
        mask=lambda params: wiring.mask(params, *kernels),
        bias_mask=(lambda params: wiring.mask(params, "bias")) if include_bias and "bias" in present else None,
        norm_mask=(lambda params: wiring.mask(params, "norm")) if pull_to_one and "norm" in present else None,
        output_axes=wiring,
    )


def _effective_rank(wiring: Wiring, *, strength: Number = 2e-2, l2_strength: Number = 1e-3) -> Penalty:
    """Of what the head reads, and of the last hidden layer in front of it."""
    if wiring.head_input is None:
        raise UserError(
            got="the effective rank of features on a network without hidden layers",
            wanted="at least one hidden layer",
            do="Choose a network with hidden layers.",
        )
    before = [layer.name for layer in wiring.layers if layer.name != wiring.head_input]
    layers = (*before[-1:], wiring.head_input)
    return effective_rank(
        strength,
        l2_strength=l2_strength,
        layers=layers,
        mask=lambda params: wiring.mask(params, "matrix", "head"),
        wiring=wiring,
    )


SPECTRAL = Method(
    name="spectral",
    summary="Adam with a penalty on spectral norms other than 1, and on long biases",
    reference="Lewandowski et al. 2025, section 4",
    optimizer=adam_optimizer,
    penalty=_spectral,
    off={"strength": 0.0},
    lowers="penalty",
)
EFFECTIVE_RANK = Method(
    name="effective-rank",
    summary="Adam with a reward for last features of high effective rank, and L2 (L2-ER)",
    reference="He, Guo et al. 2025, L2-ER",
    optimizer=adam_optimizer,
    penalty=_effective_rank,
    off={"strength": 0.0, "l2_strength": 0.0},
    lowers="penalty",
)

SPECTRAL_NORM_LAYER = Method(
    name="spectral-norm-layer",
    summary="Adam on a network whose first dense layer is divided by its spectral norm",
    reference="Gogianu et al. 2021; Lyle et al. 2023, section 5.2",
    optimizer=adam_optimizer,
    network={"linear": "spectral-norm-first"},
)
WEIGHT_NORM = Method(
    name="weight-norm",
    summary="Adam on a network with weight normalisation: direction and size of every unit's weights apart",
    reference="Salimans and Kingma 2016, equation 2",
    optimizer=adam_optimizer,
    network={"linear": "weight-norm"},
)
UNIT_SPHERE = Method(
    name="unit-sphere",
    summary="Adam with every unit's weights projected to norm 1, and a learned scale behind them",
    reference="Lee et al. 2025 (SimbaV2)",
    optimizer=adam_optimizer,
    intervention=unit_sphere,
    network={"linear": "scaled"},
    off={"strength": 0.0},
)
NAP = Method(
    name="nap",
    summary="Adam with layer norms, and weights projected to their initial norms (Normalize-and-Project)",
    reference="Lyle et al. 2024, algorithm 1",
    optimizer=adam_optimizer,
    intervention=nap,
    network={"norm": "layer", "use_bias": False},
    off={"strength": 0.0},
    lowers="weight_norm",
)
WEIGHT_CLIPPING = Method(
    name="weight-clipping",
    summary="Adam with weights clipped to a multiple of the bounds of a uniform initialisation",
    reference="Elsayed et al. 2024",
    optimizer=adam_optimizer,
    intervention=weight_clipping,
    off={"kappa": 1e30},
    lowers="weight_norm",
)

METHODS: tuple[Method, ...] = (
    SPECTRAL,
    EFFECTIVE_RANK,
    SPECTRAL_NORM_LAYER,
    WEIGHT_NORM,
    UNIT_SPHERE,
    NAP,
    WEIGHT_CLIPPING,
)
