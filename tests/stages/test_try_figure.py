"""A user's figure is tried on made-up tables: what it returns is told, what it cannot do with them passes."""

import os
import subprocess
import sys
import textwrap

import pandas as pd
import pytest
import yaml

from benchmarks.project import ROOT
from sharpness.analysis.own import made_up
from sharpness.analysis.reading import planned_runs, with_runs
from sharpness.runtime import own
from sharpness.runtime.definitions import OwnError
from sharpness.runtime.words import pack
from sharpness.stages.try_figure import try_figure
from sharpness.study.identity import MADE_BY
from sharpness.study.plan import study_of
from sharpness.study.runs import as_csv

EXPERIMENT = {
    "kind": "eigenvalues",
    "grids": {"learning_rate": [{"learning_rate": [0.1, 0.2]}], "batch_size": [{"batch_size": [8, "full"]}]},
}
CONFIG = {"study": "mine", "defaults": {"data": "digits"}, "experiments": {"rates": EXPERIMENT}}
STUDY = study_of(CONFIG, source="mine.yaml").experiments["rates"]
RUNS = as_csv(STUDY.runs.values())


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """Try a function with this body, and return what is written of it."""
    monkeypatch.setenv(own.VARIABLE, str(tmp_path))
    trial, output = tmp_path / "trial.yaml", tmp_path / "told.yaml"
    trial.write_text(yaml.safe_dump({"columns": {"norm": "float", "layer": "str", "count": "int", "sharp": "bool"}}))

    def of(body, arguments="history, probe"):
        head = f"from matplotlib.figure import Figure\n\n\ndef draw({arguments}):\n"
        (tmp_path / "plot.py").write_text(head + textwrap.indent(textwrap.dedent(body), "    "))
        names = ["history", "spectrum", "probe"]
        grids, members = zip(*STUDY.members, strict=True)
        measurements = ["history", "spectrum", "own"]
        try_figure("plot.py:draw", names, measurements, [trial], list(grids), list(members), RUNS, output)
        return yaml.safe_load(output.read_text())

    return of


@pytest.mark.parametrize(
    ("body", "got"),
    [
        ("return Figure().add_subplot()", "Axes"),
        ("figure = Figure()\nreturn figure, figure.add_subplot()", "tuple"),
        ("if len(history) > 1:\n    return 'a figure'\nreturn Figure()", "str"),
    ],
)
def test_what_is_no_figure_is_told_with_its_line(tried, body, got):
    with pytest.raises(OwnError, match=rf"plot.py, line 4: must return a matplotlib figure, got {got}$"):
        tried(body)


@pytest.mark.parametrize(
    ("body", "arguments", "said"),
    [
        ("return Figur()", "history", "plot.py, line 5: NameError: name 'Figur' is not defined"),
        ("import nowhere_at_all\nreturn Figure()", "history", "line 5: ModuleNotFoundError: No module named"),
        ("return Figure()", "density", "line 4: there is no table 'density', the tables are history, spectrum, probe"),
    ],
)
def test_what_can_never_be_drawn_is_told(tried, body, arguments, said):
    with pytest.raises(OwnError, match=said):
        tried(body, arguments)


@pytest.mark.parametrize(
    "body",
    [
        "return Figure() if history['training_loss'].iloc[1000] else None",  # more rows than there are
        "return {1.5: Figure()}[probe['norm'].iloc[0] + 7]",
        "probe['angle']\nreturn Figure()",  # a column that only later checkpoints have
    ],
)
def test_what_asks_for_more_than_made_up_tables_have_passes(tried, body):
    told = tried(body)
    assert not told["drawn"]
    assert "plot.py, line 5: " in told["on made-up numbers"]


def test_nothing_passes_where_there_is_too_little_to_draw(tried):
    assert tried("if len(history) < 1000:\n    return None\nreturn Figure()")["drawn"]


def test_the_tables_are_of_all_members_and_hold_what_the_trial_of_a_measurement_found(tried):
    assert tried(
        """
        assert set(history["grid"]) == set(probe["grid"]) == {"learning_rate", "batch_size"}
        assert set(probe["learning_rate"]) >= {0.1, 0.2}
        assert set(probe["batch_size"]) >= {8, "full"}
        assert probe["layer"].map(type).eq(str).all()
        assert probe["sharp"].dtype == bool
        assert probe["count"].dtype.kind == "i"
        assert (probe["norm"] > 0).all()
        assert probe.groupby(["grid", "run"])["epoch"].max().eq(probe.groupby(["grid", "run"])["epochs"].first()).all()
        return Figure()
        """
    ) == {"figure": "plot.py:draw", "tables": ["history", "spectrum", "probe"], "drawn": True}


@pytest.mark.slow
def test_an_experiment_without_a_measurement_of_ones_own_has_no_trial_of_one(tmp_path):
    (tmp_path / "plot.py").write_text("def draw(history):\n    return history\n")
    grids, members = zip(*STUDY.members, strict=True)
    tables = ["--names", "history", "spectrum", "--measurements", "history", "spectrum", "--trials"]
    of_runs = [pack(["--grids", *grids, "--members", *members]), pack(["--runs", RUNS])]
    variables = os.environ | {"PYTHONPATH": str(ROOT / "src"), own.VARIABLE: str(tmp_path)}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sharpness.stages.try_figure",
            "--code",
            "plot.py:draw",
            *tables,
            *of_runs,
            "--output",
            str(tmp_path / "told.yaml"),
        ],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.endswith("plot.py, line 1: must return a matplotlib figure, got DataFrame\n")
    assert not (tmp_path / "told.yaml").exists()


@pytest.mark.parametrize("measurement", ["history", "spectrum", "slices", "steps", "variants", "gradients", "density"])
def test_made_up_tables_have_the_columns_of_measured_ones(measurement):
    """Those that every table must have, with words where those have words: against published ones."""
    (path, *_) = sorted((ROOT / "results").glob(f"*/published/tables/*_{measurement}.csv"))
    measured = pd.read_csv(path, low_memory=False)
    frame = with_runs(made_up(measurement, STUDY.members, planned_runs(RUNS)), planned_runs(RUNS), path)
    # Older tables do not say all of what made them.
    shared = set(frame) - set(planned_runs(RUNS).drop(columns="run")) - {*MADE_BY, "trained_by"}
    assert shared <= set(measured)
    for column in shared:
        values = measured[column].dropna()
        assert isinstance(frame[column].iloc[0], str) == isinstance(values.iloc[0], str), column
