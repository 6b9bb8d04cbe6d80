"""The experiments of *Preserving Plasticity in Continual Learning via Dynamical Isometry* (AdamO)."""

from collections.abc import Iterable

from pliant.experiments._claims import Claim, Difference
from pliant.experiments._experiment import Experiment
from pliant.experiments._figures import against, over_tasks
from pliant.experiments._quantities import Score

_PAPER = "Rosseau et al. 2026 (arXiv 2606.09762)"
_STREAMS = {
    "random labels": "isometry/random-label-cifar10",
    "permuted MNIST": "isometry/permuted-mnist",
    "permuted CIFAR-10": "isometry/permuted-cifar10",
    "label shuffle": "isometry/label-shuffled-cifar100",
}
_OURS = ("adamo", "adamo-maxmin")
_BASELINES = ("l2-init", "redo", "nap", "spectral")
_ACCURACY = 0.02  # the smallest difference of accuracies that counts
_LOSS = 0.05  # the smallest loss of accuracy over a stream that is called one


_CHANCE = {"label shuffle": 0.01}  # accuracy of guessing; otherwise 0.1


def _learns(method: str, run: str = "") -> Difference:
    """A method is well above chance: what learns nothing neither keeps nor matches anything."""
    return Difference(Score(method, run=run), _CHANCE.get(run, 0.1), by=_LOSS)


def _keeps(method: str, run: str) -> tuple[Difference, ...]:
    return (_learns(method, run), Difference(Score(method, over="rise", run=run), 0.0, by=-_LOSS))


def _not_worse(run: str, methods: Iterable[str], others: Iterable[str]) -> tuple[Difference, ...]:
    others = tuple(others)
    margins = ((method, other) for method in methods for other in others)
    return (
        *(_learns(method, run) for method in methods),
        *(_better(run, method, other, by=-_ACCURACY) for method, other in margins),
    )


def _better(run: str, method: str, other: str, by: float = _ACCURACY) -> Difference:
    return Difference(Score(method, run=run), Score(other, run=run), by=by)


_SUPERVISED = Experiment(
    "isometry/supervised",
    "Do networks near dynamical isometry keep learning where others stop?",
    f"{_PAPER}, section 6.1 and figure 1",
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
            _keeps("adamo", "random labels"),
        ),
        Claim(
            "maxmin-keeps-plasticity",
            "AdamO with MaxMin keeps fitting random labels.",
            "section 6, figure 1",
            _keeps("adamo-maxmin", "random labels"),
        ),
        *(
            Claim(
                f"ours-match-or-beat-{label.lower().replace(' ', '-')}",
                f"AdamO and AdamO with MaxMin match or outperform all baselines: {label}.",
                "section 6.1, figure 1",
                _not_worse(label, _OURS, ("adam", *_BASELINES)),
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
            "AdamO improves accuracy on unseen data as well, on permuted pixels.",
            "section 6.1, figure 1",
            (_better("permuted MNIST", "adamo", "adam"), _better("permuted CIFAR-10", "adamo", "adam")),
        ),
        Claim(
            "narrower-on-shuffled-labels",
            "Margins are narrower on label-shuffled CIFAR-100: AdamO is at most 0.1 ahead of Adam.",
            "section 6.1",
            (
                _learns("adam", "label shuffle"),
                _better("label shuffle", "adam", "adamo", by=-0.1),
                _better("random labels", "adamo", "adam", by=0.1),
            ),
        ),
        Claim(
            "relu-revival",
            "AdamO reduces the build-up of dormant ReLU units.",
            "section 4.3, appendix B.4, figure 7",
            (
                Difference(
                    Score("adam", "dormant_fraction", run="random labels"),
                    Score("adamo", "dormant_fraction", run="random labels"),
                    by=0.05,
                ),
            ),
        ),
    ),
    over_tasks("Continual supervised learning", *((label, label, "") for label in _STREAMS)),
)

_CNN = Experiment(
    "isometry/supervised-cnn",
    "Do the results of the MLP hold for convolutions?",
    f"{_PAPER}, section 6.1 and figure 1",
    "AdamO beats the baselines with convolutions as well.",
    {label: f"{name}/cnn" for label, name in _STREAMS.items()},
    (
        Claim(
            "cnn-keeps-plasticity",
            "With convolutions, AdamO keeps fitting random labels.",
            "section 6.1, figure 1",
            _keeps("adamo", "random labels"),
        ),
        *(
            Claim(
                f"cnn-matches-or-beats-{label.lower().replace(' ', '-')}",
                f"With convolutions, AdamO matches or outperforms Adam and L2 Init: {label}.",
                "section 6.1, figure 1",
                _not_worse(label, ("adamo",), ("adam", "l2-init")),
            )
            for label in _STREAMS
        ),
    ),
    over_tasks("Continual supervised learning with convolutions", *((label, label, "") for label in _STREAMS)),
)


def _healthier(metric: str, by: float, *, lower: bool = False, run: str = "") -> Difference:
    """AdamO's networks against Adam's."""
    adamo, adam = Score("adamo", metric, run=run), Score("adam", metric, run=run)
    return Difference(adam, adamo, by) if lower else Difference(adamo, adam, by)


_DIAGNOSTICS = Experiment(
    "isometry/diagnostics",
    "Are the networks that keep learning the ones that stay near isometry?",
    f"{_PAPER}, appendix B.3 and figures 4 to 6",
    "On permuted CIFAR-10 AdamO keeps weight spectra tighter and their effective rank higher, the tangent kernel "
    "better conditioned and closer to isotropic, and Jacobian spectra more stable.",
    {"permuted CIFAR-10": "isometry/permuted-cifar10/mlp"},
    (
        Claim(
            "tighter-weight-spectra",
            "AdamO maintains tighter weight spectra: a condition number at least 10 % lower.",
            "appendix B.3, figure 4",
            (_healthier("weight_condition_log10", 0.04, lower=True),),
        ),
        Claim(
            "higher-weight-rank",
            "AdamO maintains a higher effective rank of the weights.",
            "appendix B.3, figure 4",
            (_healthier("weight_effective_rank", 1.0),),
        ),
        Claim(
            "better-conditioned-ntk",
            "AdamO's tangent kernel is better conditioned.",
            "appendix B.3, figure 5",
            (_healthier("ntk_condition_log10", 0.04, lower=True),),
        ),
        Claim(
            "more-isotropic-ntk",
            "AdamO's tangent kernel is closer to isotropic.",
            "appendix B.3, figure 5",
            (_healthier("ntk_isotropy_deviation", 0.01, lower=True),),
        ),
        Claim(
            "higher-ntk-rank",
            "AdamO's tangent kernel has a higher effective rank.",
            "appendix B.3, figure 5",
            (_healthier("ntk_effective_rank", 0.5),),
        ),
        Claim(
            "healthier-jacobians",
            "AdamO's Jacobians from layer to layer have a lower condition number and a higher effective rank.",
            "appendix B.3, figure 6",
            (_healthier("jacobian_condition_log10", 0.04, lower=True), _healthier("jacobian_effective_rank", 0.5)),
        ),
        Claim(
            "stable-jacobians",
            "AdamO's Jacobian spectra stay more stable than Adam's: their largest singular value rises less.",
            "appendix B.3, figure 6",
            (
                Difference(
                    Score("adam", "jacobian_sigma_max", "rise"), Score("adamo", "jacobian_sigma_max", "rise"), by=0.05
                ),
            ),
        ),
    ),
    over_tasks(
        "Permuted CIFAR-10",
        *(
            (title, "permuted CIFAR-10", metric)
            for title, metric in {
                "accuracy": "",
                "weights: condition": "weight_condition_log10",
                "weights: effective rank": "weight_effective_rank",
                "tangent kernel: condition": "ntk_condition_log10",
                "tangent kernel: effective rank": "ntk_effective_rank",
                "tangent kernel: isotropy": "ntk_isotropy_deviation",
                "Jacobians: condition": "jacobian_condition_log10",
                "Jacobians: effective rank": "jacobian_effective_rank",
                "dormant units": "dormant_fraction",
            }.items()
        ),
    ),
)

_GRID = ("0.0001", "0.001", "0.01", "0.1", "1.0", "10.0", "100.0")


def _with(strength: str) -> str:
    return f"adamo[isometry_strength={strength}]"


_STRENGTH = Experiment(
    "isometry/strength",
    "How strongly must AdamO pull towards isometry?",
    f"{_PAPER}, appendix B.2 and figure 3",
    "Too weak does not preserve conditioning, too strong interferes with the task; in between is a broad range of good "
    "strengths.",
    {"random labels": "isometry/strength"},
    (
        Claim(
            "too-weak-loses-plasticity",
            "Too little regularisation does not sufficiently preserve plasticity.",
            "appendix B.2",
            (Difference(Score(_with("0.1")), Score(_with("0.0001")), by=_LOSS),),
        ),
        Claim(
            "too-strong-interferes",
            "Too much regularisation interferes with the task.",
            "appendix B.2",
            (Difference(Score(_with("0.1")), Score(_with("100.0")), by=_LOSS),),
        ),
        Claim(
            "broad-optimum",
            "Good strengths are a broad range: from 0.1 to 1 accuracy changes by at most 0.1.",
            "appendix B.2",
            (
                _learns(_with("0.1")),
                _better("", _with("0.1"), _with("1.0"), by=-0.1),
                _better("", _with("1.0"), _with("0.1"), by=-0.1),
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

_TRANSFORMER = Experiment(
    "isometry/transformer",
    "Does AdamO help a small transformer?",
    f"{_PAPER}, appendix B.7",
    "AdamO remains stable and competitive where LayerNorm, alone and with weight decay, degrades; its Jacobians keep a "
    "higher effective rank and a lower condition number.",
    {"permuted CIFAR-10": "isometry/transformer-permuted-cifar10"},
    (
        Claim(
            "transformer-competitive",
            "AdamO is competitive with LayerNorm alone and with LayerNorm and weight decay.",
            "appendix B.7",
            _not_worse("", ("adamo",), ("adam", "weight-decay")),
        ),
        Claim(
            "transformer-jacobians",
            "AdamO preserves a higher effective rank and a lower condition number of input-output Jacobians.",
            "appendix B.7",
            (
                _healthier("input_output_effective_rank", 0.2),
                _healthier("input_output_condition_log10", 0.04, lower=True),
            ),
        ),
        Claim(
            "transformer-weights",
            "AdamO maintains a broader effective rank of the weights and a smaller largest singular value.",
            "appendix B.7",
            (_healthier("weight_effective_rank", 0.5), _healthier("weight_sigma_max", 0.05, lower=True)),
        ),
    ),
    over_tasks(
        "A small transformer on permuted CIFAR-10",
        ("accuracy", "permuted CIFAR-10", ""),
        ("Jacobian: effective rank", "permuted CIFAR-10", "input_output_effective_rank"),
        ("Jacobian: condition", "permuted CIFAR-10", "input_output_condition_log10"),
        ("weights: effective rank", "permuted CIFAR-10", "weight_effective_rank"),
        ("weights: largest singular value", "permuted CIFAR-10", "weight_sigma_max"),
        ("dormant units", "permuted CIFAR-10", "dormant_fraction"),
    ),
)

_RETURN = 0.25  # the smallest difference of returns in Breakout that counts
_DEAD = 0.5  # the return of a policy that does the same whatever it sees is below


def _plays(method: str) -> Difference:
    return Difference(Score(method), _DEAD, by=2 * _RETURN)


_MINATAR = Experiment(
    "isometry/continual-minatar",
    "Do agents keep learning when games change?",
    f"{_PAPER}, section 6.2, appendix B.5 and figures 2 and 9 to 16",
    "PPO with Adam loses its ability to learn over 20 cycles of four games; AdamO, with ReLU or MaxMin, keeps it, and "
    "matches or outperforms the baselines.",
    {"minatar": "isometry/continual-minatar"},
    (
        Claim(
            "ppo-loses-ability",
            "The PPO baseline loses its ability to learn over time.",
            "section 6.2, figure 2",
            (Difference(Score("adam", over="fall"), 0.0, by=_RETURN),),
        ),
        Claim(
            "adamo-keeps-returns",
            "AdamO maintains consistent performance throughout.",
            "section 6.2, figure 2",
            (_plays("adamo"), Difference(Score("adamo", over="rise"), 0.0, by=-_RETURN)),
        ),
        Claim(
            "adamo-maxmin-keeps-returns",
            "AdamO with MaxMin maintains consistent performance throughout.",
            "section 6.2, figure 2",
            (_plays("adamo-maxmin"), Difference(Score("adamo-maxmin", over="rise"), 0.0, by=-_RETURN)),
        ),
        Claim(
            "adamo-matches-baselines",
            "AdamO matches or outperforms the baselines on evaluation runs.",
            "section 6.2, figure 2",
            (_plays("adamo"), *(_better("", "adamo", other, by=-_RETURN) for other in ("adam", "l2-init", "nap"))),
        ),
        Claim(
            "agents-fewer-dormant",
            "Methods that perform best have a lower build-up of dormant units.",
            "appendix B.5",
            (Difference(Score("adam", "dormant_fraction"), Score("adamo", "dormant_fraction"), by=0.02),),
        ),
        Claim(
            "agents-nearer-isometry",
            "Methods that perform best keep spectra in a healthier regime: AdamO's weights stay nearer isometry.",
            "appendix B.5",
            (Difference(Score("adam", "isometry_deviation"), Score("adamo", "isometry_deviation"), by=0.5),),
        ),
    ),
    over_tasks(
        "PPO in continual MinAtar",
        ("return", "minatar", ""),
        ("dormant units", "minatar", "dormant_fraction"),
        ("isometry deviation", "minatar", "isometry_deviation"),
        ("effective rank", "minatar", "effective_rank"),
    ),
)

_OCTAX = Experiment(
    "isometry/continual-octax",
    "Do the results of MinAtar hold for convolutions and longer games?",
    f"{_PAPER}, section 6.2, appendix B.6 and figures 17 to 23",
    "AdamO, with ReLU or GroupSort, preserves plasticity and achieves higher rewards than Adam in three cycles of "
    "eight games.",
    {"octax": "isometry/continual-octax"},
    (
        Claim(
            "octax-adamo-better",
            "AdamO achieves superior rewards to Adam.",
            "section 6.2, figure 17",
            (Difference(Score("adamo", over="mean"), Score("adam", over="mean"), by=0.0),),
        ),
        Claim(
            "octax-fewer-dormant",
            "AdamO has a lower build-up of dormant units than Adam.",
            "appendix B.6",
            (Difference(Score("adam", "dormant_fraction"), Score("adamo", "dormant_fraction"), by=0.02),),
        ),
    ),
    over_tasks(
        "PPO in continual Octax",
        ("return", "octax", ""),
        ("dormant units", "octax", "dormant_fraction"),
        ("effective rank", "octax", "effective_rank"),
    ),
)

EXPERIMENTS = (_SUPERVISED, _CNN, _DIAGNOSTICS, _STRENGTH, _TRANSFORMER, _MINATAR, _OCTAX)
