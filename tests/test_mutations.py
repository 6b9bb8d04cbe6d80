import pytest

from mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_code_that_a_fault_changes_is_there(name):
    mutation = MUTATIONS[name]
    compile(mutation.mutated(ROOT), mutation.file, "exec")
