r"""Gradient descent keeps up with a minimum that moves in small steps, and loses one that moves in large steps.

    python docs/basin_tracking.py

Theorem 4.7 of *Do Neural Networks Lose Plasticity in a Gradually Changing World?* in numbers. The loss is a basin:
strongly convex within radius r of its minimum θ*, with curvatures between μ and L, and flat outside. Micro-task k has
the loss f_k(θ) = f(Aᵏθ), with A near the identity; its minimum is A⁻ᵏθ*. From one micro-task to the next it moves by

    ‖(A⁻¹ − I) A⁻ᵏθ*‖ ≤ ‖A⁻¹‖ ‖A − I‖ ‖A⁻ᵏθ*‖.

If that is less than the radius, r / ‖Aᵏ⁺¹‖ (lemma 4.4), what gradient descent has found lies in the new basin (lemma
4.5), and it converges to the new minimum (lemma 4.6), and so on (theorem). The paper's own constant is not used: this
is the condition that its proof needs. Here A is a rotation by φ in the plane, so all norms of powers of A are 1, the
inequality is an equality, and the bound is sharp: 2 sin(φ/2) ‖θ*‖ < r.
The loss has a kink at the rim, where the proof never looks.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

CURVATURES = np.array([0.2, 1.0])
RADIUS = 0.5
MINIMUM = np.array([1.0, 0.0])
SHARPEST_ANGLE = 2 * np.arcsin(RADIUS / (2 * np.linalg.norm(MINIMUM)))
"""The bound on φ."""


def gradient(point: np.ndarray) -> np.ndarray:
    """Of the basin: ½ Σ c (θ − θ*)² within the radius, constant outside."""
    offset = point - MINIMUM
    return CURVATURES * offset if np.linalg.norm(offset) <= RADIUS else np.zeros(2)


def rotation(angle: float) -> np.ndarray:
    """The matrix of a rotation in the plane."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def final_distance(angle: float, num_micro_tasks: int, num_steps: int = 200) -> float:
    """How far from the last minimum gradient descent ends, with step size 1/L, beginning in the first minimum."""
    point = MINIMUM.copy()
    for k in range(1, num_micro_tasks + 1):
        moved = rotation(k * angle)
        for _ in range(num_steps):
            point = point - moved.T @ gradient(moved @ point) / CURVATURES.max()
    return float(np.linalg.norm(point - rotation(num_micro_tasks * angle).T @ MINIMUM))


def distances_by_angle(ratios: np.ndarray, num_micro_tasks: int = 5) -> np.ndarray:
    """Final distances for multiples of the bound; few micro-tasks, or the minimum comes full circle to the point."""
    return np.array([final_distance(ratio * SHARPEST_ANGLE, num_micro_tasks) for ratio in ratios])


def distances_by_granularity(micro_steps: np.ndarray, total: float = np.pi) -> np.ndarray:
    """Final distances when one and the same change, a rotation by `total`, is cut into more and more micro-tasks."""
    return np.array([final_distance(total / number, int(number)) for number in micro_steps])


def draw() -> Figure:
    """Both sweeps."""
    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    ratios, numbers = np.linspace(0.1, 2.0, 39), np.arange(1, 21)
    left.plot(ratios, distances_by_angle(ratios), marker="o", markersize=3)
    left.axvline(1.0, color="0.6", linestyle=":", linewidth=1)
    left.set(xlabel="angle of a micro-task / bound", ylabel="distance to the minimum at the end")
    right.plot(numbers, distances_by_granularity(numbers), marker="o", markersize=3)
    right.axvline(np.pi / SHARPEST_ANGLE, color="0.6", linestyle=":", linewidth=1)
    right.set(xlabel="micro-tasks in half a turn", xticks=range(0, 21, 5))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    file = Path(__file__).with_name("basin-tracking.png")
    draw().savefig(file, dpi=160)
    print(f"figure: {file}")
