"""What of a study is published, and what is kept of its runs until it can be. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sharpness.study.paths import StudyFolder
from sharpness.study.plan import KINDS, Experiment, Study
from sharpness.study.planned import wanted_own


@dataclass(frozen=True)
class Published:
    """The folder ``published`` of a study: tables and figures of whole experiments, and the runs kept of the others."""

    study: Study
    folder: StudyFolder

    def kept(self, experiment: Experiment) -> Path:
        """The folder of an experiment's runs, until all of them are there."""
        return Path(self.folder.runs, experiment.name)

    def is_whole(self, experiment: Experiment) -> bool:
        """Whether all runs are kept, so that its tables and figures can be made."""
        return all(are_in(self.kept(experiment), tables_of(self.study, experiment, run)) for run in experiment.runs)

    def has(self, experiment: Experiment) -> bool:
        """Whether every table that the experiment's figures are drawn from is there."""
        names = (experiment.collected[measurement] for measurement in KINDS[experiment.kind].measurements)
        return are_in(Path(self.folder.tables), [f"{name}.csv" for name in names])

    def whole(self) -> list[Experiment]:
        """The experiments whose tables and figures are to be made."""
        return [experiment for experiment in self.study.experiments.values() if self.is_whole(experiment)]

    def lacking(self) -> list[Experiment]:
        """The experiments that are neither published nor whole."""
        experiments = self.study.experiments.values()
        return [experiment for experiment in experiments if not self.has(experiment) and not self.is_whole(experiment)]


def tables_of(study: Study, experiment: Experiment, run: str) -> list[str]:
    """All tables of one run of an experiment, from the folder that has all runs."""
    shipped = [
        table for measurement in experiment.collected for table in study.tables(experiment.name, run, measurement)
    ]
    return shipped + [wanted_own(study.runs[run], code)[0] for code in experiment.own_measurements]


def are_in(folder: Path, tables: list[str]) -> bool:
    """Whether a folder has all of these files."""
    return all((folder / table).exists() for table in tables)
