"""Every public function has an example that is run and a reference; where it differs from others, it says so."""

import inspect

import pytest

from pliant import diagnostics, interventions, isometry, networks, optimizers, penalties, streams

PACKAGES = (diagnostics, interventions, networks, optimizers, penalties, streams)
FUNCTIONS = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in PACKAGES
    for name in package.__all__
    if inspect.isfunction(getattr(package, name))
} | {"isometry.gram_deviation": isometry.gram_deviation}
# Lookups and index arithmetic have no literature.
SMALL = {"activation", "choose", "examine", "failure", "find_trained", "jacobian_gaps", "measure", "slot_mask", "spell"}
SMALL |= {
    "check_stream",
    "find_diagnostic",
    "from_arrays",
    "image_data",
    "normalized",
    "reads_folder",
    "returned",
    "shifted",
    "summarize",
    "takes_outputs",
    "takes_texts",
    "with_gains",
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_is_complete(name):
    doc = inspect.getdoc(FUNCTIONS[name])
    first = doc.splitlines()[0]
    assert len(first) <= 120
    assert first.endswith(".")
    wanted = ["Example:" if name.split(".")[-1] != "reset_units" else "Returns:"]
    if name.split(".")[-1] not in SMALL:
        wanted.append("References:")
    missing = [section for section in wanted if section not in doc]
    assert not missing, f"{name} lacks {missing}"
