"""Whether what is to be published, and what was, is of the study as it stands, and of one code and data set."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path

from sharpness.runtime import closure
from sharpness.study.identity import NOTHING, SIZE
from sharpness.study.plan import Experiment, Study
from sharpness.study.planned import (
    codes,
    differing_members,
    differing_own,
    differing_own_code,
    wanted,
    wanted_own,
)
from sharpness.study.records import Origins, RecordError, Wanted, check, differing, read_rows


class Publication:
    """All tables that a publication of a study will hold, checked one after the other.

    Args:
        study: as it stands now.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._origins = Origins()
        self._earlier: list[tuple[list[dict[str, str]], Wanted, Path]] = []
        self._has_new = False
        self._version = cache(closure.version)

    def add_run(self, experiment: Experiment, run: str, folder: Path, *, is_kept: bool) -> None:
        """Check all tables of one run, in a folder that has the run's; those that were not kept before, by their code.

        Raises:
            RecordError: one is damaged, not what the study asks for, of other code or torch than is here, or
                of other code or data than those before.
        """
        trained = self._study.runs[run]
        for measurement in experiment.collected:
            for table, asked in wanted(self._study, experiment, measurement):
                if asked.run == run:
                    path = folder / table
                    rows = read_rows(path, measurement)
                    check(rows, asked, path)
                    if not is_kept:
                        self._check_code(asked, rows[0], path, trained.own_code)
                    self._add_origins(rows, asked, path, trained.own_code)
        for code in experiment.own_measurements:
            table, asked = wanted_own(trained, code)
            path = folder / table
            rows = read_rows(path, "own")
            if different := differing_own(rows, asked, code):
                raise RecordError(f"{path} {different}")
            for row in rows[:1]:
                if not is_kept:
                    self._check_code(asked, row, path, (*trained.own_code, code))
            self._add_origins(rows, asked, path, (*trained.own_code, code))
        self._has_new = True

    def _check_code(self, asked: Wanted, row: Mapping[str, str], path: Path, own_code: Sequence[str]) -> None:
        if different := differing_own_code(row, own_code):
            raise RecordError(f"{path} {different}")
        for what, theirs, ours in codes(asked, row, self._version, metadata.version("torch")):
            if theirs != ours:
                raise RecordError(
                    f"{path} was computed with other {what} than is here ({theirs}, here it is {ours}; what snakemake "
                    "--touch took for made by this one is published with the one that computed it checked out)"
                )

    def add_collected(self, experiment: Experiment, measurement: str, path: Path) -> None:
        """Check a table that was published before, as far as it tells: an older version wrote fewer columns.

        Raises:
            RecordError: as ``add_run``.
        """
        rows = _rows(path, measurement)
        if different := differing_members(experiment, measurement, rows):
            raise RecordError(f"{path} {different}, unlike the study")
        of_settings: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in rows:
            of_settings.setdefault((row["run"], row.get("settings", "")), []).append(row)
        for asked in _joined(wanted(self._study, experiment, measurement)):
            found = of_settings.pop((asked.run, asked.settings), [])
            settings = self._study.settings(measurement, asked.settings) if asked.settings else {}
            if found:
                _check_published(found, asked, settings, path)
                if SIZE in found[0]:
                    self._add_origins(found, asked, path, self._study.runs[asked.run].own_code)
                else:
                    self._earlier.append((found, asked, path))
            elif self._study.runs[asked.run].stop_patience is None or measurement == "history":
                raise RecordError(f"{path} lacks {measurement}.{asked.settings} of {asked.run}")
        if of_settings:
            run, name = min(of_settings)
            raise RecordError(f"{path} has {measurement}.{name} of {run}, which the study does not measure")

    def add_own_collected(self, experiment: Experiment, path: Path) -> None:
        """Check a table of what the user's own code measured that was published before.

        Raises:
            RecordError: it has another run than the experiment, or lacks one.
        """
        if different := differing_members(experiment, "own", read_rows(path, "own")):
            raise RecordError(f"{path} {different}, unlike the study")

    def _add_origins(
        self, rows: Sequence[Mapping[str, str]], asked: Wanted, path: Path, own_code: Sequence[str] = ()
    ) -> None:
        self._origins.add(
            rows, path, measurement=asked.measurement, data=asked.data, training=asked.training, own_code=own_code
        )

    def check_origins(self) -> None:
        """Check that new results are of the same code as those of an older version beside them.

        Raises:
            RecordError: they are not.
        """
        if self._has_new:
            for rows, asked, path in self._earlier:
                self._add_origins(rows, asked, path)


def _rows(path: Path, measurement: str) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file), [])
        if {SIZE, NOTHING} & set(header) or not header:
            return read_rows(path, measurement)
        file.seek(0)
        rows = list(csv.DictReader(file))
    if not rows or any(None in row or None in row.values() for row in rows):
        raise RecordError(f"{path} is not whole")
    return rows


def _joined(tables: Sequence[tuple[str, Wanted]]) -> list[Wanted]:
    """One for all parts of a run that were measured by the same settings."""
    joined: dict[tuple[str, str], Wanted] = {}
    for _, asked in tables:
        before = joined.get((asked.run, asked.settings))
        steps = [*(before.steps if before else ()), *asked.steps]
        joined[asked.run, asked.settings] = replace(asked, steps=steps)
    return list(joined.values())


def _check_published(
    rows: Sequence[Mapping[str, str]], asked: Wanted, settings: Mapping[str, object], path: Path
) -> None:
    name = f"{asked.measurement}.{asked.settings}" if asked.settings else "evaluation_examples, evaluation_epochs"
    number = settings.get("num_examples")
    if any(
        row.get("settings_digest", asked.digest) != asked.digest
        or (row.get("num_examples") and number not in (None, "auto") and float(row["num_examples"]) != number)
        for row in rows
    ):
        raise RecordError(f"{path} was measured with other settings than the study's {name}")
    if different := differing(rows, asked):
        raise RecordError(f"{path}: {name} of {asked.run} {different}")
