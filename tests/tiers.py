"""Which tests `make test` runs, and in which order. `make test-all` runs all of them.

A test belongs to the fast tier unless this file, or a marker `whole` beside it, says otherwise. CI runs the fast tier
and one share of the others, another for every commit.
"""

import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest

REPRESENTATIVES = {
    *("adam", "adamo", "redo", "continual-backprop", "l2-init", "reset-distill", "newton-schulz", "two-hot"),
    *("infer", "spectral", "rewarmed-lr", "upgd", "aid", "redo+l2-init"),
}
"""One method, or two, of each family: the others' contracts are left to `make test-all`."""

FIRST_AND_LAST = (
    "tests/contracts/test_networks.py",
    "tests/contracts/test_streams.py",
    "tests/diagnostics/",
    "tests/inference/test_own_networks.py",
    "tests/interventions/",
    "tests/methods/",
    "tests/networks/",
    "tests/optimizers/",
    "tests/penalties/",
    "tests/experiments/benchmarks/",
    "tests/problems/",
    "tests/rl/",
    "tests/supervised/",
    "tests/training/",
    "tests/xla/test_convolution.py",
    "tests/xla/test_rows.py",
)
"""Where most cases compile a program: of a parametrised test its first and last case, and of refusals every case."""

_LONG_TESTS = Path(__file__).parent / "long_tests.txt"
LONG = frozenset(_LONG_TESTS.read_text().splitlines())
"""Tests, or single cases, that took too long: `pytest --note-long 0.5` adds those of more than so many seconds. Without
them the fast tests still reach 95 % of the lines, and notice every fault in `mutations.py`."""

KEPT = (
    "src/",
    "tests/contracts/test_methods.py",
    "tests/inference/test_frameworks.py",
    "tests/rl/environments/test_minatar.py::test_lockstep_from_rare_states",
)
"""Neither thinned nor listed as long: examples of docstrings, tests that choose representatives, and one of which every
case finds other faults."""

HEAVIEST = (
    "tests/contracts/test_methods.py",
    "tests/contracts/test_networks.py",
    "tests/experiments/benchmarks/",
    "tests/training/",
)
"""Begun first, so that no worker is left with one of them at the end."""


def scope_of(nodeid: str) -> str:
    """What one worker runs in one go, since it shares programs: a file; of contracts, all checks of one subject.

    Of a subject with a colon, such as dqn:redo, what stands before it.
    """
    file, _, test = nodeid.partition("::")
    if file.startswith("tests/contracts/") and "[" in test:
        subject = test.partition("[")[2].removesuffix("]").split("-check_")[0]
        return f"{file}[{subject.partition(':')[0]}]"
    return file.rpartition("/")[0] if file.startswith("src/") else file


def note_long(tests: Iterable[str]) -> None:
    """Adds tests to `long_tests.txt`, but for those that are kept."""
    _LONG_TESTS.write_text("".join(f"{test}\n" for test in sorted(LONG.union(tests)) if not test.startswith(KEPT)))


def of_share(items: list[pytest.Item], share: str) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The fast tests with one share of the others, and what is left out. "3/12" is the fourth of twelve shares.

    What one worker runs in one go stays together, so that its programs are compiled in one share only.
    """
    number, _, num_shares = share.partition("/")
    if not (number.isdecimal() and num_shares.isdecimal() and int(number) < int(num_shares)):
        raise pytest.UsageError(f"got the share {share}; wanted one such as 0/12 to 11/12")

    def stays(item: pytest.Item) -> bool:
        place = zlib.crc32(scope_of(item.nodeid).encode()) % int(num_shares)
        return not item.get_closest_marker("whole") or place == int(number)

    return [item for item in items if stays(item)], [item for item in items if not stays(item)]


def arrange(items: list[pytest.Item]) -> None:
    """Heaviest scopes first; tests marked `exact` last in each, so that compilers change once a scope."""
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        first.setdefault(scope_of(item.nodeid), index)

    def place(item: pytest.Item) -> tuple[bool, int, bool]:
        return (
            not item.nodeid.startswith(HEAVIEST),
            first[scope_of(item.nodeid)],
            bool(item.get_closest_marker("exact")),
        )

    items.sort(key=place)


def mark_whole(items: list[pytest.Item]) -> None:
    """Marks the tests that are not in the fast tier."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for test, of_test in cases.items():
        for item in of_test:
            is_end = item in (of_test[0], of_test[-1])
            if {test, item.nodeid} & LONG or not _is_representative(item) or (_is_thinned(test) and not is_end):
                item.add_marker("whole")


def _is_thinned(test: str) -> bool:
    return test.startswith(FIRST_AND_LAST) and not test.startswith(KEPT) and "refuse" not in test


def _is_representative(item: pytest.Item) -> bool:
    from pliant.methods import METHODS

    if not item.nodeid.startswith("tests/contracts/") or not hasattr(item, "callspec"):
        return True
    subjects = [value for value in item.callspec.params.values() if isinstance(value, str)]
    return all(name in REPRESENTATIVES or not set(name.split("+")) <= set(METHODS) for name in subjects)
