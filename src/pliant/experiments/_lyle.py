"""The experiments of *Understanding Plasticity in Neural Networks*."""

from pliant.experiments._claims import Claim, Difference
from pliant.experiments._experiment import Experiment
from pliant.experiments._figures import against, matrix, over_tasks
from pliant.experiments._quantities import Score

PAPER = "Lyle et al. 2023 (arXiv 2303.01486)"
INCREASE = "probe_loss_increase"

_OPTIMIZER = Experiment(
    "lyle/optimizer",
    "Can an optimizer alone destroy plasticity?",
    f"{PAPER}, section 3.1 and figure 1",
    "With default Adam the accuracy on new random labels collapses and most units die; a larger ϵ and a faster second "
    "moment avoid it.",
    {"mnist": "lyle/optimizer-instability"},
    (
        Claim(
            "default-adam-diverges",
            "Default Adam quickly ends in trivial performance on tasks that a fresh network solves.",
            "section 3.1, figure 1",
            (Difference(Score("adam", over="first"), 0.95, by=0.0), Difference(0.15, Score("adam"), by=0.0)),
        ),
        Claim(
            "adam-kills-units",
            "Default Adam saturates most of the ReLU units.",
            "section 3.1, figure 1",
            (Difference(Score("adam", "never_active_fraction"), 0.5, by=0.0),),
        ),
        Claim(
            "tuned-adam-is-stable",
            "A larger ϵ and a faster decay of the second moment avoid the collapse.",
            "section 3.1, figure 1",
            (
                Difference(Score("adam-tuned", over="rise"), 0.0, by=-0.05),
                Difference(Score("adam-tuned"), Score("adam"), by=0.1),
            ),
        ),
        Claim(
            "tuned-adam-keeps-units",
            "With the tuned optimizer units stay alive.",
            "section 3.1, figure 1",
            (
                Difference(
                    Score("adam", "never_active_fraction"), Score("adam-tuned", "never_active_fraction"), by=0.1
                ),
                Difference(0.5, Score("adam-tuned", "never_active_fraction"), by=0.0),
            ),
        ),
    ),
    over_tasks(
        "Random labels of MNIST", ("accuracy", "mnist", ""), ("units that never fire", "mnist", "never_active_fraction")
    ),
)

_TWIN = Experiment(
    "lyle/curvature",
    "Does learning sharpen the landscape more than moving does?",
    f"{PAPER}, section 3.2 and figure 2",
    "Spectral norms of the Hessian grow under gradient descent and under a random walk with equal steps; outliers grow "
    "much faster under gradient descent, which also makes gradients interfere.",
    {"mnist": "lyle/brownian"},
    (
        Claim(
            "sharpens-under-descent",
            "The spectral norm of the Hessian increases over time under gradient descent.",
            "section 3.2, figure 2",
            (Difference(Score("sgd", "probe_hessian_top", "rise"), 0.0, by=0.0),),
        ),
        Claim(
            "sharpens-under-random-walk",
            "The spectral norm of the Hessian increases over time under the random walk as well.",
            "section 3.2, figure 2",
            (Difference(Score("sgd", "twin_hessian_top", "rise"), 0.0, by=0.0),),
        ),
        Claim(
            "sharper-than-random-walk",
            "Outliers of the spectrum grow faster under gradient descent than under the random walk.",
            "section 3.2, figure 2",
            (Difference(Score("sgd", "probe_hessian_top"), Score("sgd", "twin_hessian_top"), by=0.0),),
        ),
        Claim(
            "more-interference",
            "Gradient descent makes gradients of examples interfere more than a random walk does: their cosines are "
            "larger in size, while the probe's noise decides their signs.",
            "section 3.2, figure 2",
            (
                Difference(
                    Score("sgd", "probe_gradient_cosine_mean_absolute"),
                    Score("sgd", "twin_gradient_cosine_mean_absolute"),
                    by=0.02,
                ),
            ),
        ),
    ),
    over_tasks(
        "Q-learning beside a random walk",
        ("largest eigenvalue, learning", "mnist", "probe_hessian_top"),
        ("largest eigenvalue, random walk", "mnist", "twin_hessian_top"),
        ("size of cosines, learning", "mnist", "probe_gradient_cosine_mean_absolute"),
        ("size of cosines, random walk", "mnist", "twin_gradient_cosine_mean_absolute"),
    ),
    (Score("", "probe_hessian_top"), Score("", "twin_hessian_top")),
)

_FINAL = "probe_final_loss"
_DATASETS = ("digits", "mnist", "cifar10")
_BY_DATASET = {f"easy, {dataset}": f"lyle/mdp-easy-{dataset}" for dataset in _DATASETS}


def _lower(method: str, other: str, metric: str, run: str, by: float = 0.0) -> Difference:
    return Difference(Score(other, metric, run=run), Score(method, metric, run=run), by)


_AGES = Experiment(
    "lyle/probe-curves",
    "How does the ability to fit new targets change with age?",
    f"{PAPER}, section 4.3 and figure 4",
    "The older the network, the slower it fits a new target.",
    _BY_DATASET,
    (
        *(
            Claim(
                f"older-fits-worse-{dataset}",
                f"The final loss on new targets increases with the age of the network: {dataset}.",
                "section 4.3, figure 4",
                (
                    Difference(Score("adam", INCREASE, run=f"easy, {dataset}"), 0.0, by=0.0),
                    Difference(Score("adam", INCREASE, "rise", f"easy, {dataset}"), 0.0, by=0.0),
                ),
            )
            for dataset in _DATASETS
        ),
        Claim(
            "layernorm-stays-able",
            "With LayerNorm the network fits new targets better in old age.",
            "section 5.2, figure 16",
            tuple(_lower("layernorm", "adam", "probe_final_loss", run) for run in _BY_DATASET),
        ),
        Claim(
            "layernorm-learns-stably",
            "With LayerNorm learning is more stable: temporal-difference errors are smaller.",
            "appendix B.2.1",
            tuple(_lower("layernorm", "adam", "td_error", run) for run in _BY_DATASET),
        ),
        Claim(
            "older-is-slower",
            "Old networks fit new targets more slowly rather than getting stuck: after a quarter of the updates their "
            "loss is higher than that of young ones, and it goes on falling.",
            "section 4.3, figure 4",
            tuple(
                each
                for run in _BY_DATASET
                for each in (
                    Difference(Score("adam", "probe_final_loss/500", "rise", run), 0.0, by=0.0),
                    Difference(Score("adam", "probe_final_loss/500", run=run), Score("adam", _FINAL, run=run), by=0.05),
                )
            ),
        ),
        *(
            Claim(
                f"lost-without-saturation-{dataset}",
                f"Plasticity is often lost in the absence of saturated units: {dataset}.",
                "abstract",
                (
                    Difference(Score("adam", INCREASE, run=f"easy, {dataset}"), 0.0, by=0.0),
                    Difference(0.05, Score("adam", "dormant_exact_fraction", run=f"easy, {dataset}"), by=0.0),
                ),
            )
            for dataset in _DATASETS
        ),
    ),
    over_tasks(
        "Increase of the loss on random functions",
        *((label, label, INCREASE) for label in _BY_DATASET),
    ),
    (Score("", INCREASE),),
)

_WIDTHS = (16, 32, 64, 128, 192, 256)
_WIDTH = Experiment(
    "lyle/width",
    "Is loss of plasticity a disease of small networks?",
    f"{PAPER}, section 5.1 and figure 5",
    "It declines with width, but does not vanish.",
    {str(width): f"lyle/width/{width}" for width in _WIDTHS},
    (
        Claim(
            "wider-loses-less",
            "Plasticity loss declines with width: layers of 256 lose less than layers of 16.",
            "section 5.1, figure 5",
            (Difference(Score("adam", INCREASE, run="16"), Score("adam", INCREASE, run="256"), by=0.0),),
        ),
        Claim(
            "width-is-not-enough",
            "Even the widest network loses some plasticity.",
            "section 5.1, figure 5",
            (Difference(Score("adam", INCREASE, run="256"), 0.0, by=0.0),),
        ),
    ),
    against(
        "Width and plasticity",
        "units of a layer",
        "increase of the loss on random functions",
        ("MLP on MNIST", {"adam": {float(width): Score("adam", INCREASE, run=str(width)) for width in _WIDTHS}}),
    ),
    (Score("", INCREASE),),
)

_NETWORKS = {"mlp": "MLP", "cnn": "CNN", "resnet18": "ResNet", "vit": "transformer"}
_METHODS = (
    "adam",
    "two-hot",
    "head-reset",
    "optimizer-reset",
    "l2",
    "shrink-perturb",
    "layernorm",
    "spectral-norm-layer",
)


_PLAIN = ("mlp", "cnn")


def _of_interventions(network: str) -> tuple[Claim, ...]:
    smoothing, name = {"mlp": ("two-hot", "two-hot targets"), "cnn": ("layernorm", "LayerNorm")}[network]
    where = f"(in the {_NETWORKS[network]})"

    def less_than_adam(method: str, metric: str = INCREASE) -> tuple[Difference, ...]:
        return (_lower(method, "adam", metric, network),)

    return (
        Claim(
            f"layernorm-reduces-loss-{network}",
            f"With LayerNorm trained networks fit new targets better {where}.",
            "section 5.2, appendix B.1",
            less_than_adam("layernorm", _FINAL),
        ),
        Claim(
            f"two-hot-reduces-loss-{network}",
            f"Two-hot targets reduce the loss of plasticity {where}.",
            "section 5.2, figure 6",
            less_than_adam("two-hot"),
        ),
        Claim(
            f"smoothing-beats-head-reset-{network}",
            f"A parameterisation that smooths the landscape, {name}, has a greater effect than resetting the last "
            f"layer {where}.",
            "section 5.2, figure 6",
            (_lower(smoothing, "head-reset", INCREASE, network),),
        ),
        Claim(
            f"head-reset-helps-{network}",
            f"Resetting the last layer reduces the loss of plasticity {where}.",
            "appendix B.1",
            less_than_adam("head-reset"),
        ),
        Claim(
            f"others-do-not-improve-{network}",
            f"Shrink and perturb, weight decay and optimizer resets do not reduce the loss of plasticity {where}.",
            "appendix B.1",
            (
                Difference(Score("adam", INCREASE, run=network), 0.0, by=0.02),
                *(
                    _lower("adam", method, INCREASE, network, by=-0.02)
                    for method in ("shrink-perturb", "l2", "optimizer-reset")
                ),
            ),
        ),
        Claim(
            f"perturbing-interferes-{network}",
            f"Perturbing the weights interferes with learning: returns are lower than without {where}.",
            "appendix B.1",
            (
                Difference(
                    Score("adam", "eval_return", run=network),
                    Score("shrink-perturb", "eval_return", run=network),
                    by=0.0,
                ),
            ),
        ),
    )


_INTERVENTIONS = Experiment(
    "lyle/interventions",
    "Which interventions prevent the loss of plasticity, on which architecture?",
    f"{PAPER}, section 5.2 and figures 6, 8 and 9",
    "Parameterisations that smooth the landscape, LayerNorm and two-hot targets, help most; resetting the last layer, "
    "weight decay and shrink and perturb help less.",
    {network: f"lyle/interventions/{network}" for network in _NETWORKS},
    (
        *(claim for network in _PLAIN for claim in _of_interventions(network)),
        Claim(
            "smoothing-beats-perturbing",
            "Methods that perturb or decay the weights help less than LayerNorm.",
            "section 1, figure 6",
            tuple(_lower("layernorm", method, INCREASE, "mlp") for method in ("shrink-perturb", "l2")),
        ),
    ),
    matrix(
        "Interventions and plasticity",
        "increase of the loss on random functions",
        _METHODS,
        {name: network for network, name in _NETWORKS.items()},
        INCREASE,
    ),
    (Score("", INCREASE),),
)

_ATARI = Experiment(
    "lyle/atari",
    "Does LayerNorm help a deep agent on Atari?",
    f"{PAPER}, section 5.3 and figure 7",
    "LayerNorm behind every hidden layer improves double DQN on most of 57 games.",
    {"atari": "lyle/atari-double-dqn"},
    (
        Claim(
            "layernorm-improves-atari",
            "LayerNorm improves the returns of double DQN (here: on one game).",
            "section 5.3, figure 7",
            (Difference(Score("rmsprop+layernorm"), Score("rmsprop"), by=0.0),),
        ),
    ),
    over_tasks("Double DQN on Atari", ("return", "atari", "")),
)

EXPERIMENTS = (_OPTIMIZER, _TWIN, _AGES, _WIDTH, _INTERVENTIONS, _ATARI)
