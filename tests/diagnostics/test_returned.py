import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from pliant.diagnostics._returned import returned
from pliant.errors import UserError

OUTPUT, HIDDEN = jnp.ones((2, 3)), np.ones((2, 4))


class Pair(NamedTuple):
    output: object
    features: object


@dataclasses.dataclass
class Plain:
    logits: object
    hidden_states: object = None


@pytest.mark.parametrize(
    ("result", "features", "others"),
    [
        (OUTPUT, [], ()),
        ((OUTPUT,), [], ()),
        ((OUTPUT, None), [], ()),
        ((OUTPUT, {"z": HIDDEN, "a": {"y": HIDDEN, "b": [HIDDEN, HIDDEN]}}), ["z", "a/y", "a/b/0", "a/b/1"], ()),
        (Pair(OUTPUT, (HIDDEN, HIDDEN)), ["0", "1"], ()),
        (Pair(OUTPUT, Plain(HIDDEN)), ["logits"], ()),
        (Plain(OUTPUT, (HIDDEN,)), [], ("hidden_states",)),
        ({"prediction": OUTPUT}, [], ()),
        ({"loss": 1.0, "logits": OUTPUT, "none": None}, [], ("loss",)),
        (({"logits": OUTPUT, "value": HIDDEN}, {"z": HIDDEN}), ["z"], ("value",)),
    ],
)
def test_what_is_clear(result, features, others):
    found = returned(result)
    assert found.output is OUTPUT
    assert list(found.features) == features
    assert found.others == others


@pytest.mark.parametrize(
    ("result", "got"),
    [
        ((OUTPUT, HIDDEN), r"tuple \(0, 1\)"),
        ((OUTPUT, {}, {}), r"tuple \(0, 1, 2\)"),
        ({"policy": OUTPUT, "value": HIDDEN}, r"dict \(policy, value\)"),
        (((OUTPUT, HIDDEN), {"z": HIDDEN}), r"tuple \(0, 1\)"),
        (1.0, "float"),
        ({}, "dict"),
    ],
)
def test_what_is_not_is_refused(result, got):
    with pytest.raises(UserError, match=rf"got {got} from `apply`; wanted one output, or a pair \(output, features\)"):
        returned(result)
