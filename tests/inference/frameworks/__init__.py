"""Layers of five libraries behind the same few functions, and models written once in terms of them."""

import pliant  # noqa: F401, before anything is computed
