"""Which metrics are drawn, and the groups in the menu from which a reader chooses."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pliant.results._picture_parts import naturally

_NOT_DRAWN = ("diverged", "environment", "env_steps")  # said in words, names of panels, an axis
_MAIN = (
    *("loss", "online_accuracy", "train_accuracy", "test_accuracy", "validation_accuracy"),
    *("episode_return", "eval_return", "dead_phase", "entropy", "value_loss", "td_error", "explained_variance"),
    *("dormant_fraction", "dead_fraction", "saturated_fraction", "effective_rank", "srank", "stable_rank"),
    *("isometry_deviation", "weight_norm", "distance_from_init", "gradient_norm", "update_norm"),
    *("ntk_effective_rank", "jacobian_condition_log10", "hessian_trace", "gradient_cosine_mean", "probe_plasticity"),
)
"""Shown first, where they were measured: what readers look for."""


class Group(NamedTuple):
    """Metrics that the menu shows together."""

    label: str
    kind: str
    """The heading under which the menu lists it; empty for the first entries."""
    metrics: frozenset[str]


def drawn_metrics(names: Iterable[str], headline: str) -> list[str]:
    """The metrics below the headline: the main ones first, then by name, and each followed by its layers.

    Example:
      >>> drawn_metrics(["b/dense_10", "train_accuracy", "b/dense_2", "loss", "b", "diverged"], "train_accuracy")
      ['loss', 'b', 'b/dense_2', 'b/dense_10']
    """
    known = {name for name in names if name != headline and name not in _NOT_DRAWN}
    places = {name: place for place, name in enumerate(_MAIN)}

    def order(name: str) -> tuple[int, str, list[str | int]]:
        base = name.partition("/")[0]
        return places.get(base, len(places)), base, naturally(name)

    return sorted(known, key=order)


def groups(metrics: Sequence[str]) -> list[Group]:
    """The groups of a menu: the main metrics, all that are no layer's, those of a family, the layers of a metric.

    A family shares its first word, such as jacobian.

    Example:
      >>> [(group.label, len(group.metrics)) for group in groups(["loss", "ntk_trace", "ntk_rank", "ntk_trace/head"])]
      [('main metrics (1)', 1), ('all metrics of the whole network (3)', 3), ('ntk (2)', 2), ('ntk trace (1)', 1)]
    """
    whole = [name for name in metrics if "/" not in name]
    families: dict[str, list[str]] = {}
    for name in whole:
        families.setdefault(name.partition("_")[0], []).append(name)
    layers: dict[str, list[str]] = {}
    for name in metrics:
        if "/" in name:
            layers.setdefault(name.partition("/")[0].replace("_", " "), []).append(name)
    main = [name for name in whole if name in _MAIN]
    found = [_group("main metrics", "", main)] if main and len(main) < len(whole) else []
    found += [_group("all metrics of the whole network", "", whole)] if whole else []
    several = {name: own for name, own in sorted(families.items()) if 1 < len(own) < len(whole)}
    found += [_group(name, "One family", own) for name, own in several.items()]
    return found + [_group(name, "Layer by layer", own) for name, own in sorted(layers.items())]


def _group(label: str, kind: str, metrics: Sequence[str]) -> Group:
    return Group(f"{label} ({len(metrics)})", kind, frozenset(metrics))
