"""The sentences of Lyle's survey of 2025 that runs can test."""

from pliant.experiments._claims import Claim, Difference
from pliant.experiments._experiment import Experiment
from pliant.experiments._figures import over_tasks
from pliant.experiments._quantities import Score
from pliant.experiments.benchmarks import REMEDIES

_LOSS = 0.05  # the smallest loss of accuracy over a stream that is called one
_CHANCE = 0.1  # accuracy of guessing among ten digits


def _better(name: str, sentence: str, section: str, method: str, other: str = "adam", by: float = 0.02) -> Claim:
    return Claim(name, sentence, section, (Difference(Score(method), Score(other), by),))


def _keeps(method: str) -> tuple[Difference, ...]:
    """A method learns something, and as much at the end as at the beginning."""
    return (Difference(Score(method), _CHANCE, by=_LOSS), Difference(Score(method, over="rise"), 0.0, by=-_LOSS))


_REMEDIES = Experiment(
    "survey/remedies",
    "Which families of remedies work, side by side?",
    "Lyle 2025, a survey of plasticity in neural networks (summer 2025)",
    "An opinion, from experience: full resets are easiest; LayerNorm with weight decay looks extremely good; LayerNorm "
    "with constrained weight norms shows basically no loss.",
    {"digits": "survey/remedies"},
    (
        Claim(
            "full-reset-fixes",
            "The easiest way to fix a broken network is to begin with a new one.",
            "full resets",
            (*_keeps("full-reset"), Difference(Score("full-reset"), Score("adam"), by=0.1)),
        ),
        _better(
            "distillation-catches-up",
            "A reset network that is distilled from the old one keeps learning.",
            "full resets",
            "reset-distill",
            by=0.1,
        ),
        _better(
            "shrink-perturb-is-strong",
            "Shrink and perturb remains a strong baseline.",
            "full resets",
            "shrink-perturb",
            by=0.1,
        ),
        _better(
            "hare-tortoise-helps",
            "Resetting to a slow average of the weights helps.",
            "full resets",
            "hare-tortoise",
        ),
        _better("injection-helps", "Plasticity injection helps.", "full resets", "plasticity-injection"),
        _better(
            "resetting-dense-layers-helps",
            "Resetting the final fully connected layers is especially helpful.",
            "full resets",
            "last-k-reset",
        ),
        _better("redo-helps", "Resetting dormant units gives plasticity for free.", "neuron resets", "redo"),
        _better(
            "optimizer-reset-boosts",
            "Resetting Adam's statistics when the target changes boosts performance significantly.",
            "optimizer resets",
            "optimizer-reset",
        ),
        _better(
            "cyclic-rate-helps",
            "A cyclic learning rate helps, even if it is not aligned with task boundaries.",
            "optimizer resets",
            "cyclic-lr",
        ),
        _better(
            "regenerating-helps", "Regularising towards the initial parameters helps.", "regularization", "l2-init"
        ),
        _better(
            "parameters-before-features",
            "In task-incremental learning, regularising parameters towards the start is better than features.",
            "regularization",
            "l2-init",
            "feature-init",
            by=0.0,
        ),
        Claim(
            "top-singular-value-is-enough",
            "Regularising the largest singular value alone keeps the representation well conditioned.",
            "regularization",
            (
                Difference(Score("spectral", "effective_rank"), Score("adam", "effective_rank"), by=1.0),
                Difference(Score("spectral"), Score("adam"), by=0.02),
            ),
        ),
        Claim(
            "clipping-keeps-trainable",
            "Clipping the weights keeps networks out of untrainable regions: they still learn half of a task.",
            "constraints",
            (Difference(Score("weight-clipping"), 0.5, by=0.0),),
        ),
        Claim(
            "layernorm-avoids-collapse",
            "LayerNorm and a well-tuned optimizer are almost always enough to avoid catastrophic pathologies.",
            "constraints",
            (Difference(Score("layernorm"), Score("adam"), by=0.1), Difference(Score("layernorm"), 0.5, by=0.0)),
        ),
        Claim(
            "layernorm-decay-looks-good",
            "LayerNorm with weight decay comes out extremely good.",
            "constraints",
            (
                Difference(Score("layernorm-weight-decay"), Score("adam"), by=0.1),
                Difference(Score("layernorm-weight-decay"), Score("layernorm"), by=0.0),
            ),
        ),
        Claim(
            "norm-and-projection-keep",
            "With LayerNorm and constrained weight norms there are basically no signs of loss of plasticity.",
            "constraints",
            _keeps("nap"),
        ),
        _better(
            "activations-matter",
            "Other activation functions improve stability (CReLU).",
            "network architecture",
            "crelu",
        ),
        _better("residuals-help", "Residual connections help.", "network architecture", "residual"),
    ),
    over_tasks(
        "Remedies side by side",
        *((family, "digits", "") for family in REMEDIES),
        methods={family: ("adam", *methods) for family, methods in REMEDIES.items()},
    ),
)

EXPERIMENTS = (_REMEDIES,)
