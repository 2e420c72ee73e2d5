"""What a study asks of the tables in its folder, and which jobs are its own. Loads no torch."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from sharpness.runtime import closure, own
from sharpness.study.identity import settings_digest
from sharpness.study.measurement import code_of
from sharpness.study.paths import RunFolder, StudyFolder
from sharpness.study.plan import CLAIMS, KINDS, Experiment, Study
from sharpness.study.records import Origins, RecordError, Wanted, check, read_rows, training_stage
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.run import Run
from sharpness.study.runs import RUNS, as_csv

_UNRECORDED = "and Snakemake has no record of it: remove it, and it is made anew"
NAMED = 3  # stale tables beside the first, by their names; the others are counted


def wanted(study: Study, experiment: Experiment, measurement: str) -> list[tuple[str, Wanted]]:
    """List the tables of one measurement of an experiment, under the folder of all runs, with what each must hold."""
    return [
        (table, asked)
        for run in experiment.runs
        for table, asked in zip(
            study.tables(experiment.name, run, measurement),
            _of_run(study, experiment, run, measurement),
            strict=True,
        )
    ]


def wanted_own(run: Run, code: str) -> tuple[str, Wanted]:
    """Name the table of what the user's own ``code`` measured of a run, with what it must hold."""
    name = own.name_of(code)
    training = training_stage(run.gamma, run.gamma_outside)
    asked = Wanted(run.name, "own", name, settings_digest({"code": code}), [], run.data, training, may_stop=True)
    return RunFolder(run.name).table("own", name, "all"), asked


def _of_run(study: Study, experiment: Experiment, run: str, measurement: str) -> Iterator[Wanted]:
    trained = study.runs[run]
    training = training_stage(trained.gamma, trained.gamma_outside)
    asked = Wanted(run, measurement, "", "", [], trained.data, training, may_stop=trained.stop_patience is not None)
    if measurement == "history":
        settings = {key: study.config[key] for key in ("evaluation_examples", "evaluation_epochs")}
        epochs = [
            epoch for epoch in settings["evaluation_epochs"] or range(1, trained.epochs + 1) if epoch <= trained.epochs
        ]
        yield replace(asked, digest=settings_digest(settings), steps=[0, *sorted(epochs)])
        return
    for name in experiment.measure[measurement]:
        digest = settings_digest(study.settings(measurement, name), MEASUREMENTS[measurement].later)
        for steps in study.parts(run, measurement, name).values():
            yield replace(asked, settings=name, digest=digest, steps=steps)


def digest(study: Study) -> str:
    """Hash what verdicts and report depend on: experiments, their runs, and how these are measured."""
    asked = {
        f"{experiment.name} {experiment.kind}": [
            *(f"{grid} {settings_digest(run.fields())}" for grid, run in experiment.pairs),
            *(
                f"{measurement}.{name} "
                + settings_digest(study.config[measurement][name], MEASUREMENTS[measurement].later)
                for measurement, names in experiment.measure.items()
                for name in names
            ),
        ]
        for experiment in study.experiments.values()
    }
    whole = ("validation_epoch", "evaluation_examples", "evaluation_epochs")
    return settings_digest(asked | {key: study.config[key] for key in whole})


def check_finished(study: Study, results: Path, *, is_recorded: Callable[[str], bool], torch: str | None) -> None:
    """Check finished tables and verdicts of which nobody knows how they were made but they themselves.

    Args:
        study: what they must be of.
        results: its folder.
        is_recorded: whether it is known of a file how it was made, so that it is made anew where that changed.
        torch: the version that jobs import; None where it is not known.

    Raises:
        RecordError: one was computed by other settings or code, on other data than the others, or for another early
            epoch than the study's.
    """
    folder = StudyFolder(str(results))
    origins = Origins()
    checked: set[Path] = set()
    stale: dict[Path, RecordError] = {}
    for experiment in study.experiments.values():
        for measurement, name in experiment.collected.items():
            for table, asked in wanted(study, experiment, measurement):
                path = Path(folder.runs) / table
                if path not in checked and path.exists() and not is_recorded(str(path)):
                    checked.add(path)
                    try:
                        rows = read_rows(path, measurement)
                        check(rows, asked, path)
                        _check_code(asked, rows[0], path, torch)
                        _check_own_code(rows[0], path, study.runs[asked.run].own_code)
                        origins.add(rows[:1], path, measurement=measurement, data=asked.data, training=asked.training)
                    except RecordError as error:
                        stale[path] = error
            path = Path(folder.table(name))
            if path.exists() and not is_recorded(str(path)):
                try:
                    _check_members(experiment, measurement, path)
                except RecordError as error:
                    stale[path] = error
        for code, run in itertools.product(experiment.own_measurements, experiment.runs):
            table, asked = wanted_own(study.runs[run], code)
            path = Path(folder.runs) / table
            if path not in checked and path.exists() and not is_recorded(str(path)):
                checked.add(path)
                try:
                    _check_own_table(asked, path, torch, (*study.runs[run].own_code, code))
                except RecordError as error:
                    stale[path] = error
    if stale:
        raise RecordError(_of_all(stale))
    _check_products(study, folder, is_recorded)
    _check_last(study, folder, is_recorded)
    path = Path(folder.study)
    if path.exists() and not is_recorded(str(path)) and yaml.safe_load(path.read_bytes()) != study.config:
        raise RecordError(f"{path} is not the study as it stands, {_UNRECORDED}")


def _check_own_table(asked: Wanted, path: Path, torch: str | None, references: Sequence[str]) -> None:
    rows = read_rows(path, "own")
    if different := differing_own(rows, asked, references[-1]):
        raise RecordError(f"{path} {different}, {_UNRECORDED}")
    for row in rows[:1]:
        _check_code(asked, row, path, torch)
        _check_own_code(row, path, references)


def _check_own_code(row: Mapping[str, str], path: Path, references: Sequence[str]) -> None:
    if different := differing_own_code(row, references):
        raise RecordError(f"{path} {different}, {_UNRECORDED}")


def _of_all(stale: Mapping[Path, RecordError]) -> str:
    """Say what is wrong with the first table, and which others are wrong too."""
    (_, first), *others = stale.items()
    named = [str(path) for path, _ in others[:NAMED]] + [f"{len(others) - NAMED} more"] * (len(others) > NAMED)
    return f"{first}; so it is with {', '.join(named)}" if named else str(first)


def _check_products(study: Study, folder: StudyFolder, is_recorded: Callable[[str], bool]) -> None:
    """Check the table of runs, and what was made for readers: what they are told it is of, and the early epoch."""
    path = Path(folder.table(RUNS))
    if path.exists() and not is_recorded(str(path)) and path.read_bytes() != as_csv(study.runs.values()).encode():
        raise RecordError(f"{path} is not the table of the study's runs, {_UNRECORDED}")
    epoch = f"{study.config['validation_epoch']:g}"
    for experiment in study.experiments.values():
        path = Path(folder.table(experiment.name, "md"))
        is_told = KINDS[experiment.kind].result_table is not None and path.exists() and not is_recorded(str(path))
        if is_told and not path.read_text(encoding="utf-8", errors="replace").startswith(
            (study.caption(experiment.name), study.caption_for_people(experiment.name))
        ):
            raise RecordError(f"{path} does not begin with what the study measures, {_UNRECORDED}")
        path = Path(folder.table(experiment.name))
        is_early = experiment.kind == "table" and path.exists() and not is_recorded(str(path))
        if is_early and (others := _epochs_of_results(path) - {epoch}):
            raise RecordError(f"{path} is of the validation_epoch {min(others)}, the study's is {epoch}, {_UNRECORDED}")


def _check_last(study: Study, folder: StudyFolder, is_recorded: Callable[[str], bool]) -> None:
    """Check that verdicts and report are of the study's experiments, where they are not made anew in any case."""
    verdicts, page = Path(folder.table(CLAIMS)), Path(folder.report)
    collected = [name for experiment in study.experiments.values() for name in experiment.collected.values()]
    made_of = [*(Path(folder.table(name)) for name in collected), verdicts]
    for path, sources in ((verdicts, made_of[:-1]), (page, made_of)):
        is_alone = path.exists() and not is_recorded(str(path)) and all(source.exists() for source in sources)
        if is_alone and digest(study).encode() not in path.read_bytes():
            raise RecordError(f"{path} is of other experiments, runs or settings than the study's, {_UNRECORDED}")


def _epochs_of_results(path: Path) -> set[str]:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return {row.get("validation_epoch") or "nobody knows" for row in csv.DictReader(file)}


def _check_code(asked: Wanted, row: dict[str, str], path: Path, torch: str | None) -> None:
    for what, theirs, ours in codes(asked, row, closure.version, torch):
        if theirs != ours:
            raise RecordError(
                f"{path} was computed with the {what} {theirs}, here it is {ours}, and Snakemake has no record of it: "
                "remove it (or all results of the study), and it is made anew"
            )


def codes(
    asked: Wanted, row: Mapping[str, str], version: Callable[..., str], torch: str | None
) -> Iterator[tuple[str, str, str]]:
    """In words what code computed a row of a table, its version there, and its ``version`` here; and ``torch``."""
    stage = asked.training if asked.measurement == "history" else asked.measurement
    for name, theirs in ((stage, row["code"]), (asked.training, row.get("trained_by"))):
        if theirs is not None:
            modules = [f"sharpness.stages.{name}"] if name == asked.training else code_of(name)
            yield f"code of the stage {name}", theirs, version(*modules)[:12]
    if torch is not None:
        yield "torch", row["torch"].partition("+")[0], torch.partition("+")[0]


def differing_own(rows: Sequence[Mapping[str, str]], asked: Wanted, code: str) -> str:
    """In words, that a table is not what the user's own ``code`` measured of the run that it should be of."""
    if all((row["run"], row["settings_digest"]) == (asked.run, asked.digest) for row in rows):
        return ""
    return f"is of another run or other code than {asked.run} and {code}"


def differing_own_code(row: Mapping[str, str], references: Sequence[str]) -> str:
    """In words, that a row was computed by other code of the user's own than is here."""
    if not references or (theirs := row.get("own_code", "")) == (ours := own.version(*references)):
        return ""
    return (
        f"was computed with other code of yours than {', '.join(references)} is here "
        f"({theirs or 'unknown'}, here it is {ours})"
    )


def _check_members(experiment: Experiment, measurement: str, path: Path) -> None:
    if different := differing_members(experiment, measurement, read_rows(path, measurement)):
        raise RecordError(f"{path} {different}, unlike the study, {_UNRECORDED}")


def differing_members(experiment: Experiment, measurement: str, rows: Iterable[Mapping[str, str]]) -> str:
    """In words, which run a collected table has and its experiment has not, or the other way round."""
    found, members = {(row["grid"], row["run"]) for row in rows}, set(experiment.members)
    if beyond := found - members:
        return "has the run {1} of the grid {0}".format(*min(beyond))
    # A run that stopped before its first checkpoint has no rows but those of its history.
    may_lack = {run for run, of_run in experiment.runs.items() if of_run.stop_patience is not None}
    absent = [(grid, run) for grid, run in members - found if measurement == "history" or run not in may_lack]
    return "lacks the run {1} of the grid {0}".format(*min(absent)) if absent else ""
