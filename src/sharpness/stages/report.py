"""Write a study's report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import plotly.graph_objects as go
import yaml

from sharpness.analysis.brackets import in_words
from sharpness.analysis.claims.poster import CLAIMS
from sharpness.analysis.figures import interactive as interactive_figures
from sharpness.analysis.reading import read_measured, read_runs, read_table
from sharpness.report import provenance
from sharpness.report.costs import costs_of, jobs_of
from sharpness.report.page import Caption, Origin, Picture, Table, caption_of, render
from sharpness.runtime.files import write_text
from sharpness.runtime.stage import run_stage
from sharpness.study.jobs import Jobs
from sharpness.study.records import RecordError

Content = TypeVar("Content")
CLAIMS_COLUMNS = (
    *("claim", "finding", "model", "data", "configuration", "quantity", "measured", "effect", "low", "high"),
    *("test", "seeds", "seeds_are", "exploring", "diverged", "verdict", "would_decide"),
)


@dataclass(frozen=True)
class Figures:
    """All figures of the study: an entry for each in every list."""

    names: list[str]
    functions: list[str]  # by which they are drawn
    measured: list[str]  # what was measured on what
    images: list[Path]  # PNG


@dataclass(frozen=True)
class Interactive:
    """Those figures that have an interactive version: an entry for each in every list."""

    names: list[str]
    tables: list[Path]


@dataclass(frozen=True)
class Tables:
    """All tables of results: an entry for each in every list."""

    names: list[str]
    kinds: list[str]  # by the names of their captions
    texts: list[Path]  # Markdown


def report(
    study: str,
    results: Path,
    jobs: Jobs,
    claims: Path,
    figures: Figures,
    interactive: Interactive,
    tables: Tables,
    captions: list[Path],
    histories: list[Path],
    spectra: list[Path],
    runs: Path,
    citation: Path,
    output: Path,
    digest: str = "",
) -> None:
    """Put all that a study found into one page.

    Args:
        study: its name.
        results: its folder, for what each job cost.
        jobs: the study's own.
        claims: the table of verdicts.
        figures: in the order of the page.
        interactive: of which the tables are drawn anew.
        tables: in the order of the page.
        captions: each named after the function of a figure, the kind of a table, or the claims.
        histories: the collected ones of all experiments.
        spectra: likewise.
        runs: the study's.
        citation: the project's CITATION.cff.
        output: the page.
        digest: of the study, by which its page is known where nobody has a record of it; empty: none is kept.

    Raises:
        RecordError: one of these files is damaged.
    """
    texts = {path.stem: _read(path, caption_of) for path in captions}
    done, of_study = jobs_of(results, jobs), read_runs(runs)
    origin = Origin(
        training=provenance.training_of(read_measured(path, "history", of_study) for path in histories),
        hosts=provenance.hosts_of(done),
        versions=provenance.versions(),
        machine=provenance.machine(),
        commit=provenance.commit(Path(provenance.__file__).parent),
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        costs=costs_of(done),
    )
    page = render(
        study,
        claims=_claims(claims),
        claims_caption=texts["claims"],
        pictures=_pictures(figures, dict(zip(interactive.names, interactive.tables, strict=True)), of_study, texts),
        tables=[
            Table(name, _read(text, str), texts[kind])
            for name, kind, text in zip(tables.names, tables.kinds, tables.texts, strict=True)
        ],
        brackets=in_words(read_measured(path, "spectrum", of_study) for path in spectra),
        origin=origin,
        citation=_read(citation, _citation),
        digest=digest,
    )
    write_text(page, output)


def _read(path: Path, parse: Callable[[str], Content]) -> Content:
    """What a text file holds, by the name of which it is refused where it holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            raise ValueError("it is empty")
        return parse(text)
    except (ValueError, yaml.YAMLError) as error:
        raise RecordError(f"{path} is damaged ({' '.join(str(error).split())}): put it back") from error


def _citation(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text)
    if not isinstance(found, dict) or not {"authors", "title"} <= set(found):
        raise ValueError("it has no authors and no title")
    return found


def _claims(path: Path) -> pd.DataFrame:
    table = read_table(path)
    if lacking := [column for column in CLAIMS_COLUMNS if column not in table]:
        raise RecordError(f"{path} lacks the column {lacking[0]}: remove it, and it is made anew")
    if absent := sorted(set(CLAIMS) - set(table["claim"])):
        raise RecordError(f"{path} lacks the claims {', '.join(absent)}: remove it, and it is made anew")
    return table


def _drawn(function: str) -> str:
    """The first line of the docstring of a figure's function."""
    module = import_module(f"sharpness.analysis.figures.{function}")
    return str(getdoc(getattr(module, function))).partition("\n")[0]


def _image(path: Path) -> bytes:
    content = path.read_bytes()
    # It ends with a chunk of that name and its check sum.
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or content[-8:-4] != b"IEND":
        raise RecordError(f"{path} is damaged or cut short: remove it, and it is drawn anew")
    return content


def _pictures(
    figures: Figures, tables: Mapping[str, Path], runs: pd.DataFrame, captions: Mapping[str, Caption]
) -> list[Picture]:
    entries = zip(figures.names, figures.functions, figures.measured, figures.images, strict=True)
    return [
        Picture(
            name=name,
            image=_image(image),
            # What a figure's function says that it draws.
            alt=_drawn(function),
            caption=captions[function],
            measured=measured,
            interactive=_interactive(function, tables.get(name), runs),
        )
        for name, function, measured, image in entries
    ]


def _interactive(function: str, table: Path | None, runs: pd.DataFrame) -> go.Figure | None:
    rows = None if table is None else read_measured(table, function, runs)
    return None if rows is None or rows.empty else getattr(interactive_figures, function)(rows)


if __name__ == "__main__":
    run_stage(report)
