"""The Python in README, CONTRIBUTING and docs/ runs as it stands; the commands parse; the links lead somewhere."""

import dataclasses
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest

import pliant
from pliant import cli, problems, supervised
from pliant.errors import UserError
from pliant.methods import find
from pliant.results import report
from pliant.supervised import RunConfig
from pliant.types import Network

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))),
)


def _blocks(document, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


PYTHON = [
    pytest.param(block, id=f"{document}-{number}")
    for document in DOCUMENTS
    if not document.startswith("docs/tutorials/")  # whose blocks go on from each other: tests/docs/test_tutorials.py
    for number, block in enumerate(_blocks(document))
]


def _commands():
    """The lines of all shell blocks that begin with `pliant`, as words."""
    blocks = [block.replace("\\\n", " ") for document in DOCUMENTS for block in _blocks(document, "sh")]
    lines = [line for block in blocks for line in block.splitlines()]
    words = {tuple(shlex.split(line, comments=True)[1:]): None for line in lines if line.startswith("pliant ")}
    return [pytest.param(each, id=" ".join(each)[:60], marks=_tier(each)) for each in words]


def _tier(words):
    """Many methods take seconds to plan."""
    return pytest.mark.whole if "all" in words or len(words) > 12 else ()


COMMANDS = _commands()
TRAINING = ("run", "tune", "reproduce", "sweep")


def _run(document, first_line):
    """Runs the block of a document that begins with a line, alone; returns its names."""
    (block,) = (b for b in _blocks(document) if b.startswith(f"{first_line}\n") or f"\n{first_line}\n" in b)
    names = {}
    exec(block, names)
    return names


@pytest.mark.parametrize("block", PYTHON)
def test_every_block_runs_alone(block, tmp_path, monkeypatch):
    """In a folder with the method of one's own, and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    _write_own_files()
    for module in ("torch", "equinox", "gymnax", "gymnasium"):
        if f"import {module}" in block:
            pytest.importorskip(module)
    exec(block, {})


def test_the_loop_with_optax():
    names = _run("README.md", "import jax, jax.numpy as jnp, optax")
    assert float(names["loss"](names["params"], names["x"], names["y"])) < 0.01


def test_the_loop_with_nnx():
    names = _run("docs/networks.md", "from flax import nnx")
    x, y = jnp.ones((4, 8)), jnp.ones((4, 1))
    losses = [float(names["step"](names["model"], names["optimizer"], x, y)) for _ in range(30)]
    assert losses[-1] < 0.1 * losses[0]


def test_the_network_of_equinox(key):
    pytest.importorskip("equinox")
    names = _run("docs/networks.md", "import equinox as eqx")
    assert isinstance(names["network"], Network)
    output, _, _ = names["network"].apply(names["arrays"], {}, jnp.ones((4, 8)), train=False, key=key)
    assert output.shape == (4, 2)


def test_readme_for_pytorch():
    pytest.importorskip("torch")
    names = _run("README.md", "from pliant.torch import AdamO, param_groups")
    assert isinstance(names["optimizer"], names["torch"].optim.Optimizer)
    assert names["optimizer"].state


def test_readme_attaches_a_method_to_a_network_of_pytorch():
    pytest.importorskip("torch")
    names = _run("README.md", "loss = torch.nn.functional.mse_loss(model(x), y) + optimizer.penalty()")
    assert [layer.name for layer in names["optimizer"].wiring.layers] == ["0"]


def test_the_install_line_names_this_clone_and_extras_that_exist():
    text = (ROOT / "README.md").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = re.findall(r"pip install (\S+)", text)
    assert "." in lines
    for name, _, extra in (
        spec.strip("'").rstrip("]").partition("[") for spec in (*lines, *re.findall(r"'\.\[\w+\]'", text))
    ):
        assert name == "."
        assert not extra or extra in extras


def _own_method():
    (block,) = (block for block in _blocks("README.md") if "Method(" in block)
    return block


def _write_own_files():
    """Those that commands name, as the documents have them."""
    Path("my_methods.py").write_text(_own_method())
    (block,) = (block for block in _blocks("docs/agents.md") if "Environment(" in block)
    Path("my_environments.py").write_text(block)
    for document in DOCUMENTS:
        for block in _blocks(document):
            if file := re.match(r"# (my_\w+\.py)\n", block):
                Path(file[1]).write_text(block)
        for block in _blocks(document, "toml"):
            if file := re.match(r"# (my_\w+\.toml)\n", block):
                Path(file[1]).write_text(block)


def test_the_method_of_ones_own(tmp_path):
    (tmp_path / "my_methods.py").write_text(_own_method())
    assert find(f"{tmp_path}/my_methods.py:heavy_ball").name == "heavy-ball"


@pytest.mark.parametrize(
    "command", ["run", "tune", "sweep", "list methods", "show", "plot", "report", "watch", "diagnose"]
)
def test_commands_of_the_readme_exist(command):
    assert f"pliant {command}" in (ROOT / "README.md").read_text()
    assert command.split()[0] in cli._COMMANDS


@pytest.mark.parametrize("words", [command for command in COMMANDS if command.values[0][0] in TRAINING])
def test_every_run_is_understood(words, tmp_path, monkeypatch):
    """Its options are parsed and its run is planned, not trained; digits stand in for data that must be downloaded."""
    planned = []

    def on_digits(make):
        def plan(config, data_dir, *objects):
            of_data = {name: None for name in ("dataset", "train_size", "test_size") if hasattr(config, name)}
            planned.append(make(dataclasses.replace(config, **of_data)))
            raise UserError(got="a plan", wanted="no training", do="Go on.")

        return plan

    monkeypatch.chdir(tmp_path)
    _write_own_files()
    for name in ("make_plan", "plan_suited"):
        monkeypatch.setattr(problems, name, on_digits(getattr(problems, name)))
    assert cli.main(words) == cli.USER_ERROR
    assert planned


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run under every name that the documents use."""
    folder = tmp_path_factory.mktemp("documents")
    config = RunConfig(
        methods=("adam", "l2-init"),
        seeds=1,
        tasks=1,
        epochs=1,
        widths=(8,),
        diagnostics=("standard", "ntk"),
        checkpoints="all",
    )
    supervised.run(config, folder / "runs" / "NAME")
    pliant.tune(config, methods="adam", trials=1, tuning_seeds=1, seeds=1, out=folder / "runs" / "TUNED")
    shutil.copytree(folder / "runs" / "NAME", folder / "runs" / "TUNED" / "selected", dirs_exist_ok=True)
    for name in ("abrupt", "forty", "four", "two"):
        shutil.copytree(folder / "runs" / "NAME", folder / name)
    return folder


@pytest.mark.parametrize("words", [command for command in COMMANDS if command.values[0][0] not in TRAINING])
def test_every_other_command_works(words, finished, monkeypatch, capsys):
    """Each runs as it is written; only measurements are left out, and nothing is served for long."""
    monkeypatch.chdir(finished)
    monkeypatch.setattr(report.WatchServer, "serve_forever", lambda self: None)
    monkeypatch.setattr(problems, "diagnose_run", lambda *arguments, **options: [])
    assert cli.main(words) == 0, capsys.readouterr().err


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    """To files that exist, and to headings that they have."""
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text()):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        path = (ROOT / document).parent / file if file else ROOT / document
        assert path.exists(), target
        assert not heading or heading in _headings(path), target


def _headings(path):
    """As GitHub names them in links."""
    found = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each not in ("README.md", "docs/faults.md")])
def test_files_that_are_named_exist(document):
    """From the root, `src/pliant`, `tests` or `docs`. Examples have "my_" in them; README names the files of runs."""
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(), flags=re.DOTALL)
    named = set(re.findall(r"`(?:python )?(\w[\w./-]*(?:\.py|\.md|/))`", text))
    roots = (ROOT, ROOT / "src/pliant", ROOT / "tests", ROOT / "docs")
    assert not [path for path in named if "my_" not in path and not any((root / path).exists() for root in roots)]
