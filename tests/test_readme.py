"""The Python in README and CONTRIBUTING runs as it stands."""

import re
from pathlib import Path

import pytest

from pliant.methods import find
from pliant.types import Network

ROOT = Path(__file__).parents[1]


def _blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


def test_readme(key):
    names = {}
    for block in _blocks("README.md"):
        if "import torch" not in block:
            exec(block, names)
    assert float(names["loss"](names["params"], names["x"], names["y"])) < 0.01
    assert isinstance(names["network"], Network)
    output, _, _ = names["network"].apply(names["arrays"], {}, names["x"], train=False, key=key)
    assert output.shape == (4, 2)


def test_readme_for_pytorch():
    pytest.importorskip("torch")
    (block,) = (block for block in _blocks("README.md") if "import torch" in block)
    names = {}
    exec(block, names)
    assert isinstance(names["optimizer"], names["torch"].optim.Optimizer)
    assert names["optimizer"].state


def test_contributing(tmp_path):
    (block,) = _blocks("CONTRIBUTING.md")
    (tmp_path / "own.py").write_text(block)
    assert find(f"{tmp_path}/own.py:heavy_ball").name == "heavy-ball"


@pytest.mark.parametrize("command", ["run", "list methods", "show", "plot"])
def test_commands_of_the_readme_exist(command):
    from pliant import cli

    assert f"pliant {command}" in (ROOT / "README.md").read_text()
    assert command.split()[0] in cli._COMMANDS
