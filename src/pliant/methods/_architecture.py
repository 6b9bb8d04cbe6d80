"""Methods that are another network: activations, residual branches, experts."""

from pliant.methods._builders import adam_optimizer
from pliant.types import Method

MAX_MIN = Method(
    name="maxmin",
    summary="Adam on a network with MaxMin activations: pairs are sorted, so norms pass and no unit can die",
    reference="Anil, Lucas, Grosse 2019",
    optimizer=adam_optimizer,
    network={"activation": "maxmin"},
)
CRELU = Method(
    name="crelu",
    summary="Adam with concatenated ReLU: ReLU of x beside that of −x, so every unit passes a gradient; fewer units",
    reference="Abbas et al. 2023; Shang et al. 2016, equation 2; Kumar et al. 2023, for fewer units",
    optimizer=adam_optimizer,
    network={"activation": "crelu", "width_multiplier": 0.71},  # 1/√2: as many weights between hidden layers
)
FOURIER = Method(
    name="fourier",
    summary="Adam on deep Fourier features: sine beside cosine of half as many units; one of them is always steep",
    reference="Lewandowski, Schuurmans, Machado 2025",
    optimizer=adam_optimizer,
    network={"activation": "fourier", "width_multiplier": 0.5},
)
LEAKY = Method(
    name="leaky",
    summary="Adam on a network with leaky ReLU of slope 0.01: no unit is without a gradient",
    reference="Maas, Hannun, Ng 2013, section 2",
    optimizer=adam_optimizer,
    network={"activation": "leaky-relu"},
)
SMOOTH_LEAKY = Method(
    name="smooth-leaky",
    summary="Adam on a network with Smooth-Leaky activations: from slope 0.1 to 1 without a kink",
    reference="Lillo and Cheney 2026, equation 1",
    optimizer=adam_optimizer,
    network={"activation": "smooth-leaky"},
)
RATIONAL = Method(
    name="rational",
    summary="Adam on a network whose layers learn their activations: quotients of polynomials",
    reference="Delfosse et al. 2024; Molina, Schramowski, Kersting 2020",
    optimizer=adam_optimizer,
    network={"activation": "rational"},
)
AID = Method(
    name="aid",
    summary="Adam with activation by interval-wise dropout: by chance either the positive or the negative part passes",
    reference="Park et al. 2025, algorithm 2",
    optimizer=adam_optimizer,
    network={"activation": "aid"},
)
RESIDUAL = Method(
    name="residual",
    summary="Adam on a residual network in place of the MLP: a block for every hidden layer, added to a stream",
    reference="He et al. 2016, equation 1; Lyle et al. 2023",
    optimizer=adam_optimizer,
    replaces={"mlp": "residual-mlp"},
)
MIXTURE_OF_EXPERTS = Method(
    name="mixture-of-experts",
    summary="Adam on an MLP with a soft mixture of four experts before its head",
    reference="Obando-Ceron et al. 2024",
    optimizer=adam_optimizer,
    replaces={"mlp": "moe-mlp"},
)

METHODS = (MAX_MIN, CRELU, FOURIER, LEAKY, SMOOTH_LEAKY, RATIONAL, AID, RESIDUAL, MIXTURE_OF_EXPERTS)
