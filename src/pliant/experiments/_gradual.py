"""The experiments of *Do Neural Networks Lose Plasticity in a Gradually Changing World?*."""

from itertools import pairwise

from pliant.experiments._claims import Claim, Difference
from pliant.experiments._experiment import Experiment
from pliant.experiments._figures import over_tasks
from pliant.experiments._quantities import Score

_PAPER = "Do Neural Networks Lose Plasticity in a Gradually Changing World?"
_TRANSITIONS = ("abrupt", "interpolation", "sampling")
_GRANULARITY = (2, 4, 10)
_ACCURACY = 0.02  # the smallest difference of accuracies that counts
_LOSS = 0.05  # the smallest loss of accuracy over a stream that is called one
_CHANCE = 0.1  # accuracy of guessing among ten classes; elsewhere it is lower
_NAMES = {"spectral": "Spectral regularisation", "shrink-perturb": "Shrink and perturb"}
_MITIGATIONS = ("l2", "shrink-perturb", "spectral", "redo")


def _runs(*benchmarks: str) -> dict[str, str]:
    return {
        f"{benchmark}, {transition}": f"gradual/{benchmark}/{transition}"
        for benchmark in benchmarks
        for transition in _TRANSITIONS
    }


def _adam(benchmark: str, transition: str, over: str = "last", metric: str = "") -> Score:
    return Score("adam", metric, over, f"{benchmark}, {transition}")  # type: ignore[arg-type]


def _learns(score: Score) -> Difference:
    return Difference(score, _CHANCE, by=_LOSS)


def _loses(benchmark: str, by: float, source: str) -> Claim:
    return Claim(
        f"abrupt-loses-{benchmark}",
        f"Networks lose plasticity where tasks change abruptly: {benchmark.replace('-', ' ')}.",
        source,
        (Difference(_adam(benchmark, "abrupt", "fall"), 0.0, by),),
    )


def _keeps(benchmark: str, transition: str, source: str) -> Claim:
    return Claim(
        f"{transition}-keeps-{benchmark}",
        f"Gradual change by {transition} largely preserves plasticity: {benchmark.replace('-', ' ')}.",
        source,
        (
            Difference(_adam(benchmark, transition, "rise"), 0.0, by=-_LOSS),
            Difference(_adam(benchmark, transition), _adam(benchmark, "abrupt"), by=_ACCURACY),
        ),
    )


def _preserves(benchmark: str, method: str) -> tuple[Difference, ...]:
    """A mitigation method keeps what it learns where tasks change abruptly."""
    run = f"{benchmark}, abrupt"
    return (_learns(Score(method, run=run)), Difference(Score(method, over="rise", run=run), 0.0, by=-_LOSS))


def _beats_mitigations(benchmark: str, transition: str, source: str, by: float = -_ACCURACY) -> Claim:
    verb = "matches or exceeds" if by < 0 else "outperforms"
    return Claim(
        f"{transition}-{verb.partition(' ')[0]}-mitigations-{benchmark}",
        f"Gradual change by {transition} {verb} L2, shrink and perturb, spectral regularisation and ReDo: "
        f"{benchmark.replace('-', ' ')}.",
        source,
        (
            _learns(_adam(benchmark, transition)),
            *(
                Difference(_adam(benchmark, transition), Score(method, run=f"{benchmark}, abrupt"), by)
                for method in _MITIGATIONS
            ),
        ),
    )


def _panels(*benchmarks: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((label, label, "") for label in _runs(*benchmarks))


_IMAGES = ("random-label-mnist", "random-label-cifar10", "random-label-tiny-imagenet")
_ABRUPT = "random-label-mnist, abrupt"
_TRAINABILITY = Experiment(
    "gradual/trainability",
    "Does a gradual change of labels preserve the ability to fit them?",
    f"{_PAPER}, section 5.1 and figure 1",
    "Under abrupt changes the accuracy of an MLP on random MNIST labels falls from 100 % to chance within 50 tasks; "
    "with output interpolation or task sampling it largely stays, and above the best mitigation method.",
    _runs("random-label-mnist"),
    (
        _loses("random-label-mnist", 0.1, "section 5.1, figure 1"),
        _keeps("random-label-mnist", "interpolation", "section 5.1, figure 1"),
        _keeps("random-label-mnist", "sampling", "section 5.1, figure 1"),
        _beats_mitigations("random-label-mnist", "interpolation", "section 5.1, figure 1", by=0.0),
        Claim(
            "l2-drops-as-quickly",
            "The L2-regularised MLP loses accuracy as quickly as an unregularised one.",
            "section 5.1",
            (
                Difference(Score("l2", over="fall", run=_ABRUPT), 0.0, by=_LOSS),
                Difference(Score("l2", over="fall", run=_ABRUPT), Score("adam", over="fall", run=_ABRUPT), by=-0.1),
            ),
        ),
        Claim(
            "redo-moderate",
            "ReDo is a moderate remedy: better than Adam alone, and less than interpolation.",
            "section 5.1",
            (
                Difference(
                    Score("redo", run="random-label-mnist, abrupt"),
                    Score("adam", run="random-label-mnist, abrupt"),
                    by=_ACCURACY,
                ),
                Difference(
                    _adam("random-label-mnist", "interpolation"),
                    Score("redo", run="random-label-mnist, abrupt"),
                    by=_ACCURACY,
                ),
            ),
        ),
    ),
    over_tasks("Random labels of MNIST", *_panels("random-label-mnist")),
)

_DEEP = Experiment(
    "gradual/trainability-resnet",
    "Does a gradual change of labels preserve the ability of a ResNet-18 to fit them?",
    f"{_PAPER}, section 5.1 and figure 1",
    "As with the MLP; a ResNet-18 with L2 regularisation sustains near-perfect accuracy as well.",
    _runs("random-label-cifar10", "random-label-tiny-imagenet"),
    (
        _loses("random-label-cifar10", _LOSS, "section 5.1, figure 1"),
        _loses("random-label-tiny-imagenet", _LOSS, "section 5.1, figure 1"),
        _keeps("random-label-cifar10", "interpolation", "section 5.1, figure 1"),
        Claim(
            "l2-resnet-keeps",
            "A ResNet-18 with L2 regularisation sustains near-perfect accuracy under abrupt changes.",
            "section 5.1",
            tuple(
                Difference(Score("l2", run=f"random-label-{data}, abrupt"), 0.95, by=0.0)
                for data in ("cifar10", "tiny-imagenet")
            ),
        ),
    ),
    over_tasks("Random labels, ResNet-18", *_panels("random-label-cifar10", "random-label-tiny-imagenet")),
)

_TEXTS = Experiment(
    "gradual/trainability-seq2seq",
    "Does a gradual change of random texts preserve the ability of a T5 block to memorise them?",
    f"{_PAPER}, section 5.1 and figure 2",
    "Task sampling matches or exceeds the mitigation methods; ReDo is less satisfactory than in vision.",
    _runs("seq2seq"),
    (
        _loses("seq2seq", _LOSS, "section 5.1, figure 2"),
        _keeps("seq2seq", "sampling", "section 5.1, figure 2"),
        _beats_mitigations("seq2seq", "sampling", "section 5.1, figure 2"),
        Claim(
            "redo-fails-on-texts",
            "ReDo is less satisfactory on random texts: accuracy falls.",
            "section 5.1, figure 2",
            (Difference(Score("redo", over="fall", run="seq2seq, abrupt"), 0.0, by=_LOSS),),
        ),
        *(
            Claim(
                f"{method}-preserves-on-texts",
                f"{name} excels on random texts: it keeps fitting them.",
                "section 5.1, figure 2",
                _preserves("seq2seq", method),
            )
            for method, name in _NAMES.items()
        ),
    ),
    over_tasks("Random texts", *_panels("seq2seq")),
)

_GENERALIZABILITY = Experiment(
    "gradual/generalizability",
    "Does a gradual change of permutations preserve test accuracy?",
    f"{_PAPER}, section 5.2 and figure 3",
    "Under abrupt changes test accuracy on permuted EMNIST falls mildly, by about 10 points in 100 tasks; task "
    "sampling and input interpolation are the two most competitive methods.",
    _runs("permuted-emnist"),
    (
        Claim(
            "mild-loss-permuted-emnist",
            "Only a mild loss of test accuracy on permuted EMNIST: more than 0.02 and at most 0.15.",
            "section 5.2, figure 3",
            (
                Difference(_adam("permuted-emnist", "abrupt", "fall"), 0.0, by=0.02),
                Difference(_adam("permuted-emnist", "abrupt", "rise"), 0.0, by=-0.15),
            ),
        ),
        _keeps("permuted-emnist", "interpolation", "section 5.2, figure 3"),
        _keeps("permuted-emnist", "sampling", "section 5.2, figure 3"),
        _beats_mitigations("permuted-emnist", "interpolation", "section 5.2, figure 3"),
        _beats_mitigations("permuted-emnist", "sampling", "section 5.2, figure 3"),
        Claim(
            "mitigations-preserve-emnist",
            "All mitigation methods preserve plasticity to a large extent on permuted EMNIST.",
            "section 5.2, figure 3",
            tuple(each for method in _MITIGATIONS for each in _preserves("permuted-emnist", method)),
        ),
    ),
    over_tasks("Permuted EMNIST", *_panels("permuted-emnist")),
)

_CIPHER = Experiment(
    "gradual/generalizability-cipher",
    "Does a gradual change of ciphers preserve the ability of a T5 block to learn them?",
    f"{_PAPER}, section 5.2 and figure 4",
    "Under abrupt changes test BLEU-2 falls to 20 % after 50 tasks. ReDo and L2 fail; spectral regularisation, shrink "
    "and perturb, and gradual changes preserve it.",
    _runs("bigram-cipher"),
    (
        _loses("bigram-cipher", 0.1, "section 5.2, figure 4"),
        _keeps("bigram-cipher", "sampling", "section 5.2, figure 4"),
        _beats_mitigations("bigram-cipher", "sampling", "section 5.2, figure 4"),
        *(
            Claim(
                f"{method}-fails-on-ciphers",
                f"{name} fails to retain generalisability on ciphers.",
                "section 5.2, figure 4",
                (Difference(Score(method, over="fall", run="bigram-cipher, abrupt"), 0.0, by=0.1),),
            )
            for method, name in {"redo": "ReDo", "l2": "L2 regularisation"}.items()
        ),
        *(
            Claim(
                f"{method}-preserves-on-ciphers",
                f"{name} preserves generalisability on ciphers.",
                "section 5.2, figure 4",
                _preserves("bigram-cipher", method),
            )
            for method, name in _NAMES.items()
        ),
    ),
    over_tasks("Ciphers", *_panels("bigram-cipher")),
)

_STEPS = {1: "abrupt", **{number: f"{number} micro-steps" for number in _GRANULARITY}, 40: "40 micro-steps"}
_MNIST = "gradual/random-label-mnist"
_FINER = {
    "abrupt": f"{_MNIST}/abrupt",
    **{f"{number} micro-steps": f"{_MNIST}/interpolation-{number}" for number in _GRANULARITY},
    "40 micro-steps": f"{_MNIST}/interpolation",
}


def _at(number: int, metric: str = "", over: str = "last") -> Score:
    return Score("adam", metric, over, _STEPS[number])  # type: ignore[arg-type]


_GRAIN = Experiment(
    "gradual/granularity",
    "Do finer steps preserve more plasticity?",
    f"{_PAPER}, section 5.3, appendix C and figures 5 and 7 to 9",
    "Abrupt and coarse changes lose accuracy; the finest sustains near-perfect accuracy. Finer changes give smaller "
    "Hessian eigenvalues, larger changes of representations and fewer dormant units.",
    _FINER,
    (
        Claim(
            "finest-near-perfect",
            "The finest transitions sustain near-perfect accuracy.",
            "section 5.3, figure 5",
            (Difference(_at(40), 0.95, by=0.0),),
        ),
        Claim(
            "finer-is-better",
            "A finer-grained transition preserves more plasticity: abrupt < 2 < 4 ≤ 10 ≤ 40 micro-steps.",
            "section 5.3, figure 5",
            (
                Difference(_at(2), _at(1), by=0.0),
                Difference(_at(4), _at(2), by=0.0),
                Difference(_at(10), _at(4), by=-_ACCURACY),
                Difference(_at(40), _at(10), by=-_ACCURACY),
            ),
        ),
        Claim(
            "coarse-not-satisfactory",
            "Coarse changes mitigate the decline, but not satisfactorily: 4 micro-steps are better than an abrupt "
            "change, and worse than 40.",
            "section 5.3, figure 5",
            (Difference(_at(4), _at(1), by=_ACCURACY), Difference(_at(40), _at(4), by=_LOSS)),
        ),
        Claim(
            "finer-is-flatter",
            "Finer-grained transitions consistently produce lower maximum Hessian eigenvalues.",
            "appendix C, figure 7",
            tuple(
                Difference(_at(coarse, "hessian_top"), _at(fine, "hessian_top"), by=0.0)
                for coarse, fine in pairwise(_STEPS)
            ),
        ),
        Claim(
            "finer-changes-representations-more",
            "Smaller steps better preserve the ability to update hidden representations between tasks.",
            "appendix C, figure 8",
            (Difference(_at(40, "representation_change"), _at(1, "representation_change"), by=0.0),),
        ),
        Claim(
            "finer-has-fewer-dormant",
            "Finer-grained transitions consistently produce fewer dormant units (at most 1 % of inputs).",
            "appendix C, figure 9",
            tuple(
                Difference(_at(coarse, "dead_fraction"), _at(fine, "dead_fraction"), by=0.0)
                for coarse, fine in pairwise(_STEPS)
            ),
        ),
    ),
    over_tasks("Granularity of the transition", *((label, label, "") for label in _FINER)),
)

_LANDSCAPE = Experiment(
    "gradual/landscape",
    "Do gradual changes keep the loss landscape flat?",
    f"{_PAPER}, section 5.3 and figure 6",
    "Spectral regularisation and shrink and perturb have relatively small Hessian eigenvalues; gradual changes keep "
    "them low and stable without a penalty.",
    _runs("random-label-mnist"),
    (
        Claim(
            "remedies-are-flatter",
            "Spectral regularisation and shrink and perturb have smaller eigenvalues than the unregularised network.",
            "section 5.3, figure 6",
            tuple(
                Difference(
                    _adam("random-label-mnist", "abrupt", "mean", "hessian_top"),
                    Score(method, "hessian_top", "mean", "random-label-mnist, abrupt"),
                    by=0.0,
                )
                for method in ("spectral", "shrink-perturb")
            ),
        ),
        Claim(
            "gradual-is-flat",
            "Interpolation and task sampling keep eigenvalues low and stable: below those of abrupt changes, and "
            "growing less.",
            "section 5.3, figure 6",
            tuple(
                Difference(
                    _adam("random-label-mnist", "abrupt", over, "hessian_top"),
                    _adam("random-label-mnist", transition, over, "hessian_top"),
                    by=0.0,
                )
                for transition in ("interpolation", "sampling")
                for over in ("mean", "rise")
            ),
        ),
    ),
    over_tasks(
        "Largest eigenvalue of the Hessian, random labels of MNIST",
        *((label, label, "hessian_top") for label in _runs("random-label-mnist")),
    ),
    (Score("", "hessian_top"),),
)

EXPERIMENTS = (_TRAINABILITY, _DEEP, _TEXTS, _GENERALIZABILITY, _CIPHER, _GRAIN, _LANDSCAPE)
