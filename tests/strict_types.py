"""The run-time type checker of the tests: beartype, with an int accepted where a float is annotated."""

import inspect

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def unchecked(function):
    """The function without the checker: for what a user without it sees."""
    return inspect.unwrap(function)
