"""Training steps a second of every kind of network against the same work in eager PyTorch, side by side.

    pip install -e '.[parity]'
    python benchmarks/networks.py

Batches of 64 everywhere, Adam, loss and accuracy of every step. Here as many seeds as cores train at a time, one core
each; PyTorch trains one network, in the fastest of its memory formats and with one thread or all. Compared are
seed-steps a second.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from _learner import chunk
from _timing import alternate, arguments, report
from pliant.networks import cnn, mlp, resnet18, t5, vit
from pliant.streams import Dataset, Images, bigram_cipher, random_labels
from pliant.types import Network, Stream
from pliant.xla import guard

BATCH = 64


class Case(NamedTuple):
    """A network, what it learns, and the same in PyTorch."""

    stream: Stream
    network: Callable[..., Network]
    torch: Callable[[], Any]
    """Makes the PyTorch module: called with inputs, it returns logits."""
    goal: float
    steps: int
    """In one timed call."""


def images(side: int, channels: int) -> Stream:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (1000, side, side, channels), dtype=np.uint8)
    split = Images(pixels, np.arange(1000, dtype=np.int32) % 10)
    one = np.ones((1, 1, 1), np.float32)
    return random_labels(Dataset("synthetic", 10, split, split, 127.5 * one, 74.0 * one))


def torch_mlp() -> Any:
    import torch.nn as nn

    sizes = (784, 512, 512, 512, 512)
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(512, 10))


def torch_cnn() -> Any:
    import torch.nn as nn

    def conv(num_in: int, stride: int) -> list[Any]:
        return [nn.Conv2d(num_in, 32, 3, stride, padding=1), nn.ReLU()]

    dense = [nn.Linear(16 * 16 * 32, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*conv(3, 1), *conv(32, 1), *conv(32, 2), nn.Flatten(), *dense)


def torch_resnet() -> Any:
    import torch.nn as nn

    def conv(num_in: int, num_out: int, size: int, stride: int) -> Any:
        layer = nn.Conv2d(num_in, num_out, size, stride, padding=size // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(num_out))

    class Block(nn.Module):
        def __init__(self, num_in: int, num_out: int, stride: int):
            super().__init__()
            self.inner, self.outer = conv(num_in, num_out, 3, stride), conv(num_out, num_out, 3, 1)
            self.skip = nn.Identity() if num_in == num_out else conv(num_in, num_out, 1, stride)

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.outer(nn.functional.relu(self.inner(x))) + self.skip(x))

    blocks = [
        block
        for num_in, num_out in itertools.pairwise((64, 64, 128, 256, 512))
        for block in (Block(num_in, num_out, 1 if num_in == num_out else 2), Block(num_out, num_out, 1))
    ]
    return nn.Sequential(
        conv(3, 64, 3, 1), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)
    )


def torch_vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=32,
        patch_size=4,
        num_channels=3,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=10,
    )
    model = ViTForImageClassification(config)
    model.forward = functools.partial(_logits, model.forward)
    return model


def _logits(forward: Callable[..., Any], x: Any) -> Any:
    return forward(pixel_values=x).logits


def torch_t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=29, d_model=256, d_kv=64, d_ff=1024, num_layers=1, num_heads=4, dropout_rate=0.0, use_cache=False
    )
    return T5ForConditionalGeneration(config)


def torch_steps(case: Case, channels_last: bool, num_threads: int) -> Callable[[], None]:
    """`case.steps` updates on batches gathered from memory."""
    import torch

    module = case.torch()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    batches = [_torch_batch(case.stream, seed, channels_last) for seed in range(4)]
    if channels_last:
        module = module.to(memory_format=torch.channels_last)

    def run() -> None:
        torch.set_num_threads(num_threads)
        correct = torch.zeros(())
        for inputs, targets in itertools.islice(itertools.cycle(batches), case.steps):
            output = module(**inputs).logits if isinstance(inputs, dict) else module(inputs)
            flat = output.reshape(-1, output.shape[-1])
            loss = torch.nn.functional.cross_entropy(flat, targets.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            correct += (flat.argmax(1) == targets.reshape(-1)).float().mean()

    return run


def _torch_batch(stream: Stream, seed: int, channels_last: bool) -> tuple[Any, Any]:
    import torch

    key = jax.random.key(seed)
    batch = stream.train.batch(stream.data, stream.task(key, 0), jax.random.randint(key, (BATCH,), 0, 1000))
    targets = torch.tensor(np.asarray(batch.targets)).long()
    if isinstance(batch.inputs, tuple):
        source, decoder = (torch.tensor(np.asarray(part)).long() for part in batch.inputs)
        return {"input_ids": source, "attention_mask": (source != 0).long(), "decoder_input_ids": decoder}, targets
    inputs = torch.tensor(np.asarray(batch.inputs).transpose(0, 3, 1, 2))
    return inputs.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format), targets


def cases() -> Iterator[tuple[str, Case]]:
    colour = images(32, 3)
    yield "MLP 784-512×4", Case(images(28, 1), functools.partial(mlp, widths=(512,) * 4), torch_mlp, 1.0, 60)
    yield "CNN 3×32 + 2×256, 32×32×3", Case(colour, cnn, torch_cnn, 0.6, 16)
    yield "ResNet-18, 32×32×3", Case(colour, resnet18, torch_resnet, 1.0, 2)
    yield (
        "ViT 4 blocks, width 256, 65 tokens",
        Case(colour, functools.partial(vit, patch_size=4, width=256, mlp_width=512), torch_vit, 1.0, 4),
    )
    yield "T5, 1 + 1 blocks, width 256, 60 tokens", Case(bigram_cipher(), t5, torch_t5, 1.0, 8)


if __name__ == "__main__":
    guard.use_every_core()
    chosen = arguments(__doc__ or "")
    rows = []
    for name, case in cases():
        seeds = len(jax.devices())
        ours = chunk(case.stream, "adam", network=case.network, batch_size=BATCH, num_seeds=seeds, num_steps=case.steps)
        formats = (False, True) if len(case.stream.input_shape) == 3 else (False,)
        candidates = {"pliant": ours} | {
            f"torch, {threads} threads, channels last {last}": torch_steps(case, last, threads)
            for last in formats
            for threads in sorted({1, seeds})
        }
        seconds = alternate(candidates, chosen.repeats)
        pliant = case.steps * seeds / seconds.pop("pliant")
        torch_best = case.steps / min(seconds.values())
        rows.append({"network": name, "pliant": pliant, "torch": torch_best, "ratio": pliant / torch_best})
        rows[-1]["goal"] = case.goal
        report(rows[-1:], None)
    report(rows, chosen.json)
