"""The verdicts on the poster's claims, for reading (Markdown) and for computing (CSV)."""

from __future__ import annotations

import json
from pathlib import Path

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.deciding import as_markdown, decide
from sharpness.analysis.reading import check_origins, read_measured, read_runs
from sharpness.report.provenance import made_by
from sharpness.runtime.files import write_text
from sharpness.runtime.stage import run_stage


def claims(
    kinds: list[str],
    measurements: list[str],
    tables: list[Path],
    runs: Path,
    settings: str,
    markdown: Path,
    csv: Path,
    planned: str = "",
    study: str = "",
) -> None:
    """Decide every claim of the poster that the experiments of a study are about.

    Args:
        kinds: kind of the experiment of each table.
        measurements: what each table holds.
        tables: collected tables of all experiments.
        runs: the study's.
        settings: of the spectra, by name, in JSON.
        markdown: output.
        csv: output.
        planned: the runs again, as ``sharpness.study.runs`` makes a table of them; empty: they are not at hand.
        study: a digest of it, by which its verdicts are known where nobody has a record of them; empty: none is kept.
    """
    trained = read_runs(runs, planned)
    frames = [read_measured(path, name, trained) for path, name in zip(tables, measurements, strict=True)]
    check_origins(zip(measurements, tables, frames, strict=True))
    of_study = collected(zip(kinds, measurements, frames, strict=True), json.loads(settings))
    verdicts = decide(of_study)
    source = made_by(frames)
    write_text(f"{as_markdown(verdicts)}\nComputed by {source}.\n", markdown)
    known_by = {"made_by": source, "study_digest": study} if study else {"made_by": source}
    table = verdicts.assign(**known_by)
    if verdicts.empty and study:
        # Without a row, a column tells by its name which study has nothing to say.
        table = table.assign(**{study: None})
    write_text(table.to_csv(index=False), csv)


if __name__ == "__main__":
    run_stage(claims)
