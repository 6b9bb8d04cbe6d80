import re
from types import SimpleNamespace

import pytest

import tiers
from mutations import ROOT
from pliant.methods import FAMILIES, find


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_representative(family):
    assert {method.name for method in FAMILIES[family]} & tiers.REPRESENTATIVES


def test_representatives_are_methods():
    assert {find(name).name for name in tiers.REPRESENTATIVES} == tiers.REPRESENTATIVES


def test_the_long_tests_are_there():
    sources = {file: (ROOT / file).read_text() for file in {test.partition("::")[0] for test in tiers.LONG}}

    def is_there(test):
        file, _, name = test.partition("[")[0].partition("::")
        return re.search(rf"^ *def {name.rpartition('::')[2]}\(", sources[file], re.MULTILINE)

    assert not [test for test in sorted(tiers.LONG) if not is_there(test)]


@pytest.mark.parametrize("path", [*tiers.FIRST_AND_LAST, *tiers.HEAVIEST, *tiers.KEPT])
def test_the_paths_are_there(path):
    assert (ROOT / path.partition("::")[0]).exists()


@pytest.mark.parametrize(
    ("nodeid", "scope"),
    [
        ("tests/networks/test_mlp.py::test_shapes[relu-3]", "tests/networks/test_mlp.py"),
        ("tests/networks/test_vit.py::TestDropout::test_only_in_training", "tests/networks/test_vit.py"),
        (
            "tests/contracts/test_methods.py::test_contract[l2-init-check_learns]",
            "tests/contracts/test_methods.py[l2-init]",
        ),
        ("tests/contracts/test_methods.py::test_lowers[redo+l2-init]", "tests/contracts/test_methods.py[redo+l2-init]"),
        ("tests/contracts/test_agents.py::test_trains[dqn:redo]", "tests/contracts/test_agents.py[dqn]"),
        ("src/pliant/networks/_mlp.py::pliant.networks._mlp.mlp", "src/pliant/networks"),
    ],
)
def test_what_shares_programs_is_one_scope(nodeid, scope):
    assert tiers.scope_of(nodeid) == scope


def test_shares_have_all_fast_tests_and_together_the_others_once():
    """Shares are of similar size, and a file is in one of them."""
    items = [
        SimpleNamespace(nodeid=f"tests/test_{file}.py::test_{number}", get_closest_marker={"whole": number > 0}.get)
        for file in range(600)
        for number in range(3)
    ]
    fast = items[::3]
    others = []
    for share in range(12):
        kept, left_out = tiers.of_share(items, f"{share}/12")
        assert [item for item in kept if item in fast] == fast
        assert sorted(map(id, kept + left_out)) == sorted(map(id, items))
        others += [item.nodeid for item in kept if item not in fast]
        assert 50 <= len(kept) - len(fast) <= 150
        assert {item.nodeid[:-1] for item in kept if item not in fast}.isdisjoint(item.nodeid[:-1] for item in left_out)
    assert sorted(others) == sorted(item.nodeid for item in items if item not in fast)


@pytest.mark.parametrize("share", ["12/12", "3", "-1/12", "a/b"])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(pytest.UsageError, match="wanted one such as 0/12 to 11/12"):
        tiers.of_share([], share)
