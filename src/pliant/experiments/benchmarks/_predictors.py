"""Five streams on which every diagnostic is measured, to ask which of them predicts the next task."""

from typing import Any

from pliant.experiments.benchmarks._benchmark import Benchmark, make_benchmark

METHODS = ("adam", "l2-init", "redo", "shrink-perturb", "layernorm", "adamo")
"""Networks whose plasticity differs."""

_NOTES = """\
Published: nothing; the papers correlate a few diagnostics each, on streams of their own.

Ours: everything. Every diagnostic at the end of every task, and on the new task before its first update. At the scale
cpu: 10 tasks, five seeds, two layers of 64 (20 in the regression), 1,500 examples, 500 steps for each of the five
random functions of the probe.
"""
_STANDARD = "standard,jacobian,ntk,hessian-top,readiness,gradient-noise,curvature-volatility,hessian-rank"
_STUDY: dict[str, Any] = {
    "methods": METHODS,
    "seeds": 8,
    "tasks": 30,
    "diagnose_after": tuple(range(1, 31)),
    "diagnostics": (_STANDARD, "probe-plasticity:num_steps=2000:num_targets=10"),
}
_CPU: dict[str, Any] = {
    "seeds": 5,
    "tasks": 10,
    "diagnose_after": tuple(range(1, 11)),
    "diagnostics": (_STANDARD, "probe-plasticity:num_steps=500:num_targets=5"),
}
_SMOKE: dict[str, Any] = {
    "methods": ("adam", "layernorm", "adamo"),
    "seeds": 2,
    "tasks": 2,
    "diagnose_after": (1, 2),
    "diagnostics": ("basic,start-loss,probe-loss,readiness", "probe-plasticity:num_steps=20:num_targets=2"),
}


def _images(name: str, summary: str, paper: dict[str, Any], cpu: dict[str, Any]) -> Benchmark:
    widths, small = {"widths": (256, 256), "train_size": 5120}, {"widths": (64, 64), "train_size": 1500}
    smoke = {"widths": (16,), "train_size": 200, "epochs": 2, "dataset": "digits"}
    return make_benchmark(
        f"predictors/{name}",
        summary,
        "Lyle et al. 2023 (arXiv 2303.01486), section 4, widened to all diagnostics",
        _NOTES,
        paper=_STUDY | widths | paper,
        cpu=_CPU | small | cpu,
        smoke=_SMOKE | smoke,
    )


BENCHMARKS = (
    _images(
        "labels-digits",
        "random labels of digits, all diagnostics",
        {"stream": "random-labels", "dataset": "digits", "train_size": 1500},
        {},
    ),
    _images(
        "labels-mnist",
        "random labels of MNIST, all diagnostics",
        {"stream": "random-labels", "dataset": "mnist"},
        {},
    ),
    _images(
        "pixels-mnist",
        "permuted pixels of MNIST, all diagnostics",
        {"stream": "permuted-pixels", "dataset": "mnist", "epochs": 5},
        {},
    ),
    make_benchmark(
        "predictors/regression",
        "slowly-changing regression, all diagnostics",
        "Dohare et al. 2024 (Nature 632), its problem; the study as in Lyle et al. 2023",
        _NOTES,
        paper=_STUDY
        | {
            "stream": "slowly-changing-regression",
            "widths": (20,),
            "use_bias": True,
            "batch_size": 1,
            "epochs": 1,
            "learning_rate": 0.003,
            "settings": ("slowly-changing-regression.change=all", "slowly-changing-regression.num_examples=10000"),
        },
        cpu=_CPU
        | {"settings": ("slowly-changing-regression.change=all", "slowly-changing-regression.num_examples=5000")},
        smoke=_SMOKE
        | {"settings": ("slowly-changing-regression.change=all", "slowly-changing-regression.num_examples=200")},
    ),
    make_benchmark(
        "predictors/mdp-mnist",
        "Q-learning in a hard classification MDP, all diagnostics",
        "Lyle et al. 2023 (arXiv 2303.01486), section 4",
        _NOTES,
        paper=_STUDY
        | {
            "environment": "classification-mdp",
            "agent": "dqn",
            "dataset": "mnist",
            "widths": (256, 256),
            "batch_size": 32,
            "env_steps": 20_000,
            "settings": ("classification-mdp.variant=hard", "classification-mdp.redraw=true"),
        },
        cpu=_CPU | {"widths": (64, 64), "env_steps": 5000},
        smoke=_SMOKE | {"widths": (16,), "env_steps": 300, "dataset": "digits"},
    ),
)
