"""Layers of five libraries behind the same few functions, and models written once in terms of them.

A module of a library says whether channels come first, whether running statistics are among the parameters, and whether
each unit has a slope of its own in PReLU.
"""

import pliant  # noqa: F401, before anything is computed
