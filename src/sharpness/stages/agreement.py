"""The table of what cheaper settings change, for reading (Markdown) and for computing (CSV)."""

from __future__ import annotations

from pathlib import Path

from sharpness.analysis.agreement import compare
from sharpness.analysis.reading import planned_runs, read_measured
from sharpness.report.provenance import made_by
from sharpness.runtime.files import write_text
from sharpness.runtime.stage import run_stage


def agreement(history: Path, spectrum: Path, runs: str, caption: str, markdown: Path, csv: Path) -> None:
    """Compare each way of the experiment's grids with the first.

    Args:
        history: collected histories of the experiment.
        spectrum: its collected spectra at planned checkpoints.
        runs: the experiment's, as ``sharpness.study.runs`` makes a table of them.
        caption: what was measured on what.
        markdown: output.
        csv: output.
    """
    of_study = planned_runs(runs)
    frames = read_measured(history, "history", of_study), read_measured(spectrum, "spectrum", of_study)
    table, source = compare(*frames), made_by(frames)
    write_text(f"{caption}\n\n{table.to_markdown(index=False, floatfmt='.3g')}\n\nComputed by {source}.\n", markdown)
    write_text(table.assign(made_by=source).to_csv(index=False), csv)


if __name__ == "__main__":
    run_stage(agreement)
