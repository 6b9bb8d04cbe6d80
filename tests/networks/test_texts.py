from __future__ import annotations

from collections.abc import Sequence

import pytest

from pliant import networks
from pliant.errors import UserError
from pliant.networks import NETWORKS, takes_texts
from pliant.types import Network, TextLengths


def _mine(input_shape: TextLengths, num_outputs: int) -> Network:
    raise NotImplementedError


def _either(input_shape: Sequence[int] | TextLengths, num_outputs: int) -> Network:
    raise NotImplementedError


def test_the_annotation_says_what_a_factory_takes():
    assert [name for name, factory in NETWORKS.items() if takes_texts(factory)] == ["t5", "t5-pretrained"]
    assert takes_texts(_mine)
    assert takes_texts(_either)
    assert not takes_texts(lambda input_shape, num_outputs: None)


def test_an_old_name_is_refused_with_the_new_one():
    with pytest.raises(UserError, match=r"got pliant.networks.TEXT_NETWORKS; wanted pliant.networks.takes_texts"):
        networks.TEXT_NETWORKS  # noqa: B018
    assert not hasattr(networks, "Nothing")
