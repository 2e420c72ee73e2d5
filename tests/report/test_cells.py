"""From a cell of a table of results to its runs: those whose mean the cell is, computed anew from their rows."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sharpness.analysis.reading import read_measured, read_runs
from sharpness.report import own
from sharpness.report.cells import cells_of, linked
from sharpness.report.prose import html_of

TABLES = Path(__file__).parents[2] / "results" / "digits" / "published" / "tables"


@pytest.fixture(scope="module")
def found():
    """The published table of results, its history, and where its cells come from."""
    text, results = (TABLES / "results_table.md").read_text(), pd.read_csv(TABLES / "results_table.csv")
    history = read_measured(TABLES / "results_table_history.csv", "history", read_runs(TABLES / "runs.csv"))
    return text, results, history, cells_of("results_table", text, results, history)


def test_the_mean_of_a_row_is_that_of_its_runs(found):
    _, results, history, cells = found
    assert len(cells.rows) == len(results) > 5
    for row, (_, told) in zip(cells.rows, results.iterrows(), strict=True):
        assert row.label.endswith(told["label"])
        assert len(row.runs) == told["num_seeds"]
        assert len(row.diverged) == told["num_diverged"]
        last = [
            history[history["run"] == run].sort_values("epoch")["training_loss"].iloc[-1]
            for run in row.runs
            if run not in row.diverged
        ]
        assert np.mean(last) == pytest.approx(told["training_loss_mean"])


def test_each_column_names_a_column_of_a_table_that_is_there(found):
    text, *_, cells = found
    header = next(line for line in text.splitlines() if line.startswith("| γ"))
    assert [column.title for column in cells.columns] == [cell.strip() for cell in header.split("|")[2:-1]]
    for column in cells.columns:
        assert column.column in pd.read_csv(TABLES / f"{column.table}.csv")


def test_every_cell_of_the_study_leads_to_its_row_and_no_cell_of_the_poster_does(found):
    text, results, _, cells = found
    before = html_of(text)
    html = linked(before, cells, "made")

    rows = re.findall(r"<tr>\n(<td>.*?)</tr>", html, re.DOTALL)
    assert len(rows) == len(results) + 7
    for number, row in enumerate(rows, 1):
        leads = re.findall(r'<td[^>]*><a href="#(made-\d+)"', row)
        assert leads == [f"made-{number}"] * (row.count("<td") if number <= len(results) else 0)
        assert row.count('tabindex="-1"') == max(0, len(leads) - 1)  # one stop of the keyboard a row
    assert re.sub(r"</?a\b[^>]*>", "", html) == before


def test_a_row_of_what_a_user_measured_is_of_one_run_at_its_last_checkpoint():
    rows = [
        {"grid": "rates", "run": run, "seed": 0, "step": step, "epoch": step / 10, "norm": step * 1.5}
        for run in ("b", "a")
        for step in (0, 10, 20)
    ]
    table = pd.DataFrame(rows)
    html, cells = html_of(own._at_the_end(table)), own._cells("rates_probe", table)

    assert [(row.label, row.runs) for row in cells.rows] == [("b at epoch 2", ["b"]), ("a at epoch 2", ["a"])]
    assert [(column.table, column.column) for column in cells.columns] == [("rates_probe", "norm")]
    assert re.findall(r'href="#made-(\d)"', linked(html, cells, "made")) == ["1"] * 3 + ["2"] * 3


def test_a_row_of_two_settings_that_are_compared_has_the_runs_of_both():
    history = pd.DataFrame(
        [
            {"data": "digits", "model": "simple_cnn", "grid": "passes", "run": f"{precision}-{seed}", "seed": seed}
            | {"precision": precision, "gamma": 1.0, "diverged": (precision, seed) == ("bfloat16", 1)}
            for precision in ("float32", "bfloat16", "float64")
            for seed in (0, 1)
        ]
    )
    row = {"data": "digits", "model": "simple_cnn", "grid": "passes", "reference": "precision float32"}
    results = pd.DataFrame([row | {"way": "precision bfloat16", "quantity": "test accuracy", "difference": 0.1}])
    text = results.to_markdown(index=False)
    cells = cells_of("mine", text, results, history)

    assert set(cells.rows[0].runs) == {"float32-0", "float32-1", "bfloat16-0", "bfloat16-1"}
    assert cells.rows[0].diverged == ["bfloat16-1"]
    assert linked(html_of(text), cells, "made").count('href="#made-1"') == len(results.columns)
