"""A sweep in a file: what it means, and every mistake in it."""

from pathlib import Path

import pytest

from pliant.cluster import read_sweep
from pliant.errors import UserError
from pliant.experiments import BENCHMARKS
from pliant.rl import AgentConfig
from pliant.supervised import RunConfig


@pytest.fixture
def read(tmp_path):
    def read(text, **options):
        file = tmp_path / "sweep.toml"
        file.write_text(text)
        return read_sweep(file, **options)

    return read


def test_defaults_and_runs(read):
    text = """
        out = "there"
        [defaults]
        methods = ["adam", "redo"]
        learning_rate = 1
        grid = ["redo.threshold=0.1,0.2"]
        [[runs]]
        name = "a"
        widths = [8, 8]
        [[runs]]
        name = "b"
        environment = "cartpole"
        methods = ["adam"]
        grid = []
        [[runs]]
        name = "c"
        stream = "kumar/permuted-mnist"
        scale = "smoke"
        grid = []
    """
    a, b, c = read(text)
    common = {"methods": ("adam", "redo"), "learning_rate": 1.0}
    assert a.config == RunConfig(**common, grid=("redo.threshold=0.1,0.2",), widths=(8, 8))
    assert b.config == AgentConfig(environment="cartpole", methods=("adam",), learning_rate=1.0, grid=())
    assert c.config.stream == BENCHMARKS["kumar/permuted-mnist"].configs["smoke"].stream
    assert c.config.tasks == BENCHMARKS["kumar/permuted-mnist"].configs["smoke"].tasks
    assert [each.path for each in (a, b, c)] == [Path("there") / name for name in "abc"]
    assert read(text, out=Path("here"))[0].path == Path("here/a")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("x = ", "which is no TOML"),
        ("", r"without runs; wanted a table \[\[runs\]\]"),
        ("runs = 3", "without runs"),
        ("outt = 1\n[[runs]]\nname = 'a'", "got the key of a sweep 'outt'; wanted one of .*Did you mean 'out'"),
        ("out = 1\n[[runs]]\nname = 'a'", "got out = 1 in .*; wanted a text"),
        ("[[runs]]\nname = 'a'\nseedz = 1", "got the key of a run 'seedz'; .*Did you mean 'seeds'"),
        ("[[runs]]\nname = 'a'\nseeds = '1'", "got seeds of the run 'a' = '1' in .*; wanted a whole number"),
        ("[[runs]]\nname = 'a'\nseeds = true", "got seeds of the run 'a' = True in .*; wanted a whole number"),
        ("[[runs]]\nname = 'a'\nmethods = 'adam'", "wanted a list of texts"),
        ("[[runs]]\nname = 'a'\nwidths = [1.5]", "wanted a list of whole numbers"),
        ("[[runs]]\nname = 'a'\ncheckpoints = 'none'", "wanted 'last' or 'all'"),
        ("[[runs]]\nseeds = 1", "got run 1 of .* with the name None; wanted a name"),
        ("[[runs]]\nname = '../a'", "with the name '../a'; wanted a name"),
        ("[[runs]]\nname = 'a'\n[[runs]]\nname = 'a'\nseeds = 1", "two runs of the name 'a'"),
        ("[[runs]]\nname = 'a'\n[[runs]]\nname = 'b'", "two runs of the same configuration, 'a' and 'b'"),
        ("[[runs]]\nname = 'a'\nscale = 'cpu'", "got in the run 'a' of .* scale='cpu' without a benchmark"),
        ("[[runs]]\nname = 'a'\nstream = 'x'\nenvironment = 'y'", "got the key of a run 'stream'|several problems"),
    ],
)
def test_mistakes_are_refused(read, text, match):
    with pytest.raises(UserError, match=match):
        read(text)


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"none\.toml: No such file.*; wanted a TOML file that can be read"):
        read_sweep(tmp_path / "none.toml")
