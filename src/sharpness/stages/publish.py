"""Keep what is finished of a study in version control, with the verdicts that follow once all of it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sharpness.report.published import Publication
from sharpness.runtime.stage import run_stage
from sharpness.study.paths import StudyFolder
from sharpness.study.plan import Experiment, Study, study_in
from sharpness.study.published import Published, are_in, tables_of
from sharpness.study.records import RecordError


def publish(config: Path, results: Path, snakefile: Path) -> None:
    """Keep what is finished in ``results/published``.

    A study may be run in parts, on several machines and at several times: of an experiment, the tables of single runs
    are kept until all of them are there; then the workflow's own rules make its tables and figures, with that folder as
    their root. Once every experiment is there, they decide the poster's claims by the published tables, and write a
    report of them.

    Args:
        config: the study's file.
        results: the study's folder.
        snakefile: the project's.

    Raises:
        RecordError: what would be published is not of the study as it stands, or of other code than
            is here, or of more than one code or data set; or a rule failed.
    """
    study = study_in(config)
    folder = StudyFolder(str(results))
    published, runs = Published(study, folder.published), Path(folder.runs)
    try:
        _check(published, runs)
    except RecordError as error:
        raise RecordError(
            f"{error}. Nothing was published: run the study first (make study STUDY={study.name}), and remove from "
            f"{published.folder.root} what it no longer is"
        ) from None
    said = [_keep(published, experiment, runs) for experiment in study.experiments.values()]
    whole = published.whole()
    _make(config, Path(published.folder.root), snakefile)
    for experiment in whole:
        shutil.rmtree(published.kept(experiment))
    if (kept := Path(published.folder.runs)).exists() and not any(kept.iterdir()):
        kept.rmdir()
    print(*said, sep="\n")
    if lacking := published.lacking():
        names = ", ".join(experiment.name for experiment in lacking)
        print(f"The claims are decided once these are published too: {names}.")
    else:
        print(f"The claims were decided by the published tables; all of them are in {published.folder.report}.")


def _check(published: Published, runs: Path) -> None:
    """Check all that will be published, before any of it is."""
    study = published.study
    publication = Publication(study)
    for experiment in study.experiments.values():
        finished = _finished(study, experiment, runs)
        if _stays(published, experiment, finished):
            for measurement, name in experiment.collected.items():
                if (path := Path(published.folder.table(name))).exists():
                    publication.add_collected(experiment, measurement, path)
            for name in experiment.own_tables:
                if (path := Path(published.folder.table(name))).exists():
                    publication.add_own_collected(experiment, path)
            continue
        kept = published.kept(experiment)
        for run in experiment.runs:
            place = runs if run in finished else kept
            if are_in(place, tables_of(study, experiment, run)):
                publication.add_run(experiment, run, place, is_kept=place == kept)
    publication.check_origins()


def _finished(study: Study, experiment: Experiment, runs: Path) -> list[str]:
    return [run for run in experiment.runs if are_in(runs, tables_of(study, experiment, run))]


def _stays(published: Published, experiment: Experiment, finished: list[str]) -> bool:
    """Whether an experiment was published, and is not whole here: runs of two machines meet where nothing is whole."""
    return published.has(experiment) and len(finished) < len(experiment.runs)


def _keep(published: Published, experiment: Experiment, runs: Path) -> str:
    """Keep what is finished of one experiment; says in words how far it is."""
    study, kept = published.study, published.kept(experiment)
    finished = _finished(study, experiment, runs)
    if _stays(published, experiment, finished):
        told = f"published before, and stays ({len(finished)} of {len(experiment.runs)} runs are finished here)"
        return f"{experiment.name}: {told}"
    for run in finished:
        for table in tables_of(study, experiment, run):
            (kept / table).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(runs / table, kept / table)
    lacking = [run for run in experiment.runs if not are_in(kept, tables_of(study, experiment, run))]
    if not lacking:
        return f"{experiment.name}: published"
    number = len(experiment.runs) - len(lacking)
    return f"{experiment.name}: {number} of {len(experiment.runs)} runs are kept, {lacking[0]} comes next"


def _make(config: Path, published: Path, snakefile: Path) -> None:
    """Let the workflow's rules make tables, figures and report of what is kept."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile.resolve()), "--cores", "all"]
    command += ["--directory", str(published.parent), "--configfile", str(config.resolve())]
    # All that the rules can make here is made anew: of files under version control, dates say nothing.
    command += ["--config", f"root={published.name}", "--nolock", "--forceall", "--rerun-incomplete"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        _, told, said = done.stderr.partition("the last line of its log:\n")
        first = said.partition("\n")[0] if told else (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise RecordError(f"no tables and figures could be made of what is kept in {published}: {first}")
    for name in ("logs", "benchmarks"):
        shutil.rmtree(published / name, ignore_errors=True)


if __name__ == "__main__":
    run_stage(publish)
