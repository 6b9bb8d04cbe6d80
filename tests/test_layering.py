"""Imports point one way, there are no relative ones, and only networks/ imports Flax."""

import ast
from pathlib import Path

import pytest

import pliant

ROOT = Path(pliant.__file__).parent
LAYERS = [
    {"errors", "keys", "xla", "sampling", "finite"},
    {"wiring"},
    {"types", "settings", "specs"},
    {"isometry", "masks", "targets", "tracing"},
    {"layouts"},
    {"networks", "optimizers", "penalties", "diagnostics", "streams", "results"},
    {"_diagnose", "inference", "interventions"},
    {"methods"},
    {"training"},
    {"supervised", "rl"},
    {"problems"},
    {"tuning"},
    {"experiments"},
    {"_asked"},
    {"_run", "_tune", "cluster"},
    {"cli"},
    {"__main__"},
    {"torch"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from ([f"pliant.{alias.name}" for alias in node.names] if node.module == "pliant" else [node.module])


def _room(name):
    return name.removesuffix(".py").split(".")[0].split("/")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    room = _room(str(path.relative_to(ROOT)))
    imported = {_room(name.removeprefix("pliant.")) for name in _imports(path) if name.startswith("pliant.")}
    upward = {other for other in imported - {room} if LEVEL[other] >= LEVEL[room]}
    assert not upward, f"{path.relative_to(ROOT)} imports {upward}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_networks_import_flax(path):
    has_flax = any(name.split(".")[0] == "flax" for name in _imports(path))
    assert not has_flax or path.relative_to(ROOT).parts[0] == "networks"


@pytest.mark.parametrize(
    "path",
    sorted(path for path in (ROOT / "torch").glob("*.py") if path.name != "_diagnose.py"),
    ids=lambda path: path.name,
)
def test_the_package_for_pytorch_stands_alone(path):
    """It imports nothing of ours but the errors, and no JAX; the last of the layers, it is imported by nobody.

    `diagnose` alone hands what PyTorch found to the functions that measure JAX networks; it is imported when used.
    """
    names = set(_imports(path))
    ours = {_room(name.removeprefix("pliant.")) for name in names if name.startswith("pliant.")}
    assert ours <= {"errors", "torch"}
    assert not {name.split(".")[0] for name in names} & {"jax", "jaxlib", "flax", "optax"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_are_entered_by_their_list(path):
    inner = {name for name in _imports(path) if name.startswith("pliant.") and "._" in name}
    reached = {name for name in inner if ROOT.parent / name.split("._")[0].replace(".", "/") not in path.parents}
    assert not reached, f"{path} reaches into {reached}"


@pytest.mark.parametrize("path", sorted((ROOT / "xla").glob("*.py")), ids=lambda path: path.name)
def test_what_is_about_xla_alone_knows_nothing_of_ours_but_errors(path):
    ours = {name for name in _imports(path) if name.startswith("pliant.")}
    assert all(name == "pliant.errors" or name.startswith("pliant.xla") for name in ours)


@pytest.mark.parametrize("name", ["step", "chunk", "switch", "observe", "checkpoint", "record", "state", "seeds"])
def test_the_engine_knows_sources_and_no_problems(name):
    """Words of supervised problems are left to those who make sources."""
    text = (ROOT / "training" / f"_{name}.py").read_text().lower()
    assert not [word for word in ("dataset", "data set", "epoch", "label") if word in text]
