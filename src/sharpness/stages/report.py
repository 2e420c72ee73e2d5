"""Write the report of a study, or one of several studies together."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import plotly.graph_objects as go
import yaml

from sharpness.analysis.brackets import in_words
from sharpness.analysis.figures import interactive as interactive_figures
from sharpness.analysis.reading import read_measured, read_runs, read_table
from sharpness.report import provenance
from sharpness.report.cells import cells_of
from sharpness.report.costs import costs_of, jobs_of
from sharpness.report.explorer import PANELS, Measured
from sharpness.report.making import Source, Workshop
from sharpness.report.overview import panels
from sharpness.report.own import image_in, own_pictures, own_tables
from sharpness.report.page import Caption, Chapter, File, Origin, Picture, Table, caption_of, render
from sharpness.report.prose import in_short
from sharpness.runtime import own
from sharpness.runtime.files import write_text
from sharpness.runtime.stage import run_stage
from sharpness.study.jobs import jobs
from sharpness.study.paths import StudyFolder
from sharpness.study.plan import Experiment, Study, study_in
from sharpness.study.records import RecordError
from sharpness.study.runs import RUNS, as_csv, is_the_posters

Content = TypeVar("Content")
CLAIMS_COLUMNS = (
    *("claim", "finding", "model", "data", "configuration", "quantity", "measured", "effect", "low", "high", "unit"),
    *("side", "threshold", "part", "test", "p", "seeds", "seeds_are", "exploring", "diverged", "verdict"),
    "would_decide",
)
# A row of the verdicts in Markdown: the claim's letter and the answer.
_VERDICT = re.compile(r"^\| (\w+) \| \*\*(.+?)\*\* \|", re.MULTILINE)


def report(
    folders: list[Path],
    captions: Path,
    citation: Path,
    output: Path,
    rules: Path | None = None,
    results: list[Path] | None = None,
    study_files: list[str] | None = None,
    digest: str = "",
) -> None:
    """Put all that one study found, or several, into one page.

    Args:
        folders: the results of each study, or what is published of them: its study.yaml, tables and figures.
        captions: the folder of captions, each named after the function of a figure, the kind of a table, or the claims.
        citation: the project's CITATION.cff.
        output: the page.
        rules: by which claims are decided, Markdown; none: what is compared for each.
        results: of each study, the folder that says what its jobs cost; none: ``folders``.
        study_files: the file of each study, as a command names it; none: the study.yaml of its folder.
        digest: of the study, by which its page is known where nobody has a record of it; empty: none is kept.

    Raises:
        RecordError: one of these files is damaged or missing.
        ValueError: there are not as many results or files as folders.
    """
    results, files = results or folders, study_files or [StudyFolder(str(folder)).study for folder in folders]
    for name, given in (("results", results), ("study-files", files)):
        if len(given) != len(folders):
            raise ValueError(f"--{name} must have an entry for each of the {len(folders)} folders, got {len(given)}")
    chapters = []
    for folder, costs, file in zip(folders, results, files, strict=True):
        with own.beside(Path(file)):
            chapters.append(_chapter(folder, costs, file, captions, output))
    page = render(
        chapters,
        claims_caption=_read(captions / "claims.md", caption_of),
        rules=in_short() if rules is None else _read(rules, str),
        citation=_read(citation, _citation),
        citation_file=_read(citation, str),
        digest=digest,
    )
    write_text(page, output)


def _chapter(root: Path, results: Path, file: str, captions: Path, output: Path) -> Chapter:
    folder = StudyFolder(str(root))
    plan = _read(Path(folder.study), str)
    study = study_in(Path(folder.study))
    of_study = read_runs(Path(folder.table(RUNS)), as_csv(study.runs.values()))
    tables = {
        (experiment.name, measurement): read_measured(Path(folder.table(name)), measurement, of_study)
        for experiment in study.experiments.values()
        for measurement, name in experiment.collected.items()
    }
    of = {name: [table for (_, measurement), table in tables.items() if measurement == name] for name in PANELS}
    done = jobs_of(results, jobs(study))
    sources = [
        Source.of(experiment, [table for (name, _), table in tables.items() if name == experiment.name])
        for experiment in study.experiments.values()
    ]
    beside = os.path.relpath(root, output.parent)
    return Chapter(
        study=study.name,
        claims=_claims(Path(folder.table("claims")), Path(folder.table("claims", "md"))),
        panels=panels(of["spectrum"]),
        pictures=[*_pictures(study, folder, tables, captions), *own_pictures(study, folder)],
        tables=[
            *(
                _table(folder, name, _read(captions / f"{kind}.md", caption_of), tables[name, "history"])
                for name, kind in study.result_tables.items()
            ),
            *own_tables(study, folder, of_study),
        ],
        brackets=in_words(of["spectrum"]),
        origin=Origin(
            training=provenance.training_of(of["history"]),
            hosts=provenance.hosts_of(done),
            versions=provenance.versions(),
            machine=provenance.machine(),
            commit=provenance.commit(Path(provenance.__file__).parent),
            date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            costs=costs_of(done),
        ),
        measured=Measured(Workshop(study.name, file, sources), "" if beside == "." else f"{beside}/", of),
        plan=plan,
        files=list(_files(study, folder)),
    )


def _table(folder: StudyFolder, name: str, caption: Caption, history: pd.DataFrame) -> Table:
    text, results = _read(Path(folder.table(name, "md")), str), read_table(Path(folder.table(name)))
    return Table(name, text, caption, cells_of(name, text, results, history))


def _read(path: Path, parse: Callable[[str], Content]) -> Content:
    """What a text file holds, by the name of which it is refused where it holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            raise ValueError("it is empty")
        return parse(text)
    except FileNotFoundError:
        raise RecordError(f"there is no {path}: finish or publish the study first") from None
    except (ValueError, yaml.YAMLError) as error:
        raise RecordError(f"{path} is damaged ({' '.join(str(error).split())}): put it back") from error


def _citation(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text)
    if not isinstance(found, dict) or not {"authors", "title"} <= set(found):
        raise ValueError("it has no authors and no title")
    return found


def _claims(path: Path, markdown: Path) -> pd.DataFrame:
    table = read_table(path)
    if lacking := [column for column in CLAIMS_COLUMNS if column not in table]:
        raise RecordError(f"{path} lacks the column {lacking[0]}: remove it, and it is made anew")
    # Both are written together: one that was cut short has lost rows.
    if _read(markdown, _VERDICT.findall) != list(zip(table["claim"], table["verdict"], strict=True)):
        raise RecordError(f"{path} has other verdicts than {markdown}: remove both, and they are made anew")
    return table


def _drawn(function: str) -> str:
    """The first line of the docstring of a figure's function."""
    module = import_module(f"sharpness.analysis.figures.{function}")
    return str(getdoc(getattr(module, function))).partition("\n")[0]


def _pictures(
    study: Study, folder: StudyFolder, tables: Mapping[tuple[str, str], pd.DataFrame], captions: Path
) -> Iterator[Picture]:
    for name, (function, experiment) in study.figures.items():
        is_interactive = name in study.interactive
        yield Picture(
            name=name,
            image=image_in(Path(folder.figure(name, "png"))),
            # What a figure's function says that it draws.
            alt=_drawn(function),
            caption=_read(captions / f"{function}.md", caption_of),
            measured=_measured(study, experiment),
            interactive=_interactive(function, tables[experiment.name, function]) if is_interactive else None,
        )


def _measured(study: Study, experiment: Experiment) -> str:
    """What was measured on what, and whether a caption's words about the poster are about it."""
    words = study.caption_for_people(experiment.name)
    if all(map(is_the_posters, experiment.runs.values())):
        return words
    return f"{words}. The poster is about SGD on the cross-entropy: for other training its words above need not hold"


def _interactive(function: str, rows: pd.DataFrame) -> go.Figure | None:
    return None if rows.empty else getattr(interactive_figures, function)(rows)


def _files(study: Study, folder: StudyFolder) -> Iterator[File]:
    names: Sequence[str] = [
        *(folder.table(name) for name in (RUNS, "claims", *study.result_tables)),
        *(folder.table(name) for experiment in study.experiments.values() for name in experiment.collected.values()),
        *(folder.table(name) for experiment in study.experiments.values() for name in experiment.own_tables),
        *(folder.figure(name, "pdf") for name in study.figures),
        *(folder.figure(name, "pdf") for experiment in study.experiments.values() for name in experiment.own_drawings),
    ]
    for path in map(Path, names):
        if path.exists():
            yield File(str(path.relative_to(folder.root)), path.stat().st_size)


if __name__ == "__main__":
    run_stage(report)
