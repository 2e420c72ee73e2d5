"""What a run did not measure and why, gathered by setting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from benchmarks.jobs import NETWORKS, Job, title

_WORDS = {"train": "training", "reference": "reference", "cost": "rates and products"}


class Reason(StrEnum):
    """Why a job was not done, as the page says it."""

    TOO_LONG = "Not within the time"
    UNTRAINED = "Without the weights, as their training failed or was left out"


def by_place(jobs: Iterable[Job]) -> list[str]:
    """One line for each setting: the jobs there, in how many rounds each; what has no setting goes by its network."""
    places: dict[str, Counter[str]] = {}
    for job in jobs:
        place = title(job.setting) if job.part in ("spectrum", "reference") else NETWORKS[job.network]
        places.setdefault(place, Counter())[_in_words(job)] += 1
    return [
        f"{place}: {', '.join(_with_rounds(words, num_rounds) for words, num_rounds in counts.items())}"
        for place, counts in places.items()
    ]


def _in_words(job: Job) -> str:
    return _WORDS.get(job.part, job.tool) + (" with malloc's settings" if job.malloc else "")


def _with_rounds(words: str, num_rounds: int) -> str:
    return f"{words} ({num_rounds} rounds)" if num_rounds > 1 else words
