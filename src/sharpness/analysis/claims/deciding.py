"""The table of verdicts: every claim of the poster on every network of a study, for computing and for reading."""

from __future__ import annotations

import math

import pandas as pd

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.ends import ends
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.nudged import nudged
from sharpness.analysis.claims.peaks import peaks
from sharpness.analysis.claims.poster import CLAIMS
from sharpness.analysis.claims.schedules import schedules
from sharpness.analysis.claims.slices import slices
from sharpness.analysis.claims.steps import steps
from sharpness.analysis.claims.subjects import Subject
from sharpness.analysis.claims.variants import variants
from sharpness.analysis.claims.verdicts import undecided
from sharpness.analysis.claims.wording import number

RULES = """\
Every claim of the poster, and whether these runs bear it out. A claim *holds* or *does not hold* only where that can
be told from the spread over seeds; otherwise it is *undecided*, and the last column says what would decide it. One
seed decides nothing. Comparisons take one number per seed, a logarithm of a ratio or a difference: the claim holds if
the whole 95 % Student interval of their mean lies on the predicted side, and does not if it lies on the other. An
order of three or more settings is decided by Page's trend test over the seeds that have all of them, exact and
one-sided at 5 %: the claim holds if the predicted order is significant and does not if the reverse is. Fractions of
runs are compared with one half by Wilson's interval, a correlation over runs with zero by its bootstrap interval,
for which whole configurations are drawn, with all their seeds. A claim of several parts holds if all do and does not
if one does not; one of alternatives holds if one does, by wider intervals (Bonferroni). The effect shown is that of
the part that decides. Runs that diverged are counted and left out. What was measured with other settings is judged in
a row of its own, and means over time that are compared are taken at the checkpoints that all the runs have.
"""


def decide(collected: Collected, *, validation_epoch: float) -> pd.DataFrame:
    """The verdicts, in the order of the claims' letters; a claim without runs has one row, undecided.

    Args:
        collected: the tables of the study.
        validation_epoch: the early epoch at which speeds are compared.

    Returns:
        Columns claim, finding, model, data, configuration, quantity, measured, effect, low, high, test, seeds,
        diverged, verdict, would_decide.
    """
    findings = [
        *peaks(collected),
        *slices(collected),
        *steps(collected),
        *variants(collected),
        *nudged(collected, validation_epoch=validation_epoch),
        *ends(collected),
        *schedules(collected),
    ]
    found = {finding.claim for finding in findings}
    findings += [
        Finding(letter, Subject(), undecided(claim.needs), 0) for letter, claim in CLAIMS.items() if letter not in found
    ]
    return pd.DataFrame([_row(finding) for finding in sorted(findings, key=lambda finding: finding.claim)])


def _row(finding: Finding) -> dict[str, object]:
    claim, subject, verdict = CLAIMS[finding.claim], finding.subject, finding.verdict
    return {
        "claim": finding.claim,
        "finding": claim.finding,
        "model": subject.model,
        "data": subject.data,
        "configuration": subject.configuration,
        "quantity": claim.quantity,
        "measured": verdict.measured,
        "effect": verdict.effect.estimate,
        "low": verdict.effect.low,
        "high": verdict.effect.high,
        "test": verdict.test,
        "seeds": verdict.num_seeds,
        "diverged": finding.num_diverged,
        "verdict": verdict.answer,
        "would_decide": verdict.would_decide,
    }


def as_markdown(table: pd.DataFrame) -> str:
    """The verdicts as one table in Markdown, below the rules by which they were reached."""
    header = [
        "Claim", "Verdict", "The poster", "Network", "Measured", "Effect (95 %)", "What is compared", "Test",
        "Seeds", "Diverged", "What would decide it",
    ]  # fmt: skip
    rows = [header, ["---"] * len(header), *(_cells(row) for row in table.to_dict("records"))]
    lines = [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    return f"{RULES}\n" + "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _cells(row: dict[str, object]) -> list[str]:
    place = f"{row['model']} on {row['data']}" if row["model"] else ""
    effect, low, high = (float(str(row[name])) for name in ("effect", "low", "high"))
    interval = "" if math.isnan(low) else f" ({number(low)} to {number(high)})"
    return [
        str(row["claim"]),
        f"**{row['verdict']}**",
        str(row["finding"]),
        ", ".join(part for part in (place, str(row["configuration"])) if part),
        str(row["measured"]),
        "" if math.isnan(effect) else f"{number(effect)}{interval}",
        str(row["quantity"]),
        str(row["test"]),
        str(row["seeds"]),
        str(row["diverged"]),
        str(row["would_decide"]),
    ]
