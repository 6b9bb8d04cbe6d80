"""Agents in environments: reinforcement learning as sources of batches."""

from pliant.rl._budget import Budget
from pliant.rl._config import AgentConfig
from pliant.rl._dqn import dqn
from pliant.rl._plan import AGENTS, environment_factory, make_plan, plan_suited
from pliant.rl._ppo import ppo
from pliant.rl._view import view

__all__ = [
    "AGENTS",
    "AgentConfig",
    "Budget",
    "dqn",
    "environment_factory",
    "make_plan",
    "plan_suited",
    "ppo",
    "view",
]
