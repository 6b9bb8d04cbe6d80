import pytest

from pliant.errors import UserError
from pliant.types import Fresh, Learned, Method, Slot


def test_defaults_do_nothing():
    method = Method("adam", "nothing", "none", optimizer=lambda wiring: wiring)
    assert (method.penalty, method.intervention, dict(method.network), method.boundary_aware) == (None, None, {}, False)
    assert Slot("kernel", -1).tiles == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (lambda: Learned({}, {}, ()).network, r"Learned\.network; wanted Learned\.statistics, its new name"),
        (lambda: Fresh(None, None).network, r"Fresh\.network; wanted Fresh\.init_network, its new name"),
        (lambda: Fresh(None, None).optimizer, r"Fresh\.optimizer; wanted Fresh\.init_optimizer, its new name"),
    ],
)
def test_old_names_of_fields_are_refused_with_the_new_one(old, new):
    with pytest.raises(UserError, match=new):
        old()
