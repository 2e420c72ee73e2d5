"""What each word of the command does."""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpness.command import snakemake, studies
from sharpness.command.overrides import for_snakemake as handed
from sharpness.command.overrides import merged, overrides
from sharpness.command.parts import Part, parts_of
from sharpness.command.progress import Progress, Shown
from sharpness.study.paths import RESULTS, StudyFolder
from sharpness.study.plan import CLAIMS, study_in
from sharpness.workflow.project import pipeline

if TYPE_CHECKING:
    from sharpness.study.plan import Study

# How this command was called, for hints.
CALLED = os.environ.get("SHARPNESS_CALLED", "sharpness")
_MOST_LINES = 20
_RUNS_NOTHING = ("-n", "--dry-run", "--dryrun")


def new(name: str) -> None:
    """Write a small study to begin with: twelve lines, in NAME.yaml.

    Args:
        name: of the study: lower-case letters, digits and _.
    """
    path = studies.begin(name)
    print(f"Wrote {path}. `sharpness plan {name}` says what would run, `sharpness run {name}` runs it.")


def plan(study: str, config: Sequence[str] = (), for_snakemake: Sequence[str] = ()) -> None:
    """Say what would run and why, in at most twenty lines.

    Args:
        study: name or file of the study.
        config: values that override the file's, ``defaults.epochs=3``.
        for_snakemake: words that are handed to Snakemake.
    """
    given = overrides(config)
    path, plan = _read(study, given)
    due: list[snakemake.Event] = []

    def see(event: snakemake.Event) -> None:
        if event.get("event") == "job_info":
            due.append(event)

    log = _log_of(plan).with_name("plan.log")
    with log.open("w", encoding="utf-8") as file:
        ended = snakemake.follow(path, ["--dry-run", *handed(given), *for_snakemake], file, see)
    if ended.status:
        sys.exit(_what_failed(log, plan))
    jobs = sum(job["rule_name"] != "all" for job in due)
    if not jobs:
        print(f"The study {plan.name} ({path}): nothing to do, all results are in {StudyFolder.of(plan.name).root}.")
        return
    print(f"The study {plan.name} ({path}): {jobs:,} jobs would run; {len(plan.runs):,} training runs in all.\n")
    for line in _table(parts_of(due)):
        print(line)
    # What code of one's own takes, planning cannot know.
    cost = "" if plan.trials else f"What it costs: {CALLED} cost {study}. "
    print(f"\n{cost}To run it: {CALLED} run {study}. Each job: {log}")


def cost(study: str) -> None:
    """Say what a study will cost on this device: counted, and calibrated within a minute. Nothing of it is run.

    Args:
        study: name or file of the study.
    """
    _stage("forecast")(studies.find(study))


def run(
    study: str,
    targets: Sequence[str] = (),
    cores: str | None = None,
    profile: str | None = None,
    config: Sequence[str] = (),
    for_snakemake: Sequence[str] = (),
) -> None:
    """Run a study, or what of it is due; one line shows how far it is, and a file has all the rest.

    Ctrl-C stops it without a loss. What stands after -- is handed to Snakemake.

    Args:
        study: name or file of the study.
        targets: files to make, with what they need; the whole study by default.
        cores: cores of this machine; all of them by default.
        profile: Snakemake's profile of a cluster: slurm, or a folder of your own.
        config: values that override the file's, ``defaults.epochs=3``.
        for_snakemake: words that are handed to Snakemake.
    """
    where = snakemake.local(cores or "all") if profile is None else snakemake.submitted(profile, cores)
    given = overrides(config)
    _run(study, [*where, *handed(given), *for_snakemake], targets, given)


def show(study: str, settings: bool = False) -> None:
    """Show what a study has found: its tables, its verdicts, what it took, and where figures and report are.

    Args:
        study: name or file of the study.
        settings: show the whole study instead, with the line or the default that each value comes from.
    """
    config = studies.find(study)
    if settings:
        _stage("config")(config)
        return
    _tell(study_in(config), study)


def report(study: str, together: Sequence[str] = (), for_snakemake: Sequence[str] = ()) -> None:
    """Make the report of a study, and whatever it still lacks, on one page that opens without a network.

    Args:
        study: name or file of the study.
        together: other studies that are finished or published: all of them in one page, results/report.html.
        for_snakemake: words that are handed to Snakemake.
    """
    config = studies.find(study)
    page = StudyFolder.of(study_in(config).name).report
    finished = [_finished(name) for name in together]
    _run(study, [*snakemake.local("all"), *for_snakemake], [page])
    print(f"Report: {page}")
    if together:
        print(f"Together: {_together([(Path(page).parent, str(config)), *finished])}")


def publish(study: str) -> None:
    """Keep what is finished of a study in results/STUDY/published, under version control.

    Args:
        study: name or file of the study.
    """
    config = studies.find(study)
    root = Path(StudyFolder.of(study_in(config).name).root)
    _stage("publish")(config, root, pipeline() / "Snakefile")


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command for command in (new, plan, cost, run, show, report, publish)
}
HANDED_ON = ("plan", "run", "report")


def _tell(study: Study, name: str) -> None:
    folder = _decided(study, name)
    if folder != Path(StudyFolder.of(study.name).root):
        print("This study has not been completed here; these are its published results.")
    importlib.import_module("sharpness.stages.summary").tell(study, folder)


def _finished(name: str) -> tuple[Path, str]:
    """The folder of a study's verdicts, and the study's file."""
    config = studies.find(name)
    return _decided(study_in(config), name), str(config)


def _decided(study: Study, name: str) -> Path:
    """The folder of a study's verdicts, its own or what is published of it.

    Args:
        study: as it is planned.
        name: by which it was asked for.

    Raises:
        ValueError: there are no verdicts yet.
    """
    own = StudyFolder.of(study.name)
    for folder in (own, own.published):
        if Path(folder.table(CLAIMS)).exists():
            return Path(folder.root)
    raise ValueError(
        f"there are no verdicts in {Path(own.root).absolute()} yet; run the study first: {CALLED} run {name}"
    )


def _together(found: Sequence[tuple[Path, str]]) -> Path:
    """Write one page of several studies, by their folders and files; returns its path."""
    rules, output = pipeline() / "docs" / "claims.md", Path(RESULTS, "report.html")
    _stage("report")(
        folders=[folder for folder, _ in found],
        captions=pipeline() / "workflow" / "report",
        citation=pipeline() / "CITATION.cff",
        output=output,
        rules=rules if rules.exists() else None,
        study_files=[file for _, file in found],
    )
    return output


def _table(parts: list[Part]) -> list[str]:
    """A line for each part, as many as there is room for."""
    width = max(16, *(len(part.name) for part in parts))
    lines = [f"{part.name:<{width}}{part.num_jobs:>8,}  {part.reason}" for part in parts]
    room = _MOST_LINES - 5
    if len(lines) > room:
        left = parts[room - 1 :]
        jobs = sum(part.num_jobs for part in left)
        lines = [*lines[: room - 1], f"{f'{len(left)} more parts':<{width}}{jobs:>8,}"]
    return [f"{'part':<{width}}{'jobs':>8}  why", *lines]


def _read(name: str, given: Mapping[str, Any]) -> tuple[Path, Study]:
    """The file of a study, and the study with the values that are given in place of the file's."""
    path = studies.find(name)
    return path, study_in(path, lambda study: merged(study, given))


def _run(name: str, words: Sequence[str], targets: Sequence[str], given: Mapping[str, Any] | None = None) -> None:
    if dry := [word for word in words if word in _RUNS_NOTHING]:
        raise ValueError(f"{dry[0]} runs nothing; to see what would run, and why: {CALLED} plan {name}")
    config, study = _read(name, given or {})
    log, shown, progress = _log_of(study), Shown(sys.stdout), Progress(study)
    began = time.monotonic()

    def see(event: snakemake.Event) -> None:
        progress.see(event)
        shown.show(progress.line(shown.width))

    with snakemake.one_at_a_time(print):
        snakemake.unlock(config)
        with log.open("a", encoding="utf-8") as file:
            start = file.tell()
            options = ["--rerun-incomplete", "--show-failed-logs", *words, "--", *targets]
            ended = snakemake.follow(config, options, file, see)
    shown.clear()
    if ended.was_stopped:
        print(f"Stopped. Finished work is kept, and runs continue from their saved state: {CALLED} run {name}")
        sys.exit(130)
    if ended.status:
        sys.exit(_what_failed(log, study, start))
    if not progress.total:
        print("Nothing to do: everything is up to date.")
    if not targets:
        _tell(study, name)
        print(f"Took {time.monotonic() - began:.0f} s in total; each job is in {log}")


def _stage(name: str) -> Callable[..., None]:
    """The function of a stage: imported now, since most of them import much."""
    function: Callable[..., None] = getattr(importlib.import_module(f"sharpness.stages.{name}"), name)
    return function


def _log_of(study: Study) -> Path:
    path = Path(StudyFolder.of(study.name).log("run"))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _what_failed(log: Path, study: Study, start: int = 0) -> str:
    """What Snakemake said last: each failed job's last words, else the sentence that it ended with.

    Args:
        log: of this run and those before it.
        study: that ran.
        start: where this run begins, in bytes.
    """
    said = log.read_bytes()[start:].decode(errors="replace").strip()
    _, told, words = said.partition("What failed, and the last line of its log:\n")
    if told:
        lines = [line for line in words.splitlines() if ": " in line]
        return "\n".join(["What failed, and the last line of its log:", *lines, f"The whole log: {log}"])
    if missing := re.search(r"No rule to produce (\S+)", said):
        return f"sharpness: no rule makes {missing[1]}; {_figures_like(missing[1], study)}"
    if refused := re.search(r"^\S+: error: (.*)\Z", said, re.MULTILINE):
        return f"sharpness: Snakemake says: {refused[1]}"
    return "\n".join(said.rpartition("Building DAG of jobs...\n")[2].splitlines()[-10:])


def _figures_like(file: str, study: Study) -> str:
    """Name the figures whose files are most like one that no rule makes."""
    files = [StudyFolder.of(study.name).figure(name, "pdf") for name in study.figures]
    near = get_close_matches(file, files, n=3)
    return f"nearest: {', '.join(near)}" if near else f"the figures are {', '.join(files)}"
