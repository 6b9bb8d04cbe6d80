"""The page of claims: every experiment with its verdicts, from the tables that come with the package."""

import math
from collections import Counter
from pathlib import Path

from generator.tables import cell, markdown_table
from pliant.experiments import EXPERIMENTS, Claim, Experiment, Results, Verdict, deciding, judge, stored_results

_NOWHERE = Path("no", "run", "folders")
_OUTCOMES = ("does not hold", "holds", "undecided", "not run")


def page() -> str:
    """The page in Markdown."""
    found = {name: stored_results(each, "cpu", _NOWHERE) for name, each in EXPERIMENTS.items()}
    verdicts = {name: {claim: judge(claim, found[name]) for claim in each.claims} for name, each in EXPERIMENTS.items()}
    outcomes = Counter(verdict.outcome for each in verdicts.values() for verdict in each.values())
    parts = [
        "# Claims of the papers",
        "Which sentences of the papers hold on what was measured here, at the scale `cpu`. `pliant claims` prints the "
        "same from your own runs, `pliant reproduce NAME` makes them.",
        markdown_table(["verdict", "claims"], [[each, str(outcomes[each])] for each in _OUTCOMES]),
        "An effect is the mean difference over paired seeds with its 95 % interval (Student's). A comparison *holds* "
        "if the whole interval is at least the wanted effect, and *does not hold* if the whole interval is below. "
        "Fewer than three seeds decide nothing. Of several comparisons the tightest is shown.",
        "The scale `cpu` has smaller networks and fewer tasks than the papers. A claim that does not hold there may "
        "hold at the published size, and the other way round.",
    ]
    contradicted = [
        [f"[{cell(claim.name)}](#{_anchor(name)})", cell(claim.sentence), cell(verdict.reason)]
        for name, each in verdicts.items()
        for claim, verdict in each.items()
        if verdict.outcome == "does not hold"
    ]
    if contradicted:
        parts += ["## What contradicts the papers", markdown_table(["claim", "sentence", "why"], contradicted)]
    for name, experiment in EXPERIMENTS.items():
        parts += _section(experiment, found[name], verdicts[name])
    return "\n\n".join(parts) + "\n"


def _section(experiment: Experiment, results: dict[str, Results], verdicts: dict[Claim, Verdict]) -> list[str]:
    rows = []
    for label, benchmark in experiment.benchmarks.items():
        record = results[label].record if label in results else {}
        about = record.get("environment", {})
        seeds = f"{benchmark.configs['cpu'].seeds} × {benchmark.configs['cpu'].tasks}"
        minutes = f"{sum(record['minutes'].values()):.0f}" if record else "not run"
        machine = f"{about['processor']}, {about['cores']} cores" if "processor" in about else "–"
        rows.append([cell(label), f"`{benchmark.name}`", seeds, minutes, record.get("date", "–"), cell(machine)])
    claims = [
        [cell(claim.name), cell(f"{claim.sentence} ({claim.source})"), _told(verdict), _effect(claim, verdict)]
        for claim, verdict in verdicts.items()
    ]
    return [
        f"## {experiment.name}",
        f"**{experiment.question}** {experiment.reference}.",
        f"The source: {experiment.shows}",
        f"```sh\npliant reproduce {experiment.name}\n```",
        markdown_table(["run", "benchmark", "seeds × tasks", "minutes", "date", "machine"], rows),
        markdown_table(["claim", "what the source says", "verdict", "effect ≥ wanted"], claims),
    ]


def _told(verdict: Verdict) -> str:
    reason = f": {verdict.reason}" if verdict.reason and verdict.outcome != "not run" else ""
    return cell(f"{verdict.outcome}{reason}")


def _effect(claim: Claim, verdict: Verdict) -> str:
    found = deciding(claim, verdict)
    if found is None:
        return "–"
    effect, by = found
    interval = "" if math.isnan(effect.low) else f" [{effect.low:.3g}, {effect.high:.3g}]"
    return f"{effect.value:.3g}{interval} ≥ {by:g}"


def _anchor(name: str) -> str:
    return name.replace("/", "").lower()
