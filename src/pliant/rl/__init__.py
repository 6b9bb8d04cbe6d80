"""Agents in environments: reinforcement learning as sources of batches."""
