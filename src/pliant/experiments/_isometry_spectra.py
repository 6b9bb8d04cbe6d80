"""The experiments of the AdamO paper on spectra: of weights, tangent kernels and Jacobians."""

from pliant.experiments._claims import Claim, Difference
from pliant.experiments._experiment import Experiment
from pliant.experiments._figures import over_tasks
from pliant.experiments._isometry import BASELINES, OURS, PAPER, not_worse
from pliant.experiments._quantities import Association, Over, Score

_TENTH = 0.046  # −log10(0.9): a condition number that is 10 % lower


def _healthier(metric: str, by: float, other: str = "adam", over: Over = "last") -> Difference:
    """AdamO's networks against those of another method; the metric ends with "-" if lower is better."""
    name = metric.removesuffix("-")
    adamo, than = Score("adamo", name, over), Score(other, name, over)
    return Difference(adamo, than, by) if name == metric else Difference(than, adamo, by)


_DIAGNOSTICS = Experiment(
    "isometry/diagnostics",
    "Are the networks that keep learning the ones that stay near isometry?",
    f"{PAPER}, appendix B.3 and figures 4 to 6",
    "On permuted CIFAR-10 AdamO keeps weight spectra tighter and their effective rank higher, the tangent kernel "
    "better conditioned and closer to isotropic, and Jacobian spectra more stable.",
    {"permuted CIFAR-10": "isometry/permuted-cifar10/mlp"},
    (
        Claim(
            "tighter-weight-spectra",
            "AdamO maintains tighter weight spectra.",
            "appendix B.3, figure 4",
            (_healthier("weight_condition_log10-", _TENTH),),
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
            (_healthier("ntk_condition_log10-", _TENTH),),
        ),
        Claim(
            "more-isotropic-ntk",
            "AdamO's tangent kernel is closer to isotropic.",
            "appendix B.3, figure 5",
            (_healthier("ntk_isotropy_deviation-", 0.01),),
        ),
        Claim(
            "higher-ntk-rank",
            "AdamO's tangent kernel has a higher effective rank.",
            "section 6.1, figure 5",
            (_healthier("ntk_effective_rank", 0.5),),
        ),
        Claim(
            "healthier-jacobians",
            "AdamO's Jacobians from layer to layer have a lower condition number, a higher effective rank, and fewer "
            "singular values of 0.",
            "section 6.1, figure 6",
            (
                _healthier("jacobian_condition_log10-", _TENTH),
                _healthier("jacobian_effective_rank", 0.5),
                _healthier("jacobian_zero_fraction-", 0.05),
            ),
        ),
        Claim(
            "stable-jacobians",
            "AdamO's Jacobian spectra stay more stable than Adam's: their largest singular value rises less, and their "
            "effective rank falls less.",
            "appendix B.3, figure 6",
            (
                _healthier("jacobian_sigma_max-", 0.05, over="rise"),
                _healthier("jacobian_effective_rank-", 0.5, over="fall"),
            ),
        ),
        Claim(
            "favorable-across-the-board",
            "AdamO's spectra of weights, tangent kernels and Jacobians are favourable across the board: better than "
            "those of every baseline.",
            "appendix B.3",
            tuple(
                _healthier(metric, 0.0, other)
                for metric in (
                    "weight_condition_log10-",
                    "weight_effective_rank",
                    "ntk_condition_log10-",
                    "ntk_effective_rank",
                    "jacobian_condition_log10-",
                    "jacobian_effective_rank",
                )
                for other in BASELINES
            ),
        ),
        Claim(
            "isometry-goes-with-learning",
            "Methods that preserve plasticity are those that preserve dynamical isometry: accuracy falls as Jacobians "
            "deviate from it.",
            "appendix B.3",
            (
                Difference(
                    0.0,
                    Association((*BASELINES, *OURS), "jacobian_isometry_deviation", "test_accuracy"),
                    by=0.3,
                ),
            ),
        ),
        Claim(
            "nearest-to-isometry",
            "Standard methods drift further from isometry than AdamO does.",
            "appendix B.3",
            tuple(_healthier("jacobian_isometry_deviation-", 0.02, other) for other in BASELINES),
        ),
        Claim(
            "prevents-growth",
            "AdamO prevents the progressive growth of weight norms and condition numbers that Adam shows.",
            "section 4.2",
            (
                Difference(Score("adam", "weight_norm", "rise"), 0.0, by=1.0),
                _healthier("weight_norm-", 1.0, over="rise"),
                _healthier("weight_condition_log10-", _TENTH, over="rise"),
            ),
        ),
        Claim(
            "ntk-loses-isotropy",
            "Under Adam the tangent kernel becomes more anisotropic as tasks go by.",
            "section 1",
            (Difference(Score("adam", "ntk_isotropy_deviation", "rise"), 0.0, by=0.0),),
        ),
        Claim(
            "average-is-not-all",
            "Normalising the average of the spectrum (NaP) or its maximum (spectral regularisation) leaves the weights "
            "worse conditioned than isometry does.",
            "section 5",
            tuple(_healthier("weight_condition_log10-", _TENTH, other) for other in ("nap", "spectral")),
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

_PLAIN = ("adam", "weight-decay")
_TRANSFORMER = Experiment(
    "isometry/transformer",
    "Does AdamO help a small transformer?",
    f"{PAPER}, appendix B.7",
    "AdamO remains stable and competitive at learning rates at which vanilla training degrades and LayerNorm and "
    "weight decay alone are less robust; its Jacobians keep a higher effective rank and a lower condition number. "
    "Here all networks have LayerNorm.",
    {"permuted CIFAR-10": "isometry/transformer-permuted-cifar10"},
    (
        Claim(
            "transformer-competitive",
            "AdamO is competitive with LayerNorm alone and with LayerNorm and weight decay.",
            "appendix B.7",
            not_worse("permuted CIFAR-10", ("adamo",), _PLAIN),
        ),
        Claim(
            "transformer-jacobians",
            "AdamO preserves a higher effective rank and a lower condition number of input-output Jacobians.",
            "appendix B.7",
            tuple(
                _healthier(metric, by, other)
                for metric, by in (("input_output_effective_rank", 0.2), ("input_output_condition_log10-", _TENTH))
                for other in _PLAIN
            ),
        ),
        Claim(
            "transformer-weights",
            "AdamO maintains a broader effective rank of the weights, a smaller largest singular value and a larger "
            "smallest one.",
            "appendix B.7",
            tuple(
                _healthier(metric, by, other)
                for metric, by in (
                    ("weight_effective_rank", 0.5),
                    ("weight_sigma_max-", 0.05),
                    ("weight_sigma_min", 0.005),
                )
                for other in _PLAIN
            ),
        ),
        Claim(
            "transformer-features",
            "AdamO's features collapse less: their effective rank is higher than with LayerNorm alone.",
            "appendix B.7",
            (_healthier("effective_rank", 0.5),),
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

EXPERIMENTS = (_DIAGNOSTICS, _TRANSFORMER)
