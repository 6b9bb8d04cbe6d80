"""The benchmarks of agents of the AdamO paper."""

from typing import Any

from pliant.experiments.benchmarks._benchmark import make_benchmark

_REFERENCE = "Rosseau et al. 2026 (arXiv 2606.09762), section 6.2 and appendix"
_PPO = (
    "ppo.epochs=4",
    "ppo.discount=0.99",
    "ppo.gae_decay=0.95",
    "ppo.clip=0.2",
    "ppo.entropy_strength=0.01",
    "ppo.value_strength=0.5",
    "ppo.max_grad_norm=0.5",
)
_STRENGTHS = ("adamo.isometry_strength=0.1", "adamo-maxmin.isometry_strength=0.1", "l2-init.strength=0.001")


def _at(eps: float, *methods: str) -> tuple[str, ...]:
    """Settings of Adam's ϵ."""
    return tuple(f"{method}.eps={eps:g}" for method in methods)


_MINATAR_METHODS = ("adam", "adamo", "adamo-maxmin", "l2-init", "nap", "spectral")
_MINATAR_CPU_METHODS = ("adam", "adamo", "adamo-maxmin", "l2-init", "nap")
_MINATAR_NOTES = """\
Published: Breakout, Asterix, Space Invaders and Freeway in 20 cycles, 15 million steps a game, each cycle in a random
order, channels permuted at the start of each game; actor and critic with four hidden layers of 64; 2,048 environments ×
128 steps, 4 epochs of 128 minibatches, GAE decay 0.95, clip 0.2, entropy 0.01, value loss 0.5; eight seeds.

Authors' code: channels padded to 10, 6 actions, a constant learning rate of 2.5e-4, Adam's ϵ = 1e-5, discount 0.99,
gradients clipped to a global norm of 0.5, a new optimizer state for each game, 128 evaluation episodes every 500,000
steps, strengths 0.1 of AdamO, 1e-3 of L2 Init and of the spectral penalty, projections of NaP after every update.

Ours: biases in all networks but NaP's, where the authors leave AdamO's out as well; lazy isometry steps every 16
updates; one order of the games for all seeds; 57 whole rollouts a game, 14.9 million steps.

The scales cpu and smoke play Breakout alone, with its channels permuted in every task. At cpu: 64 environments × 64
steps, minibatches of 512, 163,840 steps a task, 24 tasks, learning rate 1e-3, three seeds, the optimizer kept. There
Adam's policy collapses in some tasks: see the metric dead_phase beside the return.
"""

_MINATAR: dict[str, Any] = {
    "environment": "minatar",
    "agent": "ppo",
    "network": "mlp",
    "widths": (64, 64, 64, 64),
    "methods": _MINATAR_METHODS,
    "settings": (
        "minatar.games=breakout,asterix,space-invaders,freeway",
        "ppo.num_envs=2048",
        "ppo.rollout_length=128",
        *_PPO,
        *_STRENGTHS,
        "spectral.strength=0.001",
        "nap.every=1",
        *_at(1e-5, *_MINATAR_METHODS),
    ),
    "learning_rate": 2.5e-4,
    "batch_size": 2048,
    "env_steps": 15_000_000,
    "tasks": 80,
    "seeds": 8,
    "optimizer_at_switch": "reset",
    "eval_episodes": 128,
    "curve_points": 30,
}
_MINATAR_SMALL: dict[str, Any] = {
    "methods": _MINATAR_CPU_METHODS,
    "settings": (
        "minatar.games=breakout",
        "ppo.num_envs=64",
        "ppo.rollout_length=64",
        *_PPO,
        *_STRENGTHS,
        "nap.every=1",
        *_at(
            1e-5, *_MINATAR_CPU_METHODS, "redo", "layernorm", "full-reset"
        ),  # the last three can be added with --methods
    ),
    "learning_rate": 1e-3,
    "batch_size": 512,
    "env_steps": 163_840,
    "tasks": 24,
    "seeds": 3,
    "optimizer_at_switch": "keep",
    "eval_episodes": 8,
    "curve_points": 4,
}

_OCTAX_METHODS = ("adam", "adamo", "adamo-maxmin")
_OCTAX_NOTES = """\
Published: brix, submarine, filter, tank, blinky, missile, ufo and wipe_off in this order, three cycles of 5 million
steps a game; PPO with convolutions that actor and critic share.

Authors' code: 512 environments × 32 steps, 4 epochs of 32 minibatches, learning rate 5e-4, Adam's ϵ = 1e-8, discount
0.99, GAE decay 0.95, clip 0.2, entropy 0.01, value loss 0.5; every entry of a gradient clamped to [−0.5, 0.5], which
may not be meant: --set ppo.grad_clip=global is the usual form; a new optimizer state for each game; 32, 64 and 64
channels, then four dense layers of 64 for each head; 128 evaluation episodes every 250,000 steps; AdamO with strength
0.1; two seeds.

Ours: eight seeds; channels last, and actions beyond those of a game do nothing, where the authors' press its first key
(--set octax.compat=true for theirs); biases in all networks; lazy isometry steps every 16 updates; 305 whole rollouts
a game. At the scale cpu: three cycles of brix and submarine, 98,304 steps a game, 32 environments × 32 steps, one seed:
it shows what a run costs, not that plasticity is lost.
"""
_OCTAX: dict[str, Any] = {
    "environment": "octax",
    "agent": "ppo",
    "network": "octax-cnn",
    "widths": (64, 64, 64, 64),
    "methods": _OCTAX_METHODS,
    "settings": (
        "octax.games=brix,submarine,filter,tank,blinky,missile,ufo,wipe_off",
        "ppo.num_envs=512",
        "ppo.rollout_length=32",
        "ppo.trunk=shared",
        "ppo.grad_clip=elementwise",
        *_PPO,
        *_STRENGTHS[:2],
        *_at(1e-8, *_OCTAX_METHODS),
    ),
    "learning_rate": 5e-4,
    "batch_size": 512,
    "env_steps": 5_000_000,
    "tasks": 24,
    "seeds": 8,
    "optimizer_at_switch": "reset",
    "eval_episodes": 128,
    "curve_points": 20,
}
_OCTAX_SMALL = ("ppo.trunk=shared", "ppo.grad_clip=elementwise", *_PPO, *_STRENGTHS[:1])

BENCHMARKS = (
    make_benchmark(
        "isometry/continual-minatar",
        "PPO in four MinAtar games, one after the other for 20 cycles, with permuted channels",
        f"{_REFERENCE} B.5",
        _MINATAR_NOTES,
        paper=_MINATAR,
        cpu=_MINATAR_SMALL,
        smoke=_MINATAR_SMALL
        | {"methods": ("adam", "adamo"), "tasks": 2, "seeds": 2, "env_steps": 40_960, "curve_points": 2}
        | {"eval_episodes": 4},
    ),
    make_benchmark(
        "isometry/continual-octax",
        "PPO with convolutions in eight arcade games of Octax, one after the other for three cycles",
        f"{_REFERENCE} B.6",
        _OCTAX_NOTES,
        paper=_OCTAX,
        cpu={
            "methods": ("adam", "adamo"),
            "settings": ("octax.games=brix,submarine", "ppo.num_envs=32", "ppo.rollout_length=32", *_OCTAX_SMALL),
            "batch_size": 128,
            "env_steps": 98_304,
            "tasks": 6,
            "seeds": 1,
            "eval_episodes": 4,
            "curve_points": 2,
        },
        smoke={
            "methods": ("adam",),
            "settings": (
                "octax.games=brix,submarine",
                "octax.max_episode_steps=200",
                "ppo.num_envs=8",
                "ppo.rollout_length=32",
                *_OCTAX_SMALL,
            ),
            "widths": (32,),
            "batch_size": 64,
            "env_steps": 512,
            "tasks": 2,
            "seeds": 1,
            "eval_episodes": 2,
            "curve_points": 1,
        },
    ),
)
