"""The Python in README and CONTRIBUTING runs as it stands."""

import re
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest

from pliant.methods import find
from pliant.types import Network

ROOT = Path(__file__).parents[1]


def _blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


def _run(first_line):
    """Runs the block of the README that begins with a line, alone; returns its names."""
    (block,) = (block for block in _blocks("README.md") if block.startswith(first_line) or f"\n{first_line}\n" in block)
    names = {}
    exec(block, names)
    return names


@pytest.mark.parametrize("place", range(len(_blocks("README.md"))))
def test_every_block_runs_alone(place):
    block = _blocks("README.md")[place]
    for module in ("torch", "equinox"):
        if f"import {module}" in block:
            pytest.importorskip(module)
    exec(block, {})


def test_the_loop_with_optax():
    names = _run("import jax, jax.numpy as jnp, optax")
    assert float(names["loss"](names["params"], names["x"], names["y"])) < 0.01


def test_the_loop_with_nnx():
    names = _run("from flax import nnx")
    x, y = jnp.ones((4, 8)), jnp.ones((4, 1))
    losses = [float(names["step"](names["model"], names["optimizer"], x, y)) for _ in range(30)]
    assert losses[-1] < 0.1 * losses[0]


def test_the_network_of_equinox(key):
    names = _run("import equinox as eqx")
    assert isinstance(names["network"], Network)
    output, _, _ = names["network"].apply(names["arrays"], {}, jnp.ones((4, 8)), train=False, key=key)
    assert output.shape == (4, 2)


def test_readme_for_pytorch():
    pytest.importorskip("torch")
    names = _run("import torch")
    assert isinstance(names["optimizer"], names["torch"].optim.Optimizer)
    assert names["optimizer"].state


def test_the_install_line_names_this_clone_and_extras_that_exist():
    text = (ROOT / "README.md").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = re.findall(r"pip install (\S+)", text)
    assert "." in lines
    for line in lines:
        name, _, extra = line.strip("`'").rstrip("]").partition("[")
        assert name == "."
        assert not extra or extra in extras


def test_contributing(tmp_path):
    (block,) = _blocks("CONTRIBUTING.md")
    (tmp_path / "own.py").write_text(block)
    assert find(f"{tmp_path}/own.py:heavy_ball").name == "heavy-ball"


@pytest.mark.parametrize("command", ["run", "list methods", "show", "plot"])
def test_commands_of_the_readme_exist(command):
    from pliant import cli

    assert f"pliant {command}" in (ROOT / "README.md").read_text()
    assert command.split()[0] in cli._COMMANDS
