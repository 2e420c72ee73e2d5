"""The jobs of a study, by the files that say what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sharpness.runtime import own
from sharpness.study.kinds import CLAIMS
from sharpness.study.paths import StudyFolder, job_of
from sharpness.study.runs import RUNS

if TYPE_CHECKING:
    from sharpness.study.plan import Study


@dataclass(frozen=True)
class Jobs:
    """The jobs of a study, by the names of their benchmark files; of other studies' jobs there may be files too."""

    runs: list[str]
    kinds: list[int]  # of each run, which of ``names``
    names: list[str]  # of all jobs of a run, with blanks between them
    others: list[str]  # of no single run

    def files(self, results: Path) -> Iterator[Path]:
        """Their benchmark files in the study's folder, whether they are there or not."""
        folder = StudyFolder(str(results))
        for run, kind in zip(self.runs, self.kinds, strict=True):
            for name in self.names[kind].split():
                yield Path(folder.run(run).benchmark(name))
        for name in self.others:
            yield Path(folder.benchmark(name))


def jobs(study: Study) -> Jobs:
    """List the jobs of a study."""
    of_runs = {run: ["train"] for run in study.runs}
    for run, measurement, settings in study.measured:
        of_runs[run] += [job_of(measurement, settings, part) for part in study.parts(run, measurement, settings)]
    for experiment in study.experiments.values():
        for run in experiment.runs:
            of_runs[run] += [f"own-{own.name_of(code)}" for code in experiment.own_measurements]
    of_runs = {run: list(dict.fromkeys(of_run)) for run, of_run in of_runs.items()}
    names = list(dict.fromkeys(" ".join(of_run) for of_run in of_runs.values()))
    kinds = [names.index(" ".join(of_run)) for of_run in of_runs.values()]
    experiments = study.experiments.values()
    collected = [table for each in experiments for table in (*each.collected.values(), *each.own_tables)]
    drawn = [*study.figures, *(name for each in experiments for name in each.own_drawings)]
    tried = [*study.trials, *study.trials_of_measuring, *(name for each in experiments for name in each.own_drawings)]
    others = [RUNS, *(f"tried-{trial}" for trial in tried), *(f"collect-{table}" for table in collected)] + [
        f"figure-{name}" for name in drawn
    ]
    return Jobs(list(of_runs), kinds, names, [*others, *study.result_tables, CLAIMS, "effective_study", "report"])
