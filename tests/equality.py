"""Trains a set of small runs with two source trees and compares their results to the bit.

    python tests/equality.py                            # the working tree with its last commit
    python tests/equality.py --base main --quick        # with another revision, and the few runs that cover most
    python tests/equality.py --base ../old grid text    # with another folder; one or several runs, by name

Metrics and arrays are read by each tree's own `pliant.results.RunFolder`, so that the two may store them differently.
Runs on data other than digits need `PLIANT_DATA` and are skipped without it. Results of the base are kept in a folder;
those of the candidate are always computed, so that a tree compared with itself shows whether it repeats its numbers.
Ends with 1 if a number differs or a run fails.
"""

import argparse
import hashlib
import io
import json
import os
import runpy
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
KEYS = ("method", "network", "dataset", "seed", "task", "step", "metric")
"""The columns that say which number a row holds; the remaining one is the same throughout a run."""
MOST_SECONDS = 1800
_ONE = "--one"
"""The first argument of a process that makes one run; its arguments, those of `diagnose` and a file follow."""
OWN_METHOD = '''\
"""A method as users write them."""

import optax

from pliant.types import Method


def optimizer(wiring, *, learning_rate, momentum=0.9):
    return optax.with_extra_args_support(optax.sgd(learning_rate, momentum))


heavy_ball = Method(name="heavy-ball", summary="SGD with momentum", reference="Polyak 1964", optimizer=optimizer)
'''


class Run(NamedTuple):
    """A run of the command line."""

    arguments: str
    """What follows `pliant run`; `own.py` is the file of `OWN_METHOD`."""
    data: str = ""
    """The folder below `PLIANT_DATA` without which the run is skipped."""
    diagnose: str = ""
    """What follows `pliant diagnose FOLDER`, whose arrays then join those of the run."""
    is_quick: bool = False


_IMAGES = "--train-size 160 --test-size 40 --seeds 2 --tasks 2 --steps 20"
_SMALL = f"{_IMAGES} --widths 16 16"
_TINY_T5 = "--set t5.width=16 t5.num_heads=2 t5.head_width=8 t5.mlp_width=32"
_OFTEN = (
    "--set redo.every=5 redo-scheduled.every=5 redo-scheduled.horizon=50 regrama.every=5 snr.threshold_every=5 "
    "selective-weight-reinit.every=5 nap.every=5 hare-tortoise.reset_every=10 reset-distill.distill_steps=5 "
    "continual-backprop.replacement_rate=0.05 continual-backprop.maturity=3 wasserstein-init.sort_every=4"
)
_MAIN = "adam l2-init redo adamo adamo-maxmin continual-backprop shrink-perturb c-chain"

RUNS = {
    # The main job.
    "main-three": Run("--methods adam redo adamo --tasks 2 --epochs 2 --set redo.every=30", is_quick=True),
    "main": Run(f"--methods {_MAIN} --tasks 3 --epochs 2 --set redo.every=40 continual-backprop.replacement_rate=0.01"),
    "all": Run(f"--methods all --train-size 160 --widths 16 16 --seeds 2 --tasks 3 --steps 12 {_OFTEN}"),
    "one-seed": Run(f"--methods adam adamo {_SMALL} --seeds 1 --use-bias"),
    "three-seeds": Run(f"--methods adamo redo+l2-init {_SMALL} --seeds 3 --set redo+l2-init.every=5"),
    "own-method": Run(f"--methods own.py:heavy_ball own.py:heavy_ball+redo {_SMALL} --set heavy-ball+redo.every=5"),
    "grid": Run(
        f"--methods adam adamo {_SMALL} --grid learning_rate=0.001,0.01 adamo.isometry_strength=0.01,0.1",
        is_quick=True,
    ),
    # Switches between tasks.
    "reset-fresh": Run(f"--methods adam adamo {_SMALL} --optimizer-at-switch reset --head-at-switch fresh"),
    "zero-drops": Run(f"--methods adam sgd {_SMALL} --head-at-switch zero --rate-drops 0.3 0.6 --rate-drop-factor 0.5"),
    "best-validation": Run(
        "class-incremental --methods adam --tasks 2 --epochs 2 --seeds 2 --widths 16 16 "
        "--weights-at-end best-validation --set class-incremental.validation_per_class=5",
        is_quick=True,
    ),
    # Gradual changes.
    "outputs-fade": Run(
        f"--methods adam adamo {_SMALL} --transition output-interpolation --micro-steps 4",
        is_quick=True,
    ),
    "outputs-fade-long": Run(
        f"--methods adam {_SMALL} --transition output-interpolation --micro-steps 3 --budget per-micro-task"
    ),
    "inputs-fade": Run(
        f"permuted-pixels --methods adam {_SMALL} --transition input-interpolation --micro-steps 3 "
        "--budget per-micro-task"
    ),
    "tasks-mix": Run(
        f"--methods adam redo {_SMALL} --transition task-sampling --micro-steps 4 --transition-share 0.7 "
        "--set redo.every=5"
    ),
    # Diagnostics.
    "full-diagnostics": Run(
        f"--methods adam {_SMALL} --widths 8 8 --probe-size 32 --diagnostics full --diagnose-after 2", is_quick=True
    ),
    "standard-diagnostics": Run(
        f"--methods adamo-maxmin redo {_SMALL} --tasks 3 --diagnostics standard --set redo.every=5"
    ),
    "diagnosed-later": Run(
        f"--methods adam layernorm {_SMALL} --tasks 3 --checkpoints all",
        diagnose="--task 2 --diagnostics standard brownian-twin gradient-cosine",
    ),
    # Networks.
    "cnn": Run(
        f"--network cnn --methods adam redo adamo {_SMALL} --set cnn.channels=8,8,8 cnn.norm=layer redo.every=5 "
        "--diagnostics standard"
    ),
    "lyle-cnn": Run(f"--network lyle-cnn --methods adam {_SMALL} --set lyle-cnn.width_multiplier=0.125"),
    "resnet": Run(
        f"--network resnet18 --methods adam {_IMAGES} --steps 10 --set resnet18.width=4 resnet18.num_blocks=1,1",
        is_quick=True,
    ),
    "resnet-redo": Run(
        "--network resnet18 --methods redo adamo --train-size 60 --test-size 20 --seeds 2 --tasks 2 --steps 6 "
        "--set resnet18.width=4 resnet18.num_blocks=1,1 resnet18.norm=layer redo.every=3 --use-bias"
    ),
    "vit": Run(
        f"--network vit --methods adam redo --use-bias {_IMAGES} --set vit.width=16 vit.num_blocks=1 vit.num_heads=2 "
        "vit.dropout=0.1 redo.every=5"
    ),
    "residual-mlp": Run(f"--network residual-mlp --methods adam continual-backprop+l2 {_SMALL}"),
    "moe-mlp": Run(f"--network moe-mlp --methods adam redo {_SMALL} --set moe-mlp.top_k=2 redo.every=5"),
    "activations": Run(
        f"--methods adam redo {_SMALL} --set mlp.activation=tanh mlp.norm=layer redo.every=5 --standardize half"
    ),
    # Streams that no benchmark below has, and texts.
    "text": Run(
        f"random-seq2seq --network t5 --methods adam --tasks 2 --steps 20 --seeds 1 --batch-size 16 {_TINY_T5} "
        "random-seq2seq.num_examples=64 random-seq2seq.source_words=3 random-seq2seq.target_words=2 "
        "random-seq2seq.num_beams=2",
        is_quick=True,
    ),
    "label-noise": Run(f"label-noise --methods adam {_SMALL}"),
    "warm-start": Run(f"warm-start --methods adam dash shrink-perturb {_SMALL}"),
    "random-teacher": Run(
        "random-teacher --methods adam two-hot hl-gauss upgd --widths 16 16 --seeds 2 --tasks 2 --steps 20 "
        "--set random-teacher.num_examples=128 random-teacher.num_test=32 random-teacher.width=8"
    ),
    "upgd-toy": Run("upgd-toy --methods sgd upgd --widths 16 16 --seeds 2 --tasks 3 --epochs 2"),
    # Published benchmarks: every stream and family of them.
    "isometry-cnn": Run("isometry/random-label-cifar10/cnn --scale smoke"),
    "isometry-shuffle": Run("isometry/label-shuffled-cifar100/mlp --scale smoke"),
    "isometry-vit": Run("isometry/transformer-permuted-cifar10 --scale smoke --seeds 1"),
    "gradual-labels": Run("gradual/random-label-mnist/sampling --scale smoke"),
    "gradual-resnet": Run("gradual/random-label-cifar10/interpolation --scale smoke --epochs 3 --set resnet18.width=4"),
    "gradual-pixels": Run("gradual/permuted-emnist/interpolation --scale smoke"),
    "gradual-text": Run("gradual/seq2seq/interpolation --scale smoke --epochs 6"),
    "gradual-cipher": Run("gradual/bigram-cipher/sampling --scale smoke --epochs 6"),
    "kumar-pixels": Run("kumar/permuted-mnist --scale smoke"),
    "kumar-labels": Run("kumar/random-label-cifar --scale smoke"),
    "kumar-five": Run("kumar/5+1-cifar --scale smoke"),
    "kumar-pairs": Run("kumar/continual-pairs --scale smoke"),
    "dohare-pixels": Run("dohare/permuted-mnist --scale smoke"),
    "dohare-regression": Run(
        "dohare/slowly-changing-regression --scale smoke --methods sgd adam "
        "--set slowly-changing-regression.num_examples=500"
    ),
    "dohare-classes": Run("dohare/class-incremental-cifar100 --scale smoke --epochs 1 --set resnet18.width=4"),
    "lyle": Run("lyle/optimizer-instability --scale smoke"),
    # Data from files.
    "cifar10": Run(
        f"--dataset cifar10 --network cnn --methods adam {_SMALL} --steps 10 --augment crop-flip "
        "--set cnn.channels=4,4,4",
        data="cifar10",
    ),
    "cifar100": Run(
        "class-incremental --dataset cifar100 --network resnet18 --methods sgd --train-size 1000 --test-size 200 "
        "--seeds 1 --tasks 2 --epochs 2 --batch-size 10 --augment crop-flip-rotate --weights-at-end best-validation "
        "--set class-incremental.validation_per_class=2 resnet18.width=4 resnet18.num_blocks=1,1 sgd.momentum=0.9",
        data="cifar100",
    ),
    "mnist": Run(f"permuted-pixels --dataset mnist --methods adam {_SMALL}", data="mnist"),
}


class Results(NamedTuple):
    """What a run found, as texts that are equal only if the numbers are."""

    metrics: Mapping[str, str]
    """By the values of `KEYS`: the number, in hexadecimal."""
    arrays: Mapping[str, str]
    """By method, task and name: shape, dtype and a hash of the content."""
    leaves: Mapping[str, int]
    """The arrays of the last checkpoints as the above, and how often each occurs, wherever it stands in the state."""


def differences(base: Mapping[str, object], candidate: Mapping[str, object]) -> list[str]:
    """The keys, sorted, at which two tables differ or that only one of them has."""
    return sorted(key for key in base.keys() | candidate.keys() if base.get(key) != candidate.get(key))


def content(array) -> str:
    """An array's shape, dtype and the hash of its bytes."""
    return f"{array.shape} {array.dtype} {hashlib.sha256(array.tobytes()).hexdigest()}"


def metrics_by_key(table) -> dict[str, str]:
    """The numbers of a table of metrics; if a key occurs in several rows, all of its numbers."""
    numbers: dict[str, list[str]] = {}
    columns = [map(str, table[column]) for column in KEYS]
    for key, value in zip(zip(*columns, strict=True), table["value"], strict=True):
        numbers.setdefault(" | ".join(key), []).append(float(value).hex())
    return {key: " ".join(sorted(values)) for key, values in numbers.items()}


def read(folder: Path) -> Results:
    """The results in a run folder, by the `pliant` of this process."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    from pliant.results import RunFolder

    run = RunFolder(folder)
    arrays = {
        f"{method} | {task} | {name}": content(array)
        for method in sorted({label.partition("[")[0] for label in run.metrics["method"]})  # all points of a grid
        for task, stored in run.arrays(method).items()
        for name, array in stored.items()
    }
    newest: dict[Path, Path] = {}
    for step in folder.rglob("_CHECKPOINT_METADATA"):
        known = newest.setdefault(step.parents[1], step.parent)
        newest[step.parents[1]] = max(known, step.parent, key=lambda path: int(path.name))
    leaves = Counter(
        content(np.asarray(leaf))
        for step in newest.values()
        for leaf in jax.tree.leaves(ocp.StandardCheckpointer().restore(_learner(step)))
    )
    return Results(metrics_by_key(run.metrics), arrays, leaves)


def _learner(checkpoint: Path) -> Path:
    """Where a checkpoint has what the learner carries; earlier versions had all in one item."""
    return next(checkpoint / name for name in ("learner", "default") if (checkpoint / name).exists()).absolute()


def command_line(*arguments: str) -> None:
    """`python -m pliant` in this process, so that what it imported can read the results."""
    sys.argv = ["pliant", *arguments]
    try:
        runpy.run_module("pliant", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise


def train_and_read(arguments: str, diagnose: str, out: Path) -> None:
    """The program of one process: trains a run in the current folder and stores what it found in a file.

    Raises:
      ImportError: if another `pliant` is found than that of the tree.
    """
    Path("own.py").write_text(OWN_METHOD)
    command_line("run", *arguments.split(), "--out", "run")
    imported = Path(sys.modules["pliant"].__file__ or "")
    if not imported.is_relative_to(os.environ["PYTHONPATH"]):
        raise ImportError(f"{imported} is not of the tree {os.environ['PYTHONPATH']}")
    if diagnose:
        command_line("diagnose", "run", *diagnose.split())
    out.write_text(json.dumps(read(Path("run"))._asdict()))


class Tree(NamedTuple):
    """A source tree."""

    folder: Path
    """With `src/pliant` in it."""
    keep: Path
    """Where compiled programs and the results of the base stay."""

    def digest(self) -> str:
        """A hash of the source and of what else the numbers may depend on."""
        files = sorted((self.folder / "src" / "pliant").rglob("*.py"))
        if not files:
            raise FileNotFoundError(f"no src/pliant in {self.folder}")
        told = [f"{file.relative_to(self.folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]
        packages = [version(package) for package in ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")]
        return hashlib.sha256("\n".join([*told, *packages, str(os.cpu_count())]).encode()).hexdigest()[:12]

    def results(self, name: str, *, is_kept: bool) -> Results | str:
        """What a run finds, or the end of what a failed one printed."""
        run = RUNS[name]
        asked = hashlib.sha256(repr((run.arguments, run.diagnose, OWN_METHOD)).encode()).hexdigest()[:12]
        stored = self.keep / self.digest() / f"{name}-{asked}.json"
        if is_kept and stored.exists():
            return Results(**json.loads(stored.read_text()))
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "results.json"
            script = str(Path(__file__).absolute())
            printed = self._process([sys.executable, script, _ONE, run.arguments, run.diagnose, str(out)], folder)
            if not out.exists():
                return printed[-1500:]
            found = out.read_text()
        if is_kept:
            stored.parent.mkdir(parents=True, exist_ok=True)
            part = stored.with_suffix(f".{os.getpid()}")
            part.write_text(found)
            part.replace(stored)
        return Results(**json.loads(found))

    def _process(self, command: list[str], folder: str) -> str:
        """What a process printed that imports `pliant` from this tree."""
        environment = os.environ | {
            "PYTHONPATH": str((self.folder / "src").absolute()),
            "JAX_COMPILATION_CACHE_DIR": str((self.keep / "programs").absolute()),  # a program's key is its content
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
            "HF_HUB_OFFLINE": "1",
            "MPLBACKEND": "agg",
        }
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                text=True,
                timeout=MOST_SECONDS,
                stdout=-1,
                stderr=subprocess.STDOUT,
            )
        except subprocess.TimeoutExpired:
            return f"(no end after {MOST_SECONDS} s)"
        return done.stdout


def checked_out(revision: str, folder: Path) -> Path:
    """The source of a revision of this repository, in an empty folder."""
    command = ["git", "archive", "--format=tar", revision, "src"]
    archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as stored:
        stored.extractall(folder, filter="data")
    return folder


def lacking(run: Run) -> str:
    """Why a run cannot be made here, if so."""
    if not run.data:
        return ""
    place = os.environ.get("PLIANT_DATA")
    if not place:
        return "PLIANT_DATA is not set"
    return "" if (Path(place) / run.data).is_dir() else f"PLIANT_DATA has no folder {run.data}"


class Comparison(NamedTuple):
    """How the results of two trees differ."""

    name: str
    row: tuple[str, ...]
    is_equal: bool
    details: tuple[str, ...] = ()


HEADER = ("run", "rows", "differ", "arrays", "differ", "checkpoint leaves", "gone", "new", "seconds")


def compare(name: str, base: Results | str, candidate: Results | str, seconds: float) -> Comparison:
    """A row of the table, and the first differences. Leaves of checkpoints are shown, and do not count."""
    failed = {tree: found for tree, found in (("base", base), ("candidate", candidate)) if isinstance(found, str)}
    if failed or isinstance(base, str) or isinstance(candidate, str):
        told = tuple(f"the {tree} fails: {printed}" for tree, printed in failed.items())
        return Comparison(name, (name, f"{' and '.join(failed)} failed"), False, told)
    cells, details = [], []
    for old, new in ((base.metrics, candidate.metrics), (base.arrays, candidate.arrays)):
        found = differences(old, new)
        cells += [str(len(old.keys() | new.keys())), str(len(found))]
        details += [f"{key}: {_number(old.get(key))} → {_number(new.get(key))}" for key in found[:5]]
    gone, new_ones = Counter(base.leaves) - Counter(candidate.leaves), Counter(candidate.leaves) - Counter(base.leaves)
    cells += [str(sum(base.leaves.values())), str(gone.total()), str(new_ones.total()), f"{seconds:.0f}"]
    is_equal = not details and bool(base.metrics)
    return Comparison(name, (name, *cells), is_equal, tuple(details))


def _number(text: str | None) -> str:
    """A number of a table as people read it, with the bits."""
    if text is None:
        return "missing"
    try:
        return f"{float.fromhex(text)!r} ({text})"
    except ValueError:
        return text


def main() -> int:
    if sys.argv[1:2] == [_ONE]:
        arguments, diagnose, out = sys.argv[2:]
        train_and_read(arguments, diagnose, Path(out))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(RUNS)}")
    parser.add_argument("--base", default="HEAD", help="folder or revision to compare with (default: HEAD)")
    parser.add_argument("--candidate", type=Path, default=ROOT, help="folder to compare (default: this working tree)")
    parser.add_argument("--quick", action="store_true", help="the few runs that cover most")
    parser.add_argument("--base-only", action="store_true", help="compute what is to be kept of the base, and stop")
    parser.add_argument("--keep", type=Path, default=ROOT / ".cache" / "equality", help="folder for the base's results")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    unknown = set(options.names) - set(RUNS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    names = options.names or [name for name, run in RUNS.items() if run.is_quick or not options.quick]
    for name in [name for name in names if lacking(RUNS[name])]:
        print(f"{name}: skipped, {lacking(RUNS[name])}")
        names.remove(name)
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.workers) as pool:
        folder = Path(options.base)
        base = Tree(folder if folder.is_dir() else checked_out(options.base, Path(temporary)), options.keep)
        candidate = Tree(options.candidate, options.keep)

        def one(name: str) -> Comparison:
            old = base.results(name, is_kept=True)
            start = time.monotonic()
            new = old if options.base_only else candidate.results(name, is_kept=False)
            compared = compare(name, old, new, time.monotonic() - start)
            print(" | ".join(compared.row), *compared.details, sep="\n  ", flush=True)
            return compared

        print(" | ".join(HEADER))
        unequal = [compared.name for compared in pool.map(one, names) if not compared.is_equal]
    print(
        f"{len(names) - len(unequal)} of {len(names)} runs equal" + (f"; not {', '.join(unequal)}" if unequal else "")
    )
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
