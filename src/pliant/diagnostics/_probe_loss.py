"""The loss on the probe examples, when a task begins and when it ends."""

from pliant.diagnostics._as_measured import as_measured
from pliant.diagnostics._subject import loss
from pliant.types import Diagnostic, Scalar, Subject


def _measure(subject: Subject) -> dict[str, Scalar]:
    return {"probe_loss": loss(subject)(subject.params, subject.probe)}


PROBE_LOSS = Diagnostic(
    name="probe-loss",
    summary="mean loss on the probe examples when the task ends",
    cost="cheap",
    measure=_measure,
    summarize=as_measured,
)

START_LOSS = Diagnostic(
    name="start-loss",
    summary="mean loss on the probe examples of the new task before its first update",
    cost="cheap",
    measure=_measure,
    summarize=as_measured,
    moment="start",
)
"""Minus `probe-loss` of the same task, it is the loss that the task removed."""
