"""Methods that rewrite weights and optimizer statistics, and the surgery that they share."""

from pliant.interventions._continual_backprop import CONTINUAL_BACKPROP, ContinualBackpropState, continual_backprop
from pliant.interventions._dash import DASH, DashState, dash
from pliant.interventions._fire import FIRE, fire
from pliant.interventions._frozen import keep_frozen
from pliant.interventions._full_reset import FULL_RESET, RESET_DISTILL, full_reset
from pliant.interventions._hare_tortoise import HARE_TORTOISE, HareTortoiseState, hare_tortoise
from pliant.interventions._layer_reset import HEAD_RESET, LAST_K_RESET, layer_reset
from pliant.interventions._moments import MASSES, MOMENTS, clear_moments, reset_counts
from pliant.interventions._nap import NAP, NaPState, nap
from pliant.interventions._optimizer_reset import OPTIMIZER_RESET, optimizer_reset
from pliant.interventions._plasticity_injection import PLASTICITY_INJECTION, plasticity_injection, with_injection
from pliant.interventions._pull_to_init import L2_INIT_DECOUPLED, pull_to_init
from pliant.interventions._redo import REDO, REDO_SCHEDULED, ReDoState, redo, scheduled_redo
from pliant.interventions._regrama import REGRAMA, regrama
from pliant.interventions._reprojection import NEWTON_SCHULZ, NEWTON_SCHULZ_MAXMIN, reprojection
from pliant.interventions._selective_reinit import SELECTIVE_WEIGHT_REINIT, selective_reinit
from pliant.interventions._shrink_perturb import SHRINK_PERTURB, shrink_perturb
from pliant.interventions._snr import SNR, SNRState, snr
from pliant.interventions._surgery import reset_units, slot_mask
from pliant.interventions._unit_sphere import UNIT_SPHERE, unit_sphere
from pliant.interventions._weight_clipping import WEIGHT_CLIPPING, weight_clipping

__all__ = [
    "CONTINUAL_BACKPROP",
    "DASH",
    "FIRE",
    "FULL_RESET",
    "HARE_TORTOISE",
    "HEAD_RESET",
    "L2_INIT_DECOUPLED",
    "LAST_K_RESET",
    "MASSES",
    "MOMENTS",
    "NAP",
    "NEWTON_SCHULZ",
    "NEWTON_SCHULZ_MAXMIN",
    "OPTIMIZER_RESET",
    "PLASTICITY_INJECTION",
    "REDO",
    "REDO_SCHEDULED",
    "REGRAMA",
    "RESET_DISTILL",
    "SELECTIVE_WEIGHT_REINIT",
    "SHRINK_PERTURB",
    "SNR",
    "UNIT_SPHERE",
    "WEIGHT_CLIPPING",
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
