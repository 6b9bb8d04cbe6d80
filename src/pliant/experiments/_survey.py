"""The sentences of Lyle's survey of 2025 that runs can test."""

from pliant.experiments._claims import Claim, Difference
from pliant.experiments._experiment import Experiment
from pliant.experiments._figures import over_tasks
from pliant.experiments._quantities import Score
from pliant.experiments.benchmarks import REMEDIES

_LOSS = 0.05  # the smallest loss of accuracy over a stream that is called one
_CHANCE = 0.1  # accuracy of guessing among ten digits


def _better(name: str, sentence: str, section: str, method: str, by: float = 0.02) -> Claim:
    """Better than Adam, and than guessing: Adam alone may have lost everything."""
    return Claim(name, sentence, section, (_learns(method), Difference(Score(method), Score("adam"), by)))


def _learns(method: str) -> Difference:
    return Difference(Score(method), _CHANCE, by=_LOSS)


def _keeps(method: str) -> tuple[Difference, ...]:
    """A method learns something, and as much at the end as at the beginning."""
    return (_learns(method), Difference(Score(method, over="rise"), 0.0, by=-_LOSS))


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
        Claim(
            "distillation-keeps-learning",
            "A reset network that is distilled from the old one keeps learning.",
            "full resets",
            (*_keeps("reset-distill"), Difference(Score("reset-distill"), Score("adam"), by=0.1)),
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
            "Named as a newer remedy: resetting to a slow average of the weights.",
            "full resets",
            "hare-tortoise",
        ),
        _better("injection-helps", "Named as a remedy: plasticity injection.", "full resets", "plasticity-injection"),
        _better(
            "resetting-dense-layers-helps",
            "Resetting the final fully connected layers helps.",
            "full resets",
            "last-k-reset",
        ),
        Claim(
            "redo-helps",
            "Resetting dormant units gives plasticity for free: it costs nothing while a task is learned.",
            "neuron resets",
            (
                _learns("redo"),
                Difference(Score("redo"), Score("adam"), by=0.02),
                Difference(Score("redo", "online_accuracy"), Score("adam", "online_accuracy"), by=0.0),
            ),
        ),
        *(
            _better(f"{method}-helps", f"Resets of neurons might facilitate learning: {name}.", "neuron resets", method)
            for method, name in {"continual-backprop": "continual backprop", "regrama": "ReGraMa"}.items()
        ),
        _better(
            "optimizer-reset-boosts",
            "Resetting Adam's statistics when the target changes boosts performance significantly.",
            "optimizer resets",
            "optimizer-reset",
            by=0.1,
        ),
        _better(
            "cyclic-rate-helps",
            "A cyclic learning rate helps; here it restarts in every task.",
            "optimizer resets",
            "cyclic-lr",
        ),
        _better(
            "regenerating-helps",
            "Named as a remedy: regularising towards the initial parameters.",
            "regularization",
            "l2-init",
        ),
        Claim(
            "parameters-before-features",
            "In task-incremental learning, regularising parameters towards the start is better than features.",
            "regularization",
            (Difference(Score("l2-init"), Score("feature-init"), by=0.0),),
        ),
        Claim(
            "top-singular-value-is-enough",
            "Regularising the largest singular value alone keeps the representation well conditioned: its effective "
            "rank stays above the number of classes.",
            "regularization",
            (
                Difference(Score("spectral", "effective_rank"), 10.0, by=0.0),
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
            "LayerNorm with weight decay comes out extremely good: well ahead of resets of units, L2, clipping, and "
            "shrink and perturb.",
            "constraints",
            tuple(
                Difference(Score("layernorm-weight-decay"), Score(other), by=0.1)
                for other in ("adam", "redo", "l2", "weight-clipping", "shrink-perturb")
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
            "Named as a remedy: other activation functions (CReLU).",
            "network architecture",
            "crelu",
        ),
        _better("residuals-help", "Named as a remedy: residual connections.", "network architecture", "residual"),
    ),
    over_tasks(
        "Remedies side by side",
        *((family, "digits", "") for family in REMEDIES),
        methods={family: ("adam", *methods) for family, methods in REMEDIES.items()},
    ),
)

EXPERIMENTS = (_REMEDIES,)
