"""Keep what is finished of a study in version control, with the verdicts that follow once all of it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from sharpness.report.published import Publication
from sharpness.runtime.files import write_text
from sharpness.runtime.stage import run_stage
from sharpness.stages.agreement import agreement
from sharpness.stages.claims import claims
from sharpness.stages.collect import collect
from sharpness.stages.figure import figure
from sharpness.stages.report import Figures, Interactive, Tables, report
from sharpness.stages.results_table import results_table
from sharpness.study.jobs import jobs
from sharpness.study.paths import StudyFolder
from sharpness.study.plan import CLAIMS, KINDS, Experiment, Study, study_in
from sharpness.study.planned import wanted
from sharpness.study.records import RecordError
from sharpness.study.runs import RUNS, as_csv
from sharpness.study.showing import as_yaml


def publish(config: Path, results: Path, captions: Path, citation: Path) -> None:
    """Keep what is finished in ``results/published``.

    A study may be run in parts, on several machines and at several times: of an experiment, the tables of single runs
    are kept until all of them are there, then its tables and figures. Once every experiment is there, the poster's
    claims are decided by the published tables, and a report of them is written.

    Args:
        config: the study's file.
        results: the study's folder.
        captions: the folder of the report's captions.
        citation: the project's CITATION.cff.

    Raises:
        RecordError: what would be published is not of the study as it stands, or of other code than
            is here, or of more than one code or data set.
    """
    study = study_in(config)
    published = Path(_folder(results).published.root)
    try:
        _check(study, Path(_folder(results).runs), published)
    except RecordError as error:
        raise RecordError(
            f"{error}. Nothing was published: run the study first (make study STUDY={study.name}), and remove from "
            f"{published} what it no longer is"
        ) from None
    write_text(as_csv(study.runs.values()), _runs(published))
    write_text(as_yaml(study.whole), Path(_folder(published).study))
    for experiment in study.experiments.values():
        print(f"{experiment.name}: {_publish(study, experiment, Path(_folder(results).runs), published)}")
    lacking = [experiment.name for experiment in study.experiments.values() if not is_published(experiment, published)]
    if lacking:
        print(f"The claims are decided once these are published too: {', '.join(lacking)}.")
        return
    decide(study, published, markdown=_table(published, CLAIMS, "md"), csv=_table(published, CLAIMS))
    _report(study, results, published, captions, citation)
    print(f"The claims were decided by the published tables; all of them are in {_folder(published).report}.")


def _folder(path: Path) -> StudyFolder:
    return StudyFolder(str(path))


def _table(published: Path, name: str, ending: str = "csv") -> Path:
    return Path(_folder(published).table(name, ending))


def _figure(published: Path, name: str, ending: str) -> Path:
    return Path(_folder(published).figure(name, ending))


def is_published(experiment: Experiment, published: Path) -> bool:
    """Whether every table that the experiment's figures are drawn from is there."""
    return all(
        (_table(published, experiment.collected[measurement])).exists()
        for measurement in KINDS[experiment.kind].measurements
    )


def decide(study: Study, published: Path, *, markdown: Path, csv: Path) -> None:
    """Write the verdicts on the claims by all published tables of a study."""
    tables = [
        (experiment.kind, measurement, _table(published, name))
        for experiment in study.experiments.values()
        for measurement, name in experiment.collected.items()
    ]
    kinds, measurements, paths = zip(*(table for table in tables if table[2].exists()), strict=True)
    epoch = study.config["validation_epoch"]
    settings = study.settings_of_spectra
    claims(list(kinds), list(measurements), list(paths), _runs(published), settings, epoch, markdown, csv)


def _runs(published: Path) -> Path:
    """The published table of all runs."""
    return _table(published, RUNS)


def tables_of(study: Study, experiment: Experiment, run: str) -> list[str]:
    """All tables of one run of an experiment, from the folder that has all runs."""
    return [table for measurement in experiment.collected for table in study.tables(experiment.name, run, measurement)]


def _check(study: Study, runs: Path, published: Path) -> None:
    """Check all that will be published, before any of it is."""
    publication = Publication(study)
    for experiment in study.experiments.values():
        finished = _finished(study, experiment, runs)
        if _stays(experiment, finished, published):
            for measurement, name in experiment.collected.items():
                if (path := _table(published, name)).exists():
                    publication.add_collected(experiment, measurement, path)
            continue
        kept = Path(_folder(published).runs) / experiment.name
        for run in experiment.runs:
            folder = runs if run in finished else kept
            if _are_in(folder, tables_of(study, experiment, run)):
                publication.add_run(experiment, run, folder, is_kept=folder == kept)
    publication.check_origins()


def _finished(study: Study, experiment: Experiment, runs: Path) -> list[str]:
    return [run for run in experiment.runs if _are_in(runs, tables_of(study, experiment, run))]


def _stays(experiment: Experiment, finished: list[str], published: Path) -> bool:
    """Whether an experiment was published, and is not whole here."""
    return is_published(experiment, published) and len(finished) < len(experiment.runs)


def _publish(study: Study, experiment: Experiment, runs: Path, published: Path) -> str:
    """Keep what is finished of one experiment; says in words how far it is."""
    kept = Path(_folder(published).runs) / experiment.name
    finished = _finished(study, experiment, runs)
    if _stays(experiment, finished, published):
        # Runs of one machine beside those of another only where nothing is whole.
        _compare(study, experiment, published)
        return f"published before, and stays ({len(finished)} of {len(experiment.runs)} runs are finished here)"
    for run in finished:
        for table in tables_of(study, experiment, run):
            (kept / table).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(runs / table, kept / table)
    lacking = [run for run in experiment.runs if not _are_in(kept, tables_of(study, experiment, run))]
    if lacking:
        return f"{len(experiment.runs) - len(lacking)} of {len(experiment.runs)} runs are kept, {lacking[0]} comes next"
    _complete(study, experiment, kept, published)
    shutil.rmtree(kept)
    if not any(kept.parent.iterdir()):
        kept.parent.rmdir()
    return "published"


def _are_in(folder: Path, tables: list[str]) -> bool:
    return all((folder / table).exists() for table in tables)


def _complete(study: Study, experiment: Experiment, kept: Path, published: Path) -> None:
    """Write an experiment's tables and figures from the tables of all its runs, as the workflow does."""
    for folder in (_folder(published).tables, _folder(published).figures):
        Path(folder).mkdir(parents=True, exist_ok=True)
    tidy = {measurement: _table(published, name) for measurement, name in experiment.collected.items()}
    grids, runs = map(list, zip(*experiment.members, strict=True))
    for measurement, path in tidy.items():
        tables = wanted(study, experiment, measurement)
        words = [asked.words(runs) for _, asked in tables]
        collect(experiment.name, measurement, grids, runs, [kept / table for table, _ in tables], words, path)
    drawn_from = KINDS[experiment.kind].measurements
    for name, function in experiment.figures.items():
        outputs = [_figure(published, name, ending) for ending in ("pdf", "png")]
        figure(function, list(drawn_from), [tidy[measurement] for measurement in drawn_from], _runs(published), outputs)
    _compare(study, experiment, published)


def _compare(study: Study, experiment: Experiment, published: Path) -> None:
    """Write an experiment's table of results, if its kind has one, by the study as it stands."""
    if not KINDS[experiment.kind].result_table:
        return
    tidy = {measurement: _table(published, name) for measurement, name in experiment.collected.items()}
    caption = study.caption(experiment.name)
    markdown, tex, csv = (_table(published, experiment.name, ending) for ending in ("md", "tex", "csv"))
    if experiment.kind == "agreement":
        agreement(tidy["history"], tidy["spectrum"], _runs(published), caption, markdown, csv)
    if experiment.kind == "table":
        epoch = study.config["validation_epoch"]
        results_table(tidy["history"], tidy["spectrum"], _runs(published), epoch, caption, markdown, tex, csv)


def _report(study: Study, results: Path, published: Path, captions: Path, citation: Path) -> None:
    """Write all that is published on one page."""
    functions = [function for function, _ in study.figures.values()]
    report(
        study=study.name,
        results=results,
        jobs=jobs(study),
        claims=_table(published, CLAIMS),
        figures=Figures(
            names=list(study.figures),
            functions=functions,
            measured=[study.caption(experiment.name) for _, experiment in study.figures.values()],
            images=[_figure(published, name, "png") for name in study.figures],
        ),
        interactive=Interactive(
            list(study.interactive), [_table(published, table) for table in study.interactive.values()]
        ),
        tables=Tables(
            names=list(study.result_tables),
            kinds=list(study.result_tables.values()),
            texts=[_table(published, name, "md") for name in study.result_tables],
        ),
        captions=[captions / f"{name}.md" for name in {CLAIMS, *functions, *study.result_tables.values()}],
        histories=sorted(published.glob("tables/*_history.csv")),
        runs=_runs(published),
        citation=citation,
        output=Path(_folder(published).report),
    )


if __name__ == "__main__":
    run_stage(publish)
