"""What a family of claims hands over: a verdict on one claim, for some runs."""

from __future__ import annotations

from dataclasses import dataclass

from sharpness.analysis.claims.subjects import Subject
from sharpness.analysis.claims.verdicts import Verdict


@dataclass(frozen=True)
class Finding:
    """A verdict on one claim."""

    claim: str  # its letter
    subject: Subject
    verdict: Verdict
    num_diverged: int  # runs, which enter as speaking against the claim
