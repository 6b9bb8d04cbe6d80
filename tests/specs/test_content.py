import dataclasses
import enum
import functools
import os
import subprocess
import sys
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.methods import METHODS, find
from pliant.specs import content_hash, load
from pliant.types import Method

FACTOR = 2


def _made(text, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(text)
    return load(str(file))


class Point(NamedTuple):
    x: object
    y: object = 0


@dataclasses.dataclass
class Data:
    x: object


class Plain:
    def __init__(self, x):
        self.x = x


class Slots:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class Kind(enum.Enum):
    A = 1
    B = 2


def _scaled_by(factor):
    def scaled(x, *, shift=0.0):
        return factor * x + shift

    return scaled


def _with_default(default):
    def function(x=default):
        return x

    return function


VALUES = {
    "numbers": (1, 1.0, True, 1j, np.float32(1), np.int32(1), jnp.float32(1), 2, None, ...),
    "texts": ("a", b"a", "b", "1", ["a"], ("a",), ["a", "b"], [["a"], "b"]),
    "mappings": ({"a": 1}, {"a": 2}, {"b": 1}, {}, types.SimpleNamespace(a=1)),
    "sets": ({1, 2}, {1, 3}, frozenset(), {"a"}),
    "arrays": (np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.float32), np.ones(4), np.array(["a", {}], object)),
    "keys": (jax.random.key(0), jax.random.key(1), jax.random.key(0, impl="rbg")),
    "objects": (Point(1), Point(2), Data(1), Data(2), Plain(1), Plain(2), Slots(1), Slots(2), Point, Data, Plain),
    "members": (Kind.A, Kind.B, Kind),
    "closures": (_scaled_by(1), _scaled_by(2), _scaled_by(np.ones(3)), _scaled_by(_scaled_by(1))),
    "defaults": (_with_default(1), _with_default(2), _with_default(_scaled_by(2))),
    "lambdas": (lambda x: x, lambda x: 2 * x, lambda x, y=1: x, lambda x, y=2: x, lambda *, x=1: x),
    "partials": (functools.partial(_scaled_by, 1), functools.partial(_scaled_by, 2), functools.partial(_scaled_by)),
    "jit": (jax.jit(_scaled_by(1)), jax.jit(_scaled_by(2))),
    "libraries": (np.linalg.norm, np.add, jnp.add, len, [1].append, [2].append, np, jax.nn.relu, optax.adam),
    "generators": (np.random.default_rng(0), np.random.default_rng(1)),
    "optax": (optax.adam(1e-3), optax.adam(1e-2), optax.chain(optax.clip(1.0), optax.sgd(0.1))),
    "methods": (METHODS["redo"], METHODS["adam"], find("redo+l2-init"), find("adamo+l2-init")),
    "bound": (Plain(_scaled_by(2)).x, Plain(1).__init__, Plain(2).__init__),
}


@pytest.mark.parametrize("kind", VALUES)
def test_different_contents_have_different_hashes(kind):
    assert len(set(map(content_hash, VALUES[kind]))) == len(VALUES[kind])


@pytest.mark.parametrize(
    "make",
    [
        lambda: {1, "a", (2, "b")},
        lambda: _scaled_by(np.arange(3)),
        lambda: Method("a", "b", "c", lambda wiring, *, learning_rate: optax.sgd(learning_rate)),
        lambda: find("redo+l2-init"),
        lambda: object(),
        lambda: Plain({"a": Slots([Data(1)])}),
        lambda: Kind,
    ],
)
def test_equal_contents_have_equal_hashes(make):
    assert content_hash(make()) == content_hash(make())


def test_the_order_of_mappings_and_the_identity_of_arrays_do_not_count():
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    one, other = np.ones(3), np.ones(3)
    assert content_hash([one, one]) == content_hash([one, other])


OWN = """
import functools
import jax
import numpy as np

SCALE = 2.0
TABLE = {"a": np.ones(2)}

def inner(x):
    return SCALE * x  # a global

class Base:
    def shift(self):
        return 1

class Owner(Base):
    def __call__(self, x):
        return inner(x) + self.shift()

def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper

@decorated
@jax.jit
def outer(x, scale=3):
    def nested(y):
        return inner(y) * TABLE["a"][0]
    return nested(x) + Owner()(x)

@jax.custom_vjp
def own_gradient(x):
    return x

own_gradient.defvjp(lambda x: (x, None), lambda residual, g: (3 * g,))

@jax.custom_jvp
def own_tangent(x):
    return x

own_tangent.defjvp(lambda primals, tangents: (primals, 5 * tangents))

@jax.vmap
@jax.checkpoint
@functools.lru_cache
def cached(x):
    return own_gradient(x) + own_tangent(x) + 7

value = lambda x: outer(x) + cached(x)
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE * x", "SCALE + x"),
        ("SCALE = 2.0", "SCALE = 2.5"),
        ("np.ones(2)", "np.zeros(2)"),
        ("return 1", "return 2"),
        ("inner(x) + self", "inner(x) - self"),
        ("scale=3", "scale=4"),
        ("function(*args)", "function(*args) + 0"),
        ("outer(x) +", "outer(x + 1) +"),
        ("3 * g", "4 * g"),
        ("5 * tangents", "6 * tangents"),
        ("+ 7", "+ 8"),
    ],
)
def test_whatever_the_users_code_refers_to_counts(tmp_path, old, new):
    before = content_hash(_made(OWN, tmp_path).value)
    assert before == content_hash(_made("# elsewhere\n\n" + OWN, tmp_path).value)
    assert old in OWN
    assert content_hash(_made(OWN.replace(old, new), tmp_path).value) != before


def test_code_without_source_counts():
    def made(text):
        names = {"__name__": "__main__", "np": np}
        exec(text, names)
        return content_hash(names["f"])

    text = "K = 1\ndef f(x, *, strength: int = 3):\n    return [x for x in {'a', 'b'} if K * len(x) > 2]"
    changes = [("K = 1", "K = 2"), ("'a'", "'c'"), ("> 2", "< 2"), (": int", ""), ("= 3", "= 4")]
    assert made(text) == made("\n\n" + text)
    assert len({made(text), *(made(text.replace(*change)) for change in changes)}) == 1 + len(changes)


def test_what_refers_to_itself():
    loop = [1]
    loop.append(loop)
    other = [2]
    other.append(other)

    def recursive(x):
        return recursive(x - 1) if x else everything

    everything = {recursive, "a"}
    deep = None
    for _ in range(10_000):
        deep = (deep, [])
    assert content_hash(loop) != content_hash(other)
    assert content_hash(recursive) == content_hash(recursive)
    assert len(content_hash(deep)) == 64


def test_a_closure_that_is_not_filled_yet():
    def outer():
        def inner():
            return later

        found = content_hash(inner)
        later = 1
        return found, content_hash(inner), later

    empty, filled, _ = outer()
    assert empty != filled


SCRIPT = """
import dataclasses, functools, optax
import numpy as np
from pliant.methods import METHODS, find
from pliant.specs import content_hash
from pliant.types import Method

@dataclasses.dataclass(frozen=True)
class Settings:
    names: frozenset = frozenset(("a", "b", "c"))

class Net:
    kinds = {"x", "y", "z"}
    def __init__(self):
        self.rng, self.settings = np.random.default_rng(0), Settings()
    def __call__(self, x):
        return len({word for word in ("a", "b") if word in {"b", "c", "d"}}) + x

def make(scale):
    def optimizer(wiring, *, learning_rate: float, momentum=0.5):
        return optax.chain(optax.sgd(learning_rate * scale, momentum), NET)
    return Method("mine", "", "", optimizer, network={"x": 1, "y": functools.partial(NET, x=2)})

NET = Net()
several = find("redo+l2-init+layernorm"), METHODS["adamo"], optax.adam(0.1)
print(content_hash([make(2.0), several, NET, lambda x: NET(x)]))
"""


@pytest.mark.parametrize("how", ["file", "-c"])
def test_the_hash_is_the_same_in_every_process(tmp_path, how):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    command = [sys.executable, str(file)] if how == "file" else [sys.executable, "-c", SCRIPT]
    found = [
        subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        for seed in ("1", "2")
    ]
    assert found[0].stdout == found[1].stdout != ""
