import inspect
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import pliant.torch

CONTRACTS = {"HiddenLayer", "Plastic", "Reader", "Slot", "WiredLayer", "Wiring"}


def ran(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_pliant_does_not_import_torch_nor_pliant_torch_jax():
    program = """
import sys, pliant
assert not any(name.split(".")[0] == "torch" for name in sys.modules)
import pliant.torch
assert not any(name.split(".")[0] in ("jax", "jaxlib", "flax", "optax") for name in sys.modules)
"""
    done = ran(program)
    assert done.returncode == 0, done.stderr


def test_without_torch_the_message_says_what_to_install():
    done = ran("import sys; sys.modules['torch'] = None; import pliant; import pliant.torch")
    assert done.returncode == 1
    assert "MissingExtraError: got a Python without torch; wanted the packages for pliant.torch." in done.stderr
    assert "pip install 'pliant[torch]'" in done.stderr


@pytest.mark.parametrize("name", sorted(set(pliant.torch.__all__) - CONTRACTS))
def test_docstring_is_complete(name):
    doc = inspect.getdoc(getattr(pliant.torch, name))
    assert doc.splitlines()[0].endswith(".")
    for section in ("Example:", "References:", "Differs from:"):
        assert section in doc


def test_the_list_is_what_there_is():
    assert pliant.torch.__all__ == sorted(pliant.torch.__all__, key=lambda name: (name[0].islower(), name))
    assert all(hasattr(pliant.torch, name) for name in pliant.torch.__all__)
