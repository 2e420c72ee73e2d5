"""How a number was made: from which runs and tables, by which code, and by which command it is made anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from sharpness.report.provenance import made_by
from sharpness.study.kinds import kinds_for
from sharpness.study.paths import StudyFolder
from sharpness.study.plan import Experiment
from sharpness.study.runs import is_the_posters


@dataclass(frozen=True)
class Making:
    """How numbers were made."""

    runs: Sequence[str]
    tables: Sequence[str]  # CSV, by name
    made_by: str  # code, torch, device, threads
    command: str


@dataclass(frozen=True)
class Source:
    """An experiment: what was trained and measured for it, and what is drawn from it."""

    experiment: str
    kind: str
    figures: Sequence[str]
    tables: Sequence[str]  # by name
    runs: Sequence[str]
    claimed: Mapping[str, tuple[str, str]]  # network and data of each run that the claims are about
    made_by: str

    @classmethod
    def of(cls, experiment: Experiment, tables: Sequence[pd.DataFrame]) -> Source:
        """What an experiment's collected tables say of it."""
        return cls(
            experiment=experiment.name,
            kind=experiment.kind,
            figures=[*experiment.figures, *experiment.own_drawings],
            tables=[*experiment.collected.values(), *experiment.own_tables],
            runs=list(experiment.runs),
            claimed={name: (run.model, run.data) for name, run in experiment.runs.items() if is_the_posters(run)},
            made_by=made_by(tables),
        )


@dataclass(frozen=True)
class Workshop:
    """A study's experiments, and the commands that make its results anew."""

    study: str
    file: str  # the study's, as a command names it
    sources: Sequence[Source] = field(default_factory=tuple)

    def command(self, target: str) -> str:
        """The command that makes one file of the study's results, and no more than it needs."""
        return f"snakemake -c all {target} --configfile {self.file}"

    def for_claim(self, claim: str, model: str, data: str) -> list[Source]:
        """The experiments with evidence on a claim about a network and its data; of all networks where it has none.

        Args:
            claim: its letter.
            model: the network; empty: any.
            data: its data set.
        """
        return [source for source in self.sources if source.kind in kinds_for(claim) and _evidence(source, model, data)]

    def of_claim(self, claim: str, model: str, data: str) -> Making:
        """How the numbers of a verdict were made."""
        chosen = self.for_claim(claim, model, data)
        making = self._of(chosen, StudyFolder.of(self.study).table("claims"))
        return replace(making, runs=_each(run for source in chosen for run in _evidence(source, model, data)))

    def of_figure(self, name: str) -> Making:
        """How a figure was made."""
        chosen = [source for source in self.sources if name in source.figures]
        return self._of(chosen, StudyFolder.of(self.study).figure(name, "pdf"))

    def of_measurement(self, experiment: str, measurement: str) -> Making:
        """How the collected table of one measurement of an experiment was made."""
        chosen = [source for source in self.sources if experiment == source.experiment]
        return self._of(chosen, StudyFolder.of(self.study).table(f"{experiment}_{measurement}"))

    def of_table(self, name: str) -> Making:
        """How a table of results was made, which has the name of its experiment, or one of the user's own."""
        chosen = [source for source in self.sources if name in (source.experiment, *source.tables)]
        return self._of(chosen, StudyFolder.of(self.study).table(name))

    def _of(self, sources: Sequence[Source], target: str) -> Making:
        return Making(
            runs=_each(run for source in sources for run in source.runs),
            tables=_each(table for source in sources for table in source.tables),
            made_by="; ".join(_each(f"{source.experiment}: {source.made_by}" for source in sources)),
            command=self.command(target),
        )


def _evidence(source: Source, model: str, data: str) -> list[str]:
    """The runs that a claim about a network and its data rests on; about any, where there is no model."""
    return [run for run, subject in source.claimed.items() if not model or subject == (model, data)]


def _each(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))
