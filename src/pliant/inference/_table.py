"""The table in which an inferred wiring is printed."""

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from pliant.types import Slot, Wiring


def wiring_table(wiring: Wiring, notes: Mapping[str, str]) -> Table:
    """One row for each hidden layer and head, then what was not followed.

    Args:
      wiring: of a network.
      notes: what was not followed, and why.
    """
    table = Table(title="wiring", title_justify="left")
    for name, justify in (("layer", "left"), ("units", "right"), ("fed by", "left"), ("read by", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    table.add_column("activation", overflow="fold")
    for layer in wiring.layers:
        table.add_row(
            f"[bold]{escape(layer.name)}[/bold]",
            str(layer.width),
            "\n".join(escape(_shown(feed.slot)) for feed in layer.feeds),
            "\n".join(escape(_shown(slot)) for slot in layer.readers),
            escape(layer.activation),
        )
    table.add_section()
    for name, head in wiring.heads.items():
        leaves = "\n".join(map(escape, head.leaves or ())) or "tied"
        table.add_row(f"[bold]{escape(name)}[/bold]", "", leaves, "", f"reads {escape(head.reads or 'the inputs')}")
    table.add_section()
    for name, note in notes.items():
        table.add_row(escape(name), "", "", escape(note))
    return table


def _shown(slot: Slot) -> str:
    times = [f"{slot.tiles} tiles"] * (slot.tiles > 1) + [f"{slot.repeats} repeats"] * (slot.repeats > 1)
    across = f" across {slot.groups} groups of axis {slot.across}" if slot.groups > 1 else ""
    return f"{slot.path} axis {slot.axis}{across}" + (f" ({', '.join(times)})" if times else "")
