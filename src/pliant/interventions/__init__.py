"""Rewrites of weights and optimizer statistics, and the surgery that they share."""

from pliant.interventions._continual_backprop import ContinualBackpropState, continual_backprop
from pliant.interventions._dash import DashState, dash
from pliant.interventions._fire import fire
from pliant.interventions._frozen import keep_frozen
from pliant.interventions._full_reset import full_reset
from pliant.interventions._hare_tortoise import HareTortoiseState, hare_tortoise
from pliant.interventions._layer_reset import layer_reset
from pliant.interventions._moments import MASSES, MOMENTS, clear_moments, reset_counts
from pliant.interventions._nap import NaPState, nap
from pliant.interventions._optimizer_reset import optimizer_reset
from pliant.interventions._plasticity_injection import plasticity_injection, with_injection
from pliant.interventions._pull_to_init import pull_to_init
from pliant.interventions._redo import ReDoState, redo, scheduled_redo
from pliant.interventions._regrama import regrama
from pliant.interventions._reprojection import reprojection
from pliant.interventions._selective_reinit import selective_reinit
from pliant.interventions._shrink_perturb import shrink_perturb
from pliant.interventions._snr import SNRState, snr
from pliant.interventions._surgery import reset_units, slot_mask
from pliant.interventions._unit_sphere import unit_sphere
from pliant.interventions._weight_clipping import weight_clipping

__all__ = [
    "MASSES",
    "MOMENTS",
    "ContinualBackpropState",
    "DashState",
    "HareTortoiseState",
    "NaPState",
    "ReDoState",
    "SNRState",
    "clear_moments",
    "continual_backprop",
    "dash",
    "fire",
    "full_reset",
    "hare_tortoise",
    "keep_frozen",
    "layer_reset",
    "nap",
    "optimizer_reset",
    "plasticity_injection",
    "pull_to_init",
    "redo",
    "regrama",
    "reprojection",
    "reset_counts",
    "reset_units",
    "scheduled_redo",
    "selective_reinit",
    "shrink_perturb",
    "slot_mask",
    "snr",
    "unit_sphere",
    "weight_clipping",
    "with_injection",
]
