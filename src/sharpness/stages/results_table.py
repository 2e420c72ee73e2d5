"""The table of results, for reading (Markdown), for a paper (TeX) and for computing (CSV)."""

from __future__ import annotations

from pathlib import Path

from sharpness.analysis import results_markup, tables
from sharpness.analysis.reading import planned_runs, read_measured
from sharpness.report.provenance import made_by
from sharpness.runtime.files import write_text
from sharpness.runtime.stage import run_stage


def results_table(
    history: Path,
    spectrum: Path,
    runs: str,
    validation_epoch: int,
    caption: str,
    markdown: Path,
    tex: Path,
    csv: Path,
) -> None:
    """Write the table with the poster's columns.

    Args:
        history: collected histories of the experiment.
        spectrum: collected spectra at the best and at the last checkpoint.
        runs: the experiment's, as ``sharpness.study.runs`` makes a table of them.
        validation_epoch: the early epoch whose validation accuracy is shown.
        caption: what was measured on what.
        markdown: output.
        tex: output.
        csv: output.
    """
    of_study = planned_runs(runs)
    frames = [read_measured(history, "history", of_study), read_measured(spectrum, "spectrum", of_study)]
    table = tables.results_table(*frames, validation_epoch=validation_epoch)
    losses = " or ".join(dict.fromkeys(frames[0]["loss_function"])).replace("cross_entropy", "cross-entropy")
    source = made_by(frames)
    write_text(f"{results_markup.as_markdown(table, caption=caption, loss=losses)}\nComputed by {source}.\n", markdown)
    write_text(f"% computed by {source}\n{results_markup.as_tex(table, caption=caption, loss=losses)}", tex)
    write_text(table.assign(made_by=source).to_csv(index=False), csv)


if __name__ == "__main__":
    run_stage(results_table)
