"""A study: one config file, checked as a whole and expanded into runs, checkpoints and measurements.

Free of torch and pandas: the workflow imports it each time it plans.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sharpness.data import arrays
from sharpness.data.catalogue import DataError
from sharpness.runtime import own
from sharpness.study import feasibility
from sharpness.study.axes import runs_of
from sharpness.study.effective import Effective, effective
from sharpness.study.file import parse_study
from sharpness.study.keys import study_schema
from sharpness.study.kinds import CLAIMS, ENDS, KINDS
from sharpness.study.measurement import Measurement
from sharpness.study.naming import subject
from sharpness.study.paths import RunFolder
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.run import NEUTRAL, Run, RunError
from sharpness.study.runs import COLUMNS, as_record
from sharpness.study.schedule import Schedule, chunks_of
from sharpness.study.schema import StudyError, by_subject, follows, problems, without
from sharpness.study.trial import name_of_measuring, name_of_trial, trial_of, trial_of_measuring
from sharpness.study.varied import Axis

__all__ = ["CLAIMS", "ENDS", "KINDS", "MEASUREMENTS", "Experiment", "Study", "study_in", "study_of"]


@dataclass(frozen=True)
class Experiment:
    """Some runs, what is measured on them, and what is drawn from it."""

    name: str
    kind: str
    measure: Mapping[str, list[str]]  # measurement to names of settings
    grids: Mapping[str, list[Run]]
    own_measurements: tuple[str, ...] = ()  # the user's, file.py:name
    own_figures: tuple[str, ...] = ()

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The distinct runs of all grids, by name."""
        return {run.name: run for runs in self.grids.values() for run in runs}

    @property
    def members(self) -> list[tuple[str, str]]:
        """Grid and name of every run, in order: a run of two grids stands here twice."""
        return [(grid, run.name) for grid, runs in self.grids.items() for run in runs]

    @property
    def pairs(self) -> list[tuple[str, Run]]:
        """Grid and run of every member, as ``members``."""
        return [(grid, run) for grid, runs in self.grids.items() for run in runs]

    @property
    def figures(self) -> dict[str, str]:
        """Its figures by name, each with the function that draws it: the first has the experiment's own name."""
        functions = KINDS[self.kind].figures
        return {
            f"{self.name}_{function}" if function in functions[1:] else self.name: function for function in functions
        }

    @property
    def own_tables(self) -> dict[str, str]:
        """The names of the tables of the user's own measurements, each with the code."""
        return {f"{self.name}_{own.name_of(code)}": code for code in self.own_measurements}

    @property
    def own_drawings(self) -> dict[str, str]:
        """The names of the user's own figures, each with the code."""
        return {f"{self.name}_{own.name_of(code)}": code for code in self.own_figures}

    @property
    def collected(self) -> dict[str, str]:
        """The names of its tidy tables, by measurement: each experiment has histories too."""
        return {measurement: f"{self.name}_{measurement}" for measurement in ("history", *self.measure)}


@dataclass(frozen=True)
class Study:
    """A checked study."""

    name: str
    whole: Effective
    experiments: Mapping[str, Experiment]

    @property
    def config(self) -> Mapping[str, Any]:
        """Every value of the study, defaults included."""
        return self.whole.config

    @property
    def num_chunks(self) -> int:
        """Parts into which the planned checkpoints of every run are cut."""
        return int(self.config["chunks_per_run"])

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The distinct runs of all experiments, by name: what two experiments share is trained once."""
        runs: dict[str, Run] = {}
        for experiment in self.experiments.values():
            for name, run in experiment.runs.items():
                if runs.setdefault(name, run) != run:
                    raise StudyError(f"two runs share the name {name}: {runs[name]} and {run}")
        return runs

    @cached_property
    def trials(self) -> dict[str, Run]:
        """The runs, by the names of their files, as which networks and data of the user's own are tried first."""
        trials = map(trial_of, self.runs.values())
        return {name_of_trial(trial): trial for trial in trials if trial is not None}

    @cached_property
    def trials_of_measuring(self) -> dict[str, tuple[str, Run]]:
        """The user's own measurements, each with the run that it is tried on first, by the names of their files."""
        return {
            name_of_measuring(code, run): (code, trial_of_measuring(run))
            for experiment in self.experiments.values()
            for code in experiment.own_measurements
            for run in experiment.runs.values()
        }

    @cached_property
    def measured(self) -> dict[tuple[str, str, str], None]:
        """The distinct (run, measurement, settings) of all experiments, in order."""
        return {
            (run, measurement, settings): None
            for experiment in self.experiments.values()
            for measurement, names in experiment.measure.items()
            for settings in names
            for run in experiment.runs
        }

    def settings(self, measurement: str, name: str) -> dict[str, Any]:
        """Return the named settings of a measurement, without the schedule, which only planning needs.

        A setting at the default of the measurement's own class is left out: one that was added later then changes no
        job of a study that does not ask for it.
        """
        section = self.config[measurement][name]
        left_out = {field.name: field.default for field in fields(MEASUREMENTS[measurement])}
        left_out["checkpoints"] = section["checkpoints"]
        # Sorted, so that the order of lines in the file changes nothing.
        return {key: value for key, value in sorted(section.items()) if left_out.get(key, MISSING) != value}

    def measurement(self, measurement: str, name: str) -> Measurement:
        """Return a measurement with its named settings."""
        return MEASUREMENTS[measurement](**self.settings(measurement, name))

    def keeping(self, measurement: str) -> list[str]:
        """List the settings of a measurement that keep eigenvectors, by name."""
        return [name for name in self.config.get(measurement, {}) if self.measurement(measurement, name).keeps]

    @cached_property
    def keepers(self) -> dict[str, list[tuple[str, str]]]:
        """What is measured, as measurement and settings, that keeps eigenvectors, by run; of other runs nothing."""
        keeping = {(measurement, name) for measurement in MEASUREMENTS for name in self.keeping(measurement)}
        found: dict[str, list[tuple[str, str]]] = {}
        for run, *measured in self.measured:
            if tuple(measured) in keeping:
                found.setdefault(run, []).append((measured[0], measured[1]))
        return found

    @property
    def settings_of_spectra(self) -> str:
        """All settings of spectra by name, as JSON: which eigenvalues the claims may compare."""
        return json.dumps({name: self.settings("spectrum", name) for name in self.config.get("spectrum", {})})

    def schedule_steps(self, measurement: str, name: str, run: Run) -> list[int]:
        """List the steps of ``run`` that a measurement is planned at; empty if it measures the ends."""
        schedule = self.config[measurement][name]["checkpoints"]
        first = self.measurement(measurement, name).from_step
        return [] if schedule == ENDS else [step for step in self._schedules[schedule].steps(run) if step >= first]

    @cached_property
    def _schedules(self) -> dict[str, Schedule]:
        return {name: Schedule.of(section) for name, section in self.config["checkpoints"].items()}

    @cached_property
    def chunks(self) -> dict[str, list[list[int]]]:
        """The planned steps of every run, cut into its parts."""
        steps: dict[str, set[int]] = {run: set() for run in self.runs}
        for run, measurement, settings in self.measured:
            steps[run].update(self.schedule_steps(measurement, settings, self.runs[run]))
        return {run: chunks_of(sorted(planned), self.num_chunks) for run, planned in steps.items()}

    def parts(self, run: str, measurement: str, settings: str) -> dict[str, list[int]]:
        """Return the parts of a run that a measurement reads, each with the steps it measures there."""
        if self.config[measurement][settings]["checkpoints"] == ENDS:
            return {ENDS: []}
        wanted = set(self.schedule_steps(measurement, settings, self.runs[run]))
        chosen = [[step for step in chunk if step in wanted] for chunk in self.chunks[run]]
        return {str(index): steps for index, steps in enumerate(chosen) if steps}

    def tables(self, experiment: str, run: str, measurement: str) -> list[str]:
        """List the tables of one measurement of a run, for an experiment, relative to the folder of all runs."""
        if measurement == "history":
            return [RunFolder(run).history]
        return [
            RunFolder(run).table(measurement, settings, part)
            for settings in self.experiments[experiment].measure[measurement]
            for part in self.parts(run, measurement, settings)
        ]

    def part_before(self, run: str, measurement: str, settings: str, part: str) -> tuple[str, int] | None:
        """Return part and step of the measured checkpoint before a part's first one; None at the start of a run."""
        steps = {name: of_part for name, of_part in self.parts(run, measurement, settings).items() if name != ENDS}
        earlier = [name for name in steps if part != ENDS and int(name) < int(part)]
        return (earlier[-1], steps[earlier[-1]][-1]) if earlier else None

    @property
    def figures(self) -> dict[str, tuple[str, Experiment]]:
        """All figures by name, in order: the function that draws each, and the experiment that it is of."""
        return {
            name: (function, experiment)
            for experiment in self.experiments.values()
            for name, function in experiment.figures.items()
        }

    @property
    def interactive(self) -> dict[str, str]:
        """The figures that have an interactive version, each with the table that it is drawn from."""
        return {
            name: experiment.collected[function]
            for name, (function, experiment) in self.figures.items()
            if function in KINDS[experiment.kind].interactive
        }

    @property
    def result_tables(self) -> dict[str, str]:
        """All tables of results, each with its caption."""
        captions = {name: KINDS[experiment.kind].result_table for name, experiment in self.experiments.items()}
        return {name: caption for name, caption in captions.items() if caption is not None}

    def caption(self, experiment: str) -> str:
        """What was measured on what, in the words of the study; tables of an older version begin with it."""
        runs = self.experiments[experiment].runs.values()
        trained = sorted({f"{run.model} on {run.data} ({run.num_training:,} training images)" for run in runs})
        return "; ".join([", ".join(trained), *self._measured(experiment)])

    def caption_for_people(self, experiment: str) -> str:
        """The same with the names that networks and data sets have among people."""
        runs = self.experiments[experiment].runs.values()
        trained = sorted({subject(run.model, run.data, run.num_training) for run in runs})
        return "; ".join([*trained, *self._measured(experiment)])

    def _measured(self, experiment: str) -> list[str]:
        chosen = self.experiments[experiment]
        runs = chosen.runs.values()
        seeds = len({run.seed for run in runs})
        parts = [f"{seeds} seed{'s' if seeds > 1 else ''}", *_training_in_words(runs)]
        if "history" in KINDS[chosen.kind].measurements and (looks := self.config["evaluation_epochs"]):
            epochs = max(run.epochs for run in runs)
            parts.append(f"evaluated after {sum(epoch <= epochs for epoch in looks)} of {epochs} epochs")
        parts += [
            f"{measurement} {name}: {self.measurement(measurement, name).in_words()}"
            for measurement, names in chosen.measure.items()
            for name in names
        ]
        if nudged := sorted({run.direction_examples for run in runs if run.is_nudged}):
            parts.append(f"directions of NSGD from {', '.join(map(str, nudged))} training images, once an epoch")
        is_own = any(arrays.is_own(run.data) for run in runs)
        return [part.replace("training images", "training examples") for part in parts] if is_own else parts


def _training_in_words(runs: Iterable[Run]) -> Iterator[str]:
    """What is trained by another loss, optimizer or schedule than SGD on the cross-entropy at its fields' rates."""
    runs = list(runs)
    for field in ("loss", "optimizer", "schedule"):
        if any(getattr(run, field) != NEUTRAL[field] for run in runs):
            axis = Axis(COLUMNS.get(field, field))
            yield f"{field} {', '.join(dict.fromkeys(str(axis.value(as_record(run))) for run in runs))}"


def study_in(path: Path, change: Callable[[Any], Any] = lambda study: study) -> Study:
    """Read and check the study in a file.

    Args:
        path: the file.
        change: of what it says, before it is checked.

    Raises:
        StudyError: as ``parse_study`` and ``study_of``.
    """
    parsed = parse_study(path)
    with own.beside(path):
        return study_of(change(parsed.study), source=str(path), known=parsed.wrong)


def study_of(config: Any, *, source: str, known: Sequence[str] = ()) -> Study:
    """Check a study, fill in its defaults, and expand it.

    Args:
        config: what its file says.
        source: the file, named in messages.
        known: what is known to be wrong with it already.

    Raises:
        StudyError: something is wrong; the message has a line for each thing that is, with the key, the value and what
            would be right.
    """
    wrong = [*problems(config, study_schema())]
    sentences = [*known, *(problem.sentence for problem in wrong)]
    rest = without(config, [problem.path for problem in wrong])
    if rest is None:
        raise StudyError.of(source, sentences)
    try:
        whole = effective(rest)
    except DataError as error:  # of one's own data, without which there is no default
        raise StudyError.of(source, [*sentences, str(error)]) from None
    study, further = _expanded(whole)
    sentences += [sentence for sentence in further if not any(follows(sentence, each) for each in wrong)]
    if sentences:
        raise StudyError.of(source, by_subject(sentences))
    return study


def _expanded(whole: Effective) -> tuple[Study, list[str]]:
    """Expand a study into its runs, and find what is wrong although each value by itself is right."""
    experiments, sound, sentences = {}, {}, []
    for name, section in whole.config["experiments"].items():
        grids, impossible = _grids(name, section, whole.config["defaults"])
        experiment = Experiment(
            name=name,
            kind=section["kind"],
            measure=section["measure"],
            grids=grids,
            own_measurements=_listed(section.get("measurements", ())),
            own_figures=_listed(section.get("figures", ())),
        )
        astray = [*feasibility.check_references(experiment, whole.config), *feasibility.check_own(experiment)]
        sentences += impossible + astray
        experiments[name] = experiment
        possible = {grid: runs for grid, runs in grids.items() if runs}
        if possible and not astray:
            sound[name] = replace(experiment, grids=possible)
    study = Study(name=whole.config["study"], whole=whole, experiments=experiments)
    sentences += feasibility.check_names(study)
    try:
        sentences += feasibility.check(replace(study, experiments=sound))
    except StudyError as error:
        sentences.append(str(error))
    return study, sentences


def _listed(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _grids(
    name: str, section: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[dict[str, list[Run]], list[str]]:
    """Expand an experiment's grids into the possible runs, and say why others are impossible."""
    grids: dict[str, list[Run]] = {}
    sentences = []
    for grid, blocks in section["grids"].items():
        runs: dict[Run, None] = {}
        wrong: dict[str, None] = {}
        for axes in blocks:
            try:
                runs |= dict.fromkeys(runs_of(defaults, axes))
            except RunError as error:
                wrong |= dict.fromkeys(error.problems)
                runs |= dict.fromkeys(error.possible)
        faults = {run: [*feasibility.check_run(run)] for run in runs}
        wrong |= dict.fromkeys(sentence for of_run in faults.values() for sentence in of_run)
        grids[grid] = [run for run, of_run in faults.items() if not of_run]
        sentences += [f"experiments.{name}.grids.{grid}: {sentence}" for sentence in wrong]
    return grids, sentences
