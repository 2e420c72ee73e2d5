"""The table of verdicts: every claim of the poster on every network of a study, for computing and for reading."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.ends import ends
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.intervals import Interval
from sharpness.analysis.claims.nudged import nudged
from sharpness.analysis.claims.peaks import peaks
from sharpness.analysis.claims.poster import CLAIMS, unit_of
from sharpness.analysis.claims.rules import FIRST_CONFIRMING
from sharpness.analysis.claims.schedules import schedules
from sharpness.analysis.claims.slices import slices
from sharpness.analysis.claims.steps import steps
from sharpness.analysis.claims.subjects import Subject
from sharpness.analysis.claims.variants import variants
from sharpness.analysis.claims.verdicts import Verdict
from sharpness.analysis.claims.wording import number, rounded

FAMILIES = (peaks, slices, steps, variants, nudged, ends, schedules)
# Decided at both ends of the bracket, where there is one.
ON_EIGENVALUES = frozenset("abcdeijkloprs")

RULES = f"""\
Every claim of the poster, and whether these runs bear it out, by the rules of `docs/claims.md`, which were written
before the runs that confirm. Seeds from {FIRST_CONFIRMING} on confirm, and verdicts rest on them alone; what the seeds
below say, which suggested the rules, stands beside it. Where there are no others, these decide by the same tests and
are named *exploring*: such a verdict is not confirmed. Each seed gives one number, and every test is two-sided at 5 %.
A claim *holds* if its test rejects on the claimed side, *does not hold* if it rejects on the other, and is *undecided*
otherwise; the last column says what would decide it. A run that diverged enters with the value that speaks against the
claim. Where the eigenvalues of the measured examples and those of the same eigenvectors on other examples give
different answers, the claim is undecided. Twenty claims at 5 % give one false verdict on average where none is true:
p stands beside each, for whoever wants to correct.
"""

# What a claim wants that the measured examples and others answer differently.
_BRACKET = "a narrower bracket"

COLUMNS = (
    *("claim", "finding", "model", "data", "configuration", "verdict", "test", "p", "quantity", "measured", "effect"),
    *("low", "high", "unit", "side", "threshold", "part", "seeds", "seeds_are", "exploring", "diverged"),
    *("would_decide", "seeds_needed"),
)


def decide(collected: Collected) -> pd.DataFrame:
    """The verdicts, in the order of the claims' letters; a claim that the study is not about has no row.

    Args:
        collected: the tables of the study.

    Returns:
        Columns claim, finding, model, data, configuration, verdict, test (which decided it), p, quantity, measured,
        effect with low, high and unit; side, on which of the threshold the claim sees it; part, whose effect it is in a
        claim of several; seeds, seeds_are (confirming or exploring), exploring (what those say, beside a verdict by
        others), diverged, would_decide, seeds_needed.
    """
    confirming = _found(collected.of_seeds(lambda seeds: seeds >= FIRST_CONFIRMING))
    exploring = _found(collected.of_seeds(lambda seeds: seeds < FIRST_CONFIRMING))
    rows = [_row(finding, "confirming", exploring.get(place)) for place, finding in confirming.items()]
    rows += [_row(finding, "exploring") for place, finding in exploring.items() if place not in confirming]
    return pd.DataFrame(sorted(rows, key=lambda row: str(row["claim"])), columns=COLUMNS)


def _found(collected: Collected) -> dict[tuple[str, Subject], Finding]:
    """What all families of claims find, by claim and subject: the same at both ends of the bracket, or undecided."""
    upper = _asked(collected)
    others = collected.elsewhere()
    lower = upper if others is collected else _asked(others)
    return {
        place: bracketed(finding, lower.get(place, finding)) if place[0] in ON_EIGENVALUES else finding
        for place, finding in upper.items()
    }


def _asked(collected: Collected) -> dict[tuple[str, Subject], Finding]:
    found = (finding for family in FAMILIES for finding in family(collected))
    return {(finding.claim, finding.subject): finding for finding in found if finding.verdict.is_asked}


def bracketed(upper: Finding, lower: Finding) -> Finding:
    """One finding of two: by the eigenvalues of the measured examples, and by those of their vectors on others."""
    verdict, other = upper.verdict, lower.verdict
    if repr(verdict.effect) == repr(other.effect) and verdict.measured == other.measured:
        return replace(upper, verdict=_tested(verdict, "by the measured examples alone"))
    found = f"{_effect(other.effect)} ({other.answer}) by the same eigenvectors on other training examples"
    verdict = replace(_tested(verdict, "at both ends of the bracket"), measured=f"{verdict.measured}; {found}")
    if verdict.answer != other.answer:
        reason = f"{verdict.answer} by the eigenvalues of the measured examples, {other.answer} by those of others"
        wanted = f"{_BRACKET}, of more num_examples: {reason}"
        verdict = replace(verdict, answer="undecided", would_decide=wanted, seeds_needed=math.nan)
    return replace(upper, verdict=verdict)


def _tested(verdict: Verdict, where: str) -> Verdict:
    return replace(verdict, test=f"{verdict.test}; {where}") if verdict.test else verdict


def _row(finding: Finding, seeds_are: str, exploring: Finding | None = None) -> dict[str, object]:
    claim, subject, verdict = CLAIMS[finding.claim], finding.subject, finding.verdict
    row = {
        "claim": finding.claim,
        "finding": claim.finding,
        "model": subject.model,
        "data": subject.data,
        "configuration": subject.configuration,
        "verdict": verdict.answer,
        "test": verdict.test,
        "p": verdict.p,
        "quantity": claim.quantity,
        "measured": verdict.measured,
        "effect": verdict.effect.estimate,
        "low": verdict.effect.low,
        "high": verdict.effect.high,
        "unit": unit_of(finding.claim, verdict.part) if verdict.side else "",
        "side": verdict.side or "",
        "threshold": verdict.threshold,
        "part": verdict.part,
        "seeds": verdict.num_seeds,
        "seeds_are": seeds_are,
        "exploring": "" if exploring is None else _beside(exploring.verdict),
        "diverged": finding.num_diverged,
        "would_decide": verdict.would_decide,
        "seeds_needed": verdict.seeds_needed,
    }
    return {name: rounded(value) if isinstance(value, float) else value for name, value in row.items()}


def _beside(verdict: Verdict) -> str:
    return f"{verdict.answer} by {verdict.num_seeds} seeds: {_effect(verdict.effect)}"


def _effect(effect: Interval) -> str:
    if math.isnan(effect.estimate):
        return "no effect"
    return f"{number(effect.estimate)}" + (
        "" if math.isnan(effect.low) else f" ({number(effect.low)} to {number(effect.high)})"
    )


def decided_by(row: Mapping[str, Any]) -> str:
    """``Page's L, p = 0.0093``: what decided a claim, to stand beside its verdict; empty where nothing was compared.

    Args:
        row: of the table of verdicts: test, p, would_decide.
    """
    if not isinstance(row["test"], str) or not row["test"]:
        return ""
    name = re.split(r", of all parts|; ", row["test"])[0].replace(" over seeds", "").removesuffix(", exact")
    p = math.nan if row["p"] == "" else float(row["p"])
    # The test of the measured images is not what left it undecided.
    where = ", on the measured images alone" if str(row["would_decide"]).startswith(_BRACKET) else ""
    return name if math.isnan(p) else f"{name}, p = {number(p)}{where}"


def as_markdown(table: pd.DataFrame) -> str:
    """The verdicts as one table in Markdown, below the rules by which they were reached."""
    header = [
        "Claim", "Verdict", "Decided by", "p", "The poster", "Network", "Measured", "Effect (95 %)", "Unit",
        "What is compared", "Seeds", "Exploring seeds", "Diverged", "What would decide it",
    ]  # fmt: skip
    rows = [header, ["---"] * len(header), *(_cells(row) for row in table.to_dict("records"))]
    lines = [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    return f"{RULES}\n" + "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _cells(row: dict[str, object]) -> list[str]:
    place = f"{row['model']} on {row['data']}" if row["model"] else ""
    estimate, low, high, p = (float(str(row[name])) for name in ("effect", "low", "high", "p"))
    return [
        str(row["claim"]),
        f"**{row['verdict']}**",
        str(row["test"]),
        "" if math.isnan(p) else number(p),
        str(row["finding"]),
        ", ".join(part for part in (place, str(row["configuration"])) if part),
        str(row["measured"]),
        "" if math.isnan(estimate) else _effect(Interval(estimate, low, high, num=0)),
        str(row["unit"]),
        str(row["quantity"]),
        f"{row['seeds']} {row['seeds_are']}".strip(),
        str(row["exploring"]),
        str(row["diverged"]),
        str(row["would_decide"]),
    ]
