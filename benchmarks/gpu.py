"""What one accelerator does, in at most eight minutes: what docs/performance.md says of CPUs, measured there.

    pip install -e '.[parity,rl]' 'jax[cuda12]'
    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --small              # tiny networks, to try the script on a CPU

1. Seed-steps a second of an MLP, a CNN and ResNet-18 with one and several seeds; steps a second of PyTorch, eager and
   compiled. PyTorch is left out, with the reason, where it has no CUDA. Both may use TF32.
2. What a training step of AdamO costs, relative to Adam's.
3. Environment steps a second of PPO in MinAtar.
4. Hours that the runs of a figure would take at the scale of the paper: updates of all methods at Adam's speed, all
   seeds in one program. Evaluation and diagnostics come on top.

Every part ends what it has begun; parts that the time no longer allows are left out, with the reason.
"""

import functools
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

import networks
import rl
from _learner import chunk
from _timing import alternate, options, report
from pliant.errors import UserError
from pliant.experiments import EXPERIMENTS
from pliant.networks import NETWORKS, cnn, mlp, resnet18
from pliant.types import Network, Stream

FIGURE = "isometry/supervised-cnn"
TRAIN_SIZE = {"cifar10": 50_000, "cifar100": 50_000, "mnist": 60_000}


class Case(NamedTuple):
    """A network at one size."""

    name: str
    stream: Stream
    network: Callable[..., Network]
    torch: Callable[[], Any]
    steps: int
    """In one timed call."""
    seeds: Sequence[int]


def cases(*, small: bool) -> list[Case]:
    gray, colour = networks.images(28, 1), networks.images(32, 3)
    if small:
        tiny = functools.partial(resnet18, width=4, num_blocks=(1, 1))
        return [
            Case("MLP", gray, functools.partial(mlp, widths=(16,)), networks.torch_mlp, 4, (1, 2)),
            Case("CNN", colour, functools.partial(cnn, channels=(4, 4, 4), widths=(8,)), networks.torch_cnn, 2, (1, 2)),
            Case("ResNet", colour, tiny, networks.torch_resnet, 2, (1,)),
        ]
    wide = functools.partial(mlp, widths=(512,) * 4)
    return [
        Case("MLP 784-512×4", gray, wide, networks.torch_mlp, 512, (1, 8, 64)),
        Case("CNN 3×32 + 2×256, 32×32×3", colour, cnn, networks.torch_cnn, 128, (1, 8, 32)),
        Case("ResNet-18, 32×32×3", colour, resnet18, networks.torch_resnet, 32, (1, 8)),
    ]


def without_torch() -> str:
    """Why PyTorch is not measured; empty if it is."""
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed"
    return "" if torch.cuda.is_available() else f"PyTorch {torch.__version__} has no CUDA here"


def of_networks(made: Sequence[Case], repeats: int, no_torch: str) -> list[dict[str, Any]]:
    rows = []
    for case in made:
        candidates = {
            f"pliant, seeds: {seeds}": chunk(
                case.stream,
                "adam",
                network=case.network,
                batch_size=networks.BATCH,
                num_seeds=seeds,
                num_steps=case.steps,
            )
            for seeds in case.seeds
        }
        if not no_torch:
            candidates |= {f"PyTorch, {how}": torch_steps(case, how) for how in ("eager", "compiled")}
        seconds = alternate(candidates, repeats)
        for (what, each), seeds in zip(seconds.items(), [*case.seeds, 1, 1], strict=False):
            rows.append({"network": case.name, "what": what, "seed-steps/s": case.steps * seeds / each})
    return rows


def torch_steps(case: Case, how: str) -> Callable[[], None]:
    """`case.steps` updates by PyTorch on its CUDA device, on batches gathered there."""
    import torch

    torch.set_float32_matmul_precision("high")  # TF32, which XLA uses
    module = case.torch().to("cuda", memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    side, channels = case.stream.input_shape[0], case.stream.input_shape[-1]
    images = torch.randint(0, 256, (1000, channels, side, side), dtype=torch.uint8, device="cuda")
    labels = torch.randint(0, 10, (1000,), device="cuda")
    indices = torch.randint(0, 1000, (case.steps, networks.BATCH), device="cuda")

    def forward(chosen: Any) -> tuple[Any, Any]:
        x = (images[chosen].float() - 127.5) / 74.0
        output = module(x.to(memory_format=torch.channels_last))
        hits = (output.argmax(1) == labels[chosen]).float().mean()
        return torch.nn.functional.cross_entropy(output, labels[chosen]), hits

    forward = forward if how == "eager" else torch.compile(forward, mode="reduce-overhead")

    def run() -> None:
        correct = torch.zeros((), device="cuda")
        for chosen in indices:
            loss, hits = forward(chosen)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            correct += hits
        torch.cuda.synchronize()

    return run


def of_adamo(made: Sequence[Case], repeats: int) -> list[dict[str, Any]]:
    case = made[0]
    common = {"network": case.network, "batch_size": networks.BATCH, "num_seeds": case.seeds[1]}
    common |= {"num_steps": max(case.steps, 16)}
    candidates = {"adam": chunk(case.stream, "adam", **common)}
    for every in (1, 16, 64):
        settings = {"isometry_every": every}
        candidates[f"adamo, every {every}"] = chunk(case.stream, "adamo", settings=settings, **common)
    seconds = alternate(candidates, repeats)
    return [{"optimizer": name, "relative to adam": each / seconds["adam"]} for name, each in seconds.items()]


def of_ppo(repeats: int, *, small: bool) -> list[dict[str, Any]]:
    rollouts, every = (1, (1,)) if small else (16, (1, 8, 64))
    candidates = {seeds: rl.engine("minatar", rollouts, seeds, diagnostics=()) for seeds in every}
    seconds = alternate({str(seeds): run for seeds, run in candidates.items()}, repeats)
    return [{"seeds": seeds, "env steps/s": rollouts * rl.SIZE * seeds / seconds[str(seeds)]} for seeds in candidates]


def of_figure(repeats: int, *, small: bool) -> list[dict[str, Any]]:
    rows = []
    for label, benchmark in EXPERIMENTS[FIGURE].benchmarks.items():
        config = benchmark.configs["paper"]
        size = config.train_size or TRAIN_SIZE[config.dataset]
        updates = config.tasks * (config.steps or config.epochs * math.ceil(size / config.batch_size))
        factory = NETWORKS[config.network]
        chosen: dict[str, Any] = {"widths": config.widths} if config.widths else {}
        chosen |= {"channels": (4, 4, 4)} if small and config.network == "cnn" else {}
        steps = 1 if small else 64
        run = chunk(
            networks.images(32, 3),
            "adam",
            network=functools.partial(factory, **chosen),
            batch_size=config.batch_size,
            num_seeds=1 if small else config.seeds,
            num_steps=steps,
        )
        each = alternate({"run": run}, repeats)["run"] / steps
        hours = updates * len(config.methods) * each / 3600
        rows.append({"run": f"{FIGURE}, {label}", "methods": len(config.methods), "updates": updates, "hours": hours})
    return rows


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--small", action="store_true", help="tiny networks and few steps: tries the script only")
    parser.add_argument("--minutes", type=float, default=8.0, help="no part begins when three quarters of it are over")
    chosen = parser.parse_args()
    started, made, no_torch = time.perf_counter(), cases(small=chosen.small), without_torch()
    found: dict[str, Any] = {"device": jax.devices()[0].device_kind, "platform": jax.devices()[0].platform}
    found |= {"machine": platform.processor() or platform.machine(), "jax": jax.__version__, "small": chosen.small}
    found["left out"] = {"PyTorch": no_torch} if no_torch else {}
    parts = {
        "networks": lambda: of_networks(made, chosen.repeats, no_torch),
        "adamo": lambda: of_adamo(made, chosen.repeats),
        "ppo": lambda: of_ppo(chosen.repeats, small=chosen.small),
        "figure": lambda: of_figure(chosen.repeats, small=chosen.small),
    }
    for name, measure in parts.items():
        if time.perf_counter() - started > 0.75 * 60 * chosen.minutes:
            found["left out"][name] = f"{chosen.minutes:g} minutes do not suffice"
            continue
        try:
            found[name] = measure()
        except UserError as error:  # such as an environment whose package is missing
            found["left out"][name] = str(error)
            continue
        report(found[name], None)
        print()
    found["minutes"] = (time.perf_counter() - started) / 60
    for what, reason in found["left out"].items():
        print(f"without {what}: {reason}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2))
