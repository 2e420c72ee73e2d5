"""Which measurements read eigenvectors that a spectrum of the same run keeps, instead of finding them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpness.study.kinds import ENDS

if TYPE_CHECKING:
    from sharpness.study.plan import Study


def kept_parts(study: Study, run: str, measurement: str, settings: str, part: str) -> list[tuple[str, str, str]]:
    """List what keeps eigenvectors that one part of a measurement needs: measurement, settings and part.

    Each has at least one of its checkpoints, or the one before, where the measurement looks back.
    """
    keepers = _keepers(study, run, measurement, settings)
    if not keepers:
        return []
    needed = {part: set(study.parts(run, measurement, settings)[part])}
    if study.measurement(measurement, settings).looks_back:
        before = study.part_before(run, measurement, settings, part)
        needed |= {} if before is None else {before[0]: {before[1]}}
    return [
        (*keeper, name)
        for name, steps in needed.items()
        for keeper in keepers
        if (kept := study.parts(run, *keeper).get(name)) is not None and (name == ENDS or steps & set(kept))
    ]


def num_shared(study: Study, run: str, measurement: str, settings: str, part: str) -> int:
    """Count the checkpoints of a part whose eigenvectors are kept, so that nobody looks for them."""
    kept = [study.parts(run, *keeper) for keeper in _keepers(study, run, measurement, settings)]
    if part == ENDS:
        return 2 if any(ENDS in parts for parts in kept) else 0
    steps = {step for parts in kept for step in parts.get(part, ())}
    return len(steps.intersection(study.parts(run, measurement, settings)[part]))


def _keepers(study: Study, run: str, measurement: str, settings: str) -> list[tuple[str, str]]:
    """Measurements of a run, with their settings, that keep the eigenvectors which another one needs."""
    keepers = study.keepers.get(run)
    if not keepers:
        return []
    needing = study.measurement(measurement, settings)
    return [keeper for keeper in keepers if study.measurement(*keeper).keeps_for(needing)]
