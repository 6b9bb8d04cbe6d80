"""Faults that `make test` must notice: puts each into a copy of the project and shows which tests fail.

    python tests/mutations.py                 # all of them; the tests of the changed module are asked first
    python tests/mutations.py adamo-ascends   # one or several, by name
    python tests/mutations.py --all-tests     # every fast test for every fault, for hours

Ends with 1 if a fault goes unnoticed, or if the code that it changes is no longer there.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".git", ".venv", ".cache", "runs", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
MOST_SECONDS = 1800


class Mutation(NamedTuple):
    """A fault: what is written in a file of `src/pliant`, once, and what would be wrong in its place."""

    file: str
    right: str
    wrong: str
    tests: str = ""
    """The file of tests to ask first, where it is not the module's mirror."""

    def source(self, root: Path) -> Path:
        return root / "src" / "pliant" / self.file

    def mutated(self, root: Path) -> str:
        """The text of the file with the fault."""
        text = self.source(root).read_text()
        if text.count(self.right) != 1:
            raise LookupError(f"{text.count(self.right)} times in {self.file}: {self.right}")
        return text.replace(self.right, self.wrong)

    def own_tests(self, root: Path) -> list[str]:
        """The tests that mirror the module, and its doctests."""
        folder, _, name = self.file.removesuffix(".py").rpartition("/")
        prefix = "pytorch/test_torch_" if folder == "torch" else f"{folder}/test_" if folder else "test_"
        mirror = self.tests or f"tests/{prefix}{name.removeprefix('_')}.py"
        return [path for path in (mirror, f"src/pliant/{self.file}") if (root / path).exists()]


MUTATIONS = {
    "gradient-signal-biased": Mutation(
        "diagnostics/_gradient_noise.py",
        "signal = mean_square - trace / num_examples",
        "signal = mean_square",
    ),
    "drifts-not-removed": Mutation(
        "results/_rank_correlation.py",
        "_centred(ranks(values), groups)",
        "_centred(ranks(values), None)",
    ),
    "flips-not-corrected": Mutation(
        "results/_predictors.py",
        "table[p_value] * tested < level",
        "table[p_value] < level",
    ),
    "adamo-ascends": Mutation(
        "optimizers/_adamo.py",
        "(update.astype(step.dtype) - step)",
        "(update.astype(step.dtype) + step)",
    ),
    "torch-adamo-ascends": Mutation(
        "torch/_before_adam.py",
        "weight.copy_(weight - step)",
        "weight.copy_(weight + step)",
        tests="tests/pytorch/test_torch_adamo.py",
    ),
    "attached-penalties-are-lost": Mutation(
        "methods/_plastic.py",
        "of_loss + of_penalty.astype",
        "of_loss + 0 * of_penalty.astype",
        tests="tests/methods/test_attach.py",
    ),
    "dqn-time-limits-are-ends": Mutation("rl/_replay.py", "place].set(outcome.terminated)", "place].set(played.done)"),
    "stacks-reach-into-the-episode-before": Mutation(
        "rl/_replay.py", "before = jnp.minimum(back[None],", "before = jnp.maximum(back[None],"
    ),
    "cuts-lose-the-last-observation": Mutation("rl/_replay.py", "ages, 1 + cut))", "ages, 1 + 0 * cut))"),
    "dqn-bootstraps-from-the-trained-network": Mutation(
        "rl/_dqn.py", "later = action_values(network, target,", "later = action_values(network, chooser or target,"
    ),
    "resets-miss-the-target-network": Mutation(
        "rl/_dqn.py",
        "DQNState(episodes, replay, target, no_episodes())",
        "DQNState(episodes, replay, state.target, no_episodes())",
    ),
    "octax-limit-ends": Mutation(
        "rl/environments/_octax.py", "(state.time >= limit) & ~terminated", "(state.time >= limit)"
    ),
    "octax-sprites-wrap": Mutation(
        "rl/environments/_octax.py",
        "jnp.where(column < _WORD, _left(pixels, _WIDE - 8 - column), _right(at_left, column - _WORD))",
        "_right(at_left, column - _WORD)",
    ),
    "branches-read-one-dense": Mutation(
        "networks/_cnn.py",
        "behind = [path + first for path in paths.values()]",
        "behind = [min(paths.values()) + first]",
    ),
    "sparse-mdp-stays": Mutation(
        "rl/environments/_classification_mdp.py",
        "jnp.where(is_right, (latent.state + 1) % num_states, state)",
        "jnp.where(is_right, latent.state, state)",
    ),
    "hard-mdp-shows-true-labels": Mutation(
        "rl/environments/_classification_mdp.py",
        'world.task if variant == "hard" else world.data.members',
        'world.data.members if variant == "hard" else world.data.members',
    ),
    "bytes-are-not-scaled": Mutation(
        "rl/_view.py", "inputs / 255 if observations.dtype == jnp.uint8 else inputs", "inputs"
    ),
    "probe-of-a-zero-head": Mutation(
        "diagnostics/_probe_plasticity.py", "jnp.where((leaf == 0).all(), normal, leaf)", "leaf"
    ),
    "probe-begins-at-the-end": Mutation(
        "diagnostics/_probe_plasticity.py",
        "probed(subject, *subject.initial) if initial and subject.initial else None",
        "probed(subject, subject.params, subject.state) if initial and subject.initial else None",
    ),
    "isometry-gradient-halved": Mutation(
        "isometry.py", "gradient = 4.0 * jnp.matmul(tall", "gradient = 2.0 * jnp.matmul(tall"
    ),
    "gram-gradient-halved": Mutation("isometry.py", "4.0 * jnp.matmul(primals[0]", "2.0 * jnp.matmul(primals[0]"),
    "redo-keeps-outgoing-weights": Mutation(
        "interventions/_surgery.py", "jnp.where(read[name], jnp.zeros_like(leaf), leaf)", "leaf"
    ),
    "resets-keep-moments": Mutation(
        "interventions/_moments.py", "jnp.where(fitting[0], jnp.zeros_like(leaf), leaf)", "leaf"
    ),
    "continual-backprop-correction": Mutation(
        "interventions/_continual_backprop.py", "1.0 - decay**state.age, 1.0)", "1.0 - decay, 1.0)"
    ),
    "upgd-protects-the-useless": Mutation(
        "optimizers/_upgd.py", "lambda g, w: -g.astype(jnp.float32)", "lambda g, w: g.astype(jnp.float32)"
    ),
    "l2-init-pulls-to-zero": Mutation(
        "penalties/_l2_init.py",
        "return jax.tree.map(jnp.copy, params)",
        "return jax.tree.map(jnp.zeros_like, params)",
    ),
    "spectral-aims-at-the-square": Mutation(
        "penalties/_spectral.py", "(norm**exponent - aim**exponent) ** 2", "(norm**exponent - aim) ** 2"
    ),
    "effective-rank-over-the-largest": Mutation(
        "penalties/_effective_rank.py", "sizes.sum(), 1.0)", "sizes.max(), 1.0)"
    ),
    "measured-rank-over-the-largest": Mutation(
        "diagnostics/_singular_values.py", "total = relative.sum()", "total = relative.max()"
    ),
    "dormancy-over-the-largest": Mutation(
        "diagnostics/_dormancy.py", "means / (means.mean() + 1e-9)", "means / (means.max() + 1e-9)"
    ),
    "scales-of-a-norm-are-lost": Mutation(
        "tracing/_follow.py",
        "if node.name in _SCALES and (units == NONE).all():",
        "if node.name in _SCALES and units is None:",
        "tests/inference/test_frameworks.py",
    ),
    "places-come-before-blocks": Mutation(
        "wiring.py",
        "(across, axis + (axis > across)), (-2, -1))",
        "(across, axis + (axis > across)), (-1, -2))",
        "tests/inference/test_groups.py",
    ),
    "blocks-are-read-as-one": Mutation(
        "inference/_layers.py",
        "groups=blocks if blocks > 1 else len(own), across=first), own)]",
        "groups=len(own), across=first), own)]",
        "tests/inference/test_groups.py",
    ),
    "units-that-are-used-twice-are-layers": Mutation(
        "inference/_layers.py",
        "(makes != (product.leaf in fed) or not (makes or reads))",
        "(makes != (product.leaf in fed) and not (makes or reads))",
        "tests/inference/test_not_followed.py",
    ),
    "kernels-used-elsewhere-feed-torch-layers": Mutation(
        "torch/_infer.py",
        "if number not in (0, len(layer.uses)):",
        "if number < len(layer.uses):",
        "tests/pytorch/test_torch_wiring.py",
    ),
    "one-use-of-a-layer-is-seen": Mutation(
        "inference/_wiring.py",
        "tuple(Seen(use.feature, use.place) for use in each.layer.uses)",
        "tuple(Seen(use.feature, use.place) for use in each.layer.uses[:1])",
        "tests/inference/test_shared_layers.py",
    ),
    "checkpoints-are-lost": Mutation(
        "inference/_program.py", "and tape.wanted is not None", "and tape.wanted is None", "tests/inference"
    ),
    "tangent-kernel-chunks": Mutation(
        "tracing/_parameter_uses.py",
        "return jax.lax.map(function, examples, batch_size=at_once)",
        "return jax.lax.map(function, jax.tree.map(lambda leaf: leaf.at[at_once:].set(leaf[0]), examples))",
        "tests/diagnostics/test_ntk.py",
    ),
    "chance-of-another-class": Mutation(
        "streams/_random_labels.py", "chance=1 / num_classes", "chance=1 / (num_classes + 1)"
    ),
    "test-images-are-not-permuted": Mutation(
        "streams/_permuted_pixels.py",
        "size, -1)[:, task]",
        "size, -1)[:, task if images is data.train else jnp.arange(size)]",
    ),
    "padding-counts": Mutation("streams/_objectives.py", "real = targets != 0", "real = targets >= 0"),
    "what-a-function-encloses-is-not-recorded": Mutation(
        "specs/_content.py",
        "[value.__defaults__, value.__kwdefaults__, closure]",
        "[value.__defaults__, value.__kwdefaults__]",
    ),
    "one-order-for-all-epochs": Mutation(
        "sampling.py", "default_rng((seed, task, epoch))", "default_rng((seed, task))"
    ),
    "resumed-with-other-keys": Mutation(
        "training/_run.py",
        "Trainer(protocol, method, block.seeds, reused,",
        "Trainer(protocol, method, [seed + (first > 0) for seed in block.seeds], reused,",
        "tests/supervised/test_run.py",
    ),
    "new-seeds-are-the-first-again": Mutation(
        "training/_run.py",
        "Trainer(protocol, method, block.seeds, reused,",
        "Trainer(protocol, method, range(len(block.seeds)), reused,",
        "tests/supervised/test_extend.py",
    ),
    "later-tasks-stay": Mutation(
        "results/_metric_parts.py",
        "_keep_first(folder, task - 1)",
        "_keep_first(folder, task)",
        "tests/results/test_metric_parts.py",
    ),
    "arrays-of-grids-are-joined-by-seed": Mutation(
        "results/_method_folder.py",
        "np.concatenate(parts, axis=1)",
        "np.concatenate(parts, axis=0)",
        "tests/results/test_method_folder.py",
    ),
    "checkpoints-of-short-tasks-are-forgotten": Mutation(
        "training/_checkpoint.py",
        "self._pending = {num_tasks_done: state}",
        "self._pending = {}",
        "tests/training/test_checkpoint.py",
    ),
    "the-end-of-a-metric-is-one-task": Mutation(
        "results/_metric_reading.py",
        "first_kept[pair] = task if len(ends[pair]) == num_tasks else 0",
        "first_kept[pair] = task",
        "tests/results/test_metric_reading.py",
    ),
    "restores-the-oldest": Mutation(
        "training/_checkpoint.py",
        "num_tasks_done or self.num_tasks_done()",
        "num_tasks_done or self.kept()[0]",
    ),
    "the-same-noise-in-every-step": Mutation(
        "training/_step.py", "noise = jax.random.fold_in(keys.noise, step)", "noise = jax.random.fold_in(keys.noise, 0)"
    ),
    "points-add-up": Mutation(
        "training/_trainer.py",
        "since_point, last = Sums(), stop",
        "last = stop",
        "tests/training/test_source.py",
    ),
    "a-point-is-evaluated-with-the-keys-of-the-end": Mutation(
        "training/_observe.py", "jnp.where(shared.point > 0,", "jnp.where(False,", "tests/training/test_source.py"
    ),
    "panels-show-what-was-between": Mutation(
        "results/_phases.py",
        '- points["begin"] + points["offset"]',
        "* 1",
        "tests/results/test_learning_curves.py",
    ),
    "axes-of-accuracies-are-cut": Mutation(
        "results/_axes.py",
        "bool(0 <= finite.min() < _HIGH)",
        "bool(finite.min() < 0)",
        "tests/results/test_figures.py",
    ),
    "report-takes-names-for-markup": Mutation(
        "results/report/_page.py",
        "autoescape=True",
        "autoescape=False",
        "tests/results/report/test_page.py",
    ),
    "watch-answers-any-host": Mutation(
        "results/report/_watch.py",
        "if name not in _NAMES:",
        "if not _NAMES:",
        "tests/results/report/test_watch.py",
    ),
    "standard-error-of-a-population": Mutation("results/_statistics.py", "by_seed.std(ddof=1)", "by_seed.std()"),
    "iqm-of-most": Mutation("results/_statistics.py", "trim_mean(values, 0.25", "trim_mean(values, 0.05"),
    "atari-lost-life-begins-a-game": Mutation(
        "rl/environments/_atari.py", "begins = done & ~self.goes_on", "begins = done | False"
    ),
    "host-restarts-all-stacks": Mutation(
        "rl/environments/_host.py", "jnp.where(chosen, first(new), state.observation)", "first(new)"
    ),
    "gymnax-end-counts-as-cut": Mutation("rl/environments/_gymnax.py", "is_late & ~terminated", "is_late"),
    "gymnax-limit-off-by-one": Mutation("rl/environments/_gymnax.py", "(steps >= limit)", "(steps > limit)"),
    "minatar-permutation-inverted": Mutation(
        "rl/environments/_minatar.py",
        "channels[:, None] == order[None]",
        "channels[:, None] == jnp.argsort(order)[None]",
    ),
    "minatar-last-action-for-invalid": Mutation(
        "rl/environments/_minatar.py",
        "jnp.where(action < native.num_actions, action, 0)",
        "jnp.minimum(action, native.num_actions - 1)",
    ),
    "minatar-one-order-for-all-cycles": Mutation(
        "rl/environments/_minatar.py", "default_rng([order_seed, cycle])", "default_rng([order_seed, 0])"
    ),
    "asterix-erases": Mutation(
        "rl/environments/_minatar_games.py",
        "is_new = free & (jnp.cumsum(free) - 1 == place)",
        "is_new = _CELLS[:8] == place.astype(jnp.int32)",
        tests="tests/rl/environments/test_minatar.py",
    ),
    "space-invaders-nearest-alien-to-the-right": Mutation(
        "rl/environments/_minatar_games.py",
        "(pos < _CELLS), 99",
        "(pos > _CELLS), 99",
        tests="tests/rl/environments/test_minatar.py",
    ),
    "two-seeds-have-an-interval": Mutation("results/_statistics.py", "FEWEST_SEEDS = 3", "FEWEST_SEEDS = 2"),
    "of-errors-the-higher-is-better": Mutation(
        "results/_comparison.py", "(b, a) if is_lower else (a, b)", "(a, b) if is_lower else (a, b)"
    ),
    "tuned-on-the-seeds-of-the-results": Mutation("tuning/_tune.py", "        first_seed=FIRST_TUNING_SEED,\n", ""),
    "a-diverged-trial-is-selected": Mutation(
        "tuning/_trials.py", "return not scored[place].is_sound, cost", "return False, cost"
    ),
    "the-same-seeds-in-two-processes": Mutation(
        "results/_method_folder.py",
        "if other.path not in own and any(",
        "if not other.path and any(",
        tests="tests/results/test_run_folder.py",
    ),
    "a-sweep-skips-tasks-without-checkpoint": Mutation(
        "cluster/_plan.py", "max(checkpoints, default=0)", "10**9", tests="tests/cluster/test_plan.py"
    ),
    "a-failed-job-is-tried-again-unasked": Mutation(
        "cluster/_execute.py", "(retry_failed and job.state", "(job.state", tests="tests/cluster/test_execute.py"
    ),
    "rare-branches-count-as-always-taken": Mutation(
        "cluster/_arithmetic.py", ".times(float(taken.mean()))", "", tests="tests/cluster/test_arithmetic.py"
    ),
    "gymnasium-end-counts-as-cut": Mutation(
        "rl/environments/_gymnasium.py", "(self.lengths >= self.limit)) & ~terminated", "(self.lengths >= self.limit))"
    ),
}


def failures(tree: Path, tests: list[str], num_workers: int) -> list[str]:
    """The names of the fast tests that fail in a tree, of some files or, for an empty list, of all."""
    # The installed package is that of the original tree: the copy's comes before it.
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    command = [sys.executable, "-m", "pytest", "-n", str(num_workers), "-q", "--quick", "-rfE"]
    try:
        done = subprocess.run(
            [*command, "-m", "not slow and not whole", *tests],
            cwd=tree,
            env=environment,
            text=True,
            capture_output=True,
            timeout=MOST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return [f"(no end after {MOST_SECONDS} s)"]
    if done.returncode not in (0, 1, 2, 5):  # 5: a module without examples
        raise RuntimeError(done.stdout + done.stderr)
    found = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return sorted(set(found)) or (["(pytest ended without a name)"] if done.returncode in (1, 2) else [])


def copy_of(root: Path, folder: Path) -> Path:
    tree = folder / "pliant"
    shutil.copytree(root, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (root / ".cache").mkdir(exist_ok=True)
    (tree / ".cache").symlink_to(root / ".cache", target_is_directory=True)
    return tree


def unnoticed(tree: Path, names: list[str], *, all_tests: bool, num_workers: int) -> list[str]:
    """Puts in each fault and takes it out again; prints what fails, and returns the faults of which nothing does."""
    survivors = []
    for name in names:
        mutation = MUTATIONS[name]
        source = mutation.source(tree)
        right = source.read_text()
        source.write_text(mutation.mutated(tree))
        own = mutation.own_tests(tree)
        found = failures(tree, own, num_workers=0) if own and not all_tests else []
        found = found or failures(tree, [], num_workers)
        source.write_text(right)
        print(f"{name}: {len(found)} fail" if found else f"{name}: NOT NOTICED", *found, sep="\n  ", flush=True)
        survivors += [] if found else [name]
    return survivors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(MUTATIONS)}")
    parser.add_argument("--all-tests", action="store_true", help="run every fast test for every fault")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    unknown = set(options.names) - set(MUTATIONS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    names = options.names or list(MUTATIONS)
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_of(ROOT, Path(folder))
        own = sorted({path for name in names for path in MUTATIONS[name].own_tests(tree)})
        if broken := failures(tree, own, num_workers=0):
            print("These fail without any fault:", *broken, sep="\n  ")
            return 1
        survivors = unnoticed(tree, names, all_tests=options.all_tests, num_workers=options.workers)
    print(f"{len(names) - len(survivors)} of {len(names)} faults noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
