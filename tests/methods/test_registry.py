import importlib
import pkgutil

import pytest

from pliant import interventions, networks, optimizers, penalties, targets
from pliant.methods import FAMILIES, METHODS
from pliant.types import Method, Part

FOLDERS = (optimizers, penalties, networks, interventions)
MODULES = [
    targets,
    *(
        importlib.import_module(module.name)
        for folder in FOLDERS
        for module in pkgutil.walk_packages(folder.__path__, f"{folder.__name__}.")
        if not module.ispkg
    ),
]
ROWS = {
    value.name: module.__name__ for module in MODULES for value in vars(module).values() if isinstance(value, Method)
}


def test_every_row_is_in_the_registry():
    assert ROWS.keys() == METHODS.keys()
    assert len(METHODS) == sum(map(len, FAMILIES.values()))


@pytest.mark.parametrize("name", METHODS)
def test_a_row_stands_in_the_file_of_its_mechanism(name):
    method = METHODS[name]
    parts = (
        method.optimizer,
        method.penalty,
        method.intervention,
        method.schedule,
        method.wrap,
        method.targets,
    )
    mechanisms = {(part.factory if isinstance(part, Part) else part).__module__ for part in parts if part}
    if mechanisms:
        assert ROWS[name] in mechanisms
    elif method.network or method.replaces:
        assert ROWS[name].startswith("pliant.networks.")
    else:
        assert name == "adam"
