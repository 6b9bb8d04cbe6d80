"""Agents in environments: reinforcement learning as sources of batches."""

from pliant.rl._view import view

__all__ = ["view"]
