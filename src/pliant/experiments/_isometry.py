"""The supervised experiments of *Preserving Plasticity in Continual Learning via Dynamical Isometry* (AdamO)."""

from collections.abc import Iterable
from itertools import permutations

from pliant.experiments._claims import Claim, Difference
from pliant.experiments._experiment import Experiment
from pliant.experiments._figures import against, over_tasks
from pliant.experiments._quantities import Gap, Score

PAPER = "Rosseau et al. 2026 (arXiv 2606.09762)"
_STREAMS = {
    "random labels": "isometry/random-label-cifar10",
    "permuted MNIST": "isometry/permuted-mnist",
    "permuted CIFAR-10": "isometry/permuted-cifar10",
    "label shuffle": "isometry/label-shuffled-cifar100",
}
OURS = ("adamo", "adamo-maxmin")
BASELINES = ("adam", "l2-init", "redo", "nap", "spectral")
_ACCURACY = 0.02  # the smallest difference of accuracies that counts
_LOSS = 0.05  # the smallest loss of accuracy over a stream that is called one
_CHANCE = {"label shuffle": 0.01}  # accuracy of guessing; otherwise 0.1
_UNIT = {"label shuffle": 0.2}  # of the two differences above: accuracies are a fifth of those of other streams


def _slug(label: str) -> str:
    return label.lower().replace(" ", "-")


def _learns(method: str, run: str = "") -> Difference:
    """A method is well above chance: what learns nothing neither keeps nor matches anything."""
    return Difference(Score(method, run=run), _CHANCE.get(run, 0.1), by=_loss(run))


def _loss(run: str) -> float:
    return _LOSS * _UNIT.get(run, 1)


def _keeps(run: str, method: str) -> tuple[Difference, ...]:
    return (_learns(method, run), Difference(Score(method, over="rise", run=run), 0.0, by=-_loss(run)))


def not_worse(run: str, methods: Iterable[str], others: Iterable[str]) -> tuple[Difference, ...]:
    others = tuple(others)
    margins = ((method, other) for method in methods for other in others)
    return (
        *(_learns(method, run) for method in methods),
        *(_better(run, method, other, by=-_accuracy(run)) for method, other in margins),
    )


def _accuracy(run: str) -> float:
    return _ACCURACY * _UNIT.get(run, 1)


def _better(run: str, method: str, other: str, by: float | None = None) -> Difference:
    return Difference(Score(method, run=run), Score(other, run=run), _accuracy(run) if by is None else by)


def _lead(run: str) -> Gap:
    return Gap(Score("adamo", run=run), Score("adam", run=run))


_SUPERVISED = Experiment(
    "isometry/supervised",
    "Do networks near dynamical isometry keep learning where others stop?",
    f"{PAPER}, section 6.1 and figure 1",
    "AdamO and AdamO with MaxMin keep their accuracy over the stream and beat all baselines on random labels and on "
    "permuted pixels; margins are narrower where labels are shuffled.",
    {label: f"{name}/mlp" for label, name in _STREAMS.items()},
    (
        Claim(
            "adam-loses-plasticity",
            "Standard optimizers that succeed in single-task training lose the ability to fit new random labels.",
            "sections 1 and 6.1",
            (Difference(Score("adam", over="fall", run="random labels"), 0.0, by=_LOSS),),
        ),
        Claim(
            "adamo-keeps-plasticity",
            "AdamO keeps fitting random labels.",
            "section 6, figure 1",
            _keeps("random labels", "adamo"),
        ),
        Claim(
            "maxmin-keeps-plasticity",
            "AdamO with MaxMin keeps fitting random labels.",
            "section 6, figure 1",
            _keeps("random labels", "adamo-maxmin"),
        ),
        *(
            Claim(
                f"ours-keep-{_slug(label)}",
                f"AdamO and AdamO with MaxMin maintain their accuracy: {label}.",
                "section 6",
                tuple(each for method in OURS for each in _keeps(label, method)),
            )
            for label in list(_STREAMS)[1:]
        ),
        *(
            Claim(
                f"ours-match-or-beat-{_slug(label)}",
                f"AdamO and AdamO with MaxMin match or surpass all baselines: {label}.",
                "abstract and section 6",
                not_worse(label, OURS, BASELINES),
            )
            for label in _STREAMS
        ),
        *(
            Claim(
                f"ours-outperform-{_slug(label)}",
                f"AdamO and AdamO with MaxMin outperform all baselines: {label}.",
                "section 6.1, figure 1",
                tuple(_better(label, method, other, by=0.0) for method in OURS for other in BASELINES),
            )
            for label in _STREAMS
        ),
        Claim(
            "gains-on-random-labels",
            "AdamO with ReLU units beats Adam clearly on random labels.",
            "section 6.1, figure 1",
            (_better("random labels", "adamo", "adam", by=0.1),),
        ),
        Claim(
            "generalises",
            "AdamO supports generalisation to unseen data, of permuted pixels and of shuffled labels.",
            "section 6.1, figure 1",
            tuple(_better(label, "adamo", "adam") for label in list(_STREAMS)[1:]),
        ),
        Claim(
            "narrower-on-shuffled-labels",
            "Margins are narrower on label-shuffled CIFAR-100: AdamO is ahead of Adam, by less than on other streams.",
            "section 6.1",
            (
                _better("label shuffle", "adamo", "adam", by=0.0),
                *(Difference(_lead(other), _lead("label shuffle"), by=0.0) for other in list(_STREAMS)[:3]),
            ),
        ),
        Claim(
            "relu-revival",
            "AdamO reduces the build-up of dormant ReLU units: under Adam more are dormant in the end.",
            "section 4.3, appendix B.4, figure 7",
            (
                Difference(
                    Score("adam", "dormant_fraction", run="random labels"),
                    Score("adamo", "dormant_fraction", run="random labels"),
                    by=0.05,
                ),
            ),
        ),
        Claim(
            "less-dormancy-than-baselines",
            "AdamO reduces or reverses the build-up of dormant units relative to the baselines.",
            "appendix B.4, figure 7",
            tuple(
                Difference(
                    Score(other, "dormant_fraction", "rise", "random labels"),
                    Score("adamo", "dormant_fraction", "rise", "random labels"),
                    by=0.0,
                )
                for other in BASELINES
            ),
        ),
        Claim(
            "isometric-networks-match",
            "Networks near isometry match unrestricted ones on the first task: AdamO with MaxMin against Adam.",
            "section 3.2",
            tuple(
                Difference(Score("adamo-maxmin", over="first", run=label), side, by)
                for label in _STREAMS
                for side, by in (
                    (_CHANCE.get(label, 0.1), _loss(label)),
                    (Score("adam", over="first", run=label), -_accuracy(label)),
                )
            ),
        ),
        Claim(
            "nap-is-a-competent-baseline",
            "NaP is a competent baseline: it beats Adam on random labels.",
            "section 5",
            (_better("random labels", "nap", "adam"),),
        ),
    ),
    over_tasks("Continual supervised learning", *((label, label, "") for label in _STREAMS)),
)

_CNN = Experiment(
    "isometry/supervised-cnn",
    "Do the results of the MLP hold for convolutions?",
    f"{PAPER}, section 6.1 and figure 1",
    "AdamO beats the baselines with convolutions as well.",
    {label: f"{name}/cnn" for label, name in _STREAMS.items()},
    (
        Claim(
            "cnn-adam-loses-plasticity",
            "With convolutions, Adam loses the ability to fit new random labels.",
            "sections 1 and 6.1",
            (Difference(Score("adam", over="fall", run="random labels"), 0.0, by=_LOSS),),
        ),
        Claim(
            "cnn-keeps-plasticity",
            "With convolutions, AdamO keeps fitting random labels.",
            "section 6.1, figure 1",
            _keeps("random labels", "adamo"),
        ),
        *(
            Claim(
                f"cnn-matches-or-beats-{_slug(label)}",
                f"With convolutions, AdamO matches or surpasses Adam and L2 Init: {label}.",
                "abstract and section 6",
                not_worse(label, ("adamo",), ("adam", "l2-init")),
            )
            for label in _STREAMS
        ),
    ),
    over_tasks("Continual supervised learning with convolutions", *((label, label, "") for label in _STREAMS)),
)


_GRID = ("0.0001", "0.001", "0.01", "0.1", "1.0", "10.0", "100.0")


def _with(strength: str) -> str:
    return f"adamo[isometry_strength={strength}]"


_STRENGTH = Experiment(
    "isometry/strength",
    "How strongly must AdamO pull towards isometry?",
    f"{PAPER}, appendix B.2 and figure 3",
    "Too weak does not preserve conditioning, too strong interferes with the task; in between is a broad range of good "
    "strengths.",
    {"random labels": "isometry/strength"},
    (
        Claim(
            "too-weak-loses-conditioning",
            "Too little regularisation does not sufficiently preserve conditioning, nor the ability to learn.",
            "appendix B.2",
            (
                Difference(
                    Score(_with("0.0001"), "isometry_deviation"), Score(_with("0.1"), "isometry_deviation"), by=0.5
                ),
                _better("", _with("0.1"), _with("0.0001"), by=_LOSS),
            ),
        ),
        Claim(
            "too-strong-interferes",
            "Too much regularisation interferes with the task.",
            "appendix B.2",
            (Difference(Score(_with("0.1")), Score(_with("100.0")), by=_LOSS),),
        ),
        Claim(
            "broad-optimum",
            "Good strengths are a broad range: from 0.1 to 10 accuracy differs by less than 0.05.",
            "appendix B.2",
            (
                _learns(_with("0.1")),
                *(_better("", _with(one), _with(other), by=-_LOSS) for one, other in permutations(_GRID[3:6], 2)),
            ),
        ),
    ),
    against(
        "AdamO on random labels of CIFAR-10",
        "strength of the isometry step",
        "train accuracy, last five tasks",
        ("random labels", {"adamo": {float(strength): Score(_with(strength)) for strength in _GRID}}),
    ),
)

EXPERIMENTS = (_SUPERVISED, _CNN, _STRENGTH)
