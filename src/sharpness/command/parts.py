"""The parts of a study that its jobs belong to, and why Snakemake runs a job, in words for people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sharpness.workflow.listing import FOLDER as LISTINGS

_TABLES = ("runs", "collect", "collect_own", "results_table", "agreement", "claims")
_PARTS = {
    "prepare_data": "data",
    **dict.fromkeys(("try_own", "try_probe", "try_figure"), "trials"),
    **dict.fromkeys(_TABLES, "tables"),
    "report": "report",
    "effective_study": "report",
}
_ORDER = {"data": 0, "trials": 0.5, "train": 1, "tables": 3, "figures": 4, "report": 5}
# As Snakemake begins its reasons, the strongest first.
_REASONS = (
    ("Forced", "asked for"),
    ("Missing output", "not made yet"),
    ("Incomplete output", "was interrupted"),
    ("Code has changed", "its command changed"),
    ("Params have changed", "its settings changed"),
    ("Set of input files", "its inputs are others"),
    ("Software environment", "the environment changed"),
    ("Updated input files", ""),
    ("Input files updated", "follows from the above"),
)


def part_of(rule: str) -> str:
    """The part of a study that a rule's jobs belong to: a measurement has its own name."""
    return "figures" if rule.startswith("figure_") else _PARTS.get(rule, rule).removesuffix("_with_vectors")


def why(reason: str) -> str:
    """Say why a job runs.

    Args:
        reason: as Snakemake gives it.
    """
    for begin, words in _REASONS:
        if found := re.search(rf"(?:^|; ){begin}[^:;]*(?:: ([^;]*))?", reason):
            return words or _changed(found[1] or "")
    return reason or "due"


def _changed(files: str) -> str:
    """Name the files that were edited; of many, the first. The project's own sources stand behind one file."""
    names = [name.rpartition("/")[2] for name in files.split(", ") if not name.startswith(f"{LISTINGS}/")]
    if not names:
        return "its code changed"
    return f"edited: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}"


@dataclass
class Part:
    """The jobs of one part that are due."""

    name: str
    num_jobs: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def reason(self) -> str:
        """Why they are due: each reason with its number of jobs, where there are several."""
        if len(self.reasons) == 1:
            return next(iter(self.reasons))
        return ", ".join(f"{words} ({number})" for words, number in self.reasons.most_common(3))


def parts_of(jobs: Iterable[Mapping[str, Any]]) -> list[Part]:
    """Count jobs by part, in the order in which they come.

    Args:
        jobs: Snakemake's events of jobs that are due.
    """
    parts: dict[str, Part] = {}
    for job in jobs:
        if job["rule_name"] != "all":
            name = part_of(job["rule_name"])
            part = parts.setdefault(name, Part(name))
            part.num_jobs += 1
            part.reasons[why(job["reason"] or "")] += 1
    return [parts[name] for name in in_order(parts)]


def in_order(parts: Iterable[str]) -> list[str]:
    """Sort parts as they depend on one another: measurements, in their own order, stand between training and tables."""
    return sorted(parts, key=lambda name: _ORDER.get(name, 2))
