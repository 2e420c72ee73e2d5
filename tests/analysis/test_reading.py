"""Tables as figures and claims read them: each row of what was measured with the fields of its run."""

import csv
import dataclasses

import pandas as pd
import pytest
import yaml
from running import SMALL

from sharpness.analysis.reading import read_measured, read_runs
from sharpness.study.plan import study_of
from sharpness.study.records import RecordError
from sharpness.study.runs import COLUMNS, FIELDS, as_csv


@pytest.fixture(scope="module")
def trained():
    """The runs of the small study, of full batches and of mini-batches, with and without changes of the rate."""
    study = study_of(yaml.safe_load(SMALL.read_text()), source="small")
    return study.runs


@pytest.fixture
def runs(trained, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(as_csv(trained.values()))
    return read_runs(path)


def measured(folder, names, **columns):
    path = folder / "some_history.csv"
    pd.DataFrame({"grid": "run", "run": names, "diverged": False, **columns}).to_csv(path, index=False)
    return path


def test_every_field_of_every_run_comes_back(trained, runs):
    assert list(runs["run"]) == list(trained)
    for row in runs.to_dict("records"):
        fields = dataclasses.asdict(trained[row.pop("run")])
        run = {COLUMNS.get(field, field): value for field, value in fields.items()}
        assert row.keys() == run.keys()
        assert tuple(map(int, row.pop("learning_rate_epochs").split())) == tuple(run.pop("learning_rate_epochs"))
        assert {field: None if pd.isna(value) else value for field, value in row.items()} == run
    assert {"full", 20} == set(runs["batch_size"])


def test_lists_are_numbers_with_blanks_between_them_and_what_is_absent_is_empty(trained):
    run = dataclasses.replace(next(iter(trained.values())), epochs=100, learning_rate_epochs=(50, 1), learning_rate=1)
    never = dataclasses.replace(run, learning_rate_epochs=())
    first, second = csv.DictReader(as_csv([run, never]).splitlines())
    assert (first["run"], first["learning_rate_epochs"], first["learning_rate"]) == (run.name, "1 50", "1.0")
    assert (first["stop_patience"], second["learning_rate_epochs"]) == ("", "")


def test_each_row_has_the_fields_of_its_run_behind_its_name(trained, runs, tmp_path):
    names = [*trained, *reversed(trained)]
    path = measured(tmp_path, names, epoch=range(len(names)), learning_rate_now=0.25)
    table = read_measured(path, "history", runs)
    assert list(table) == ["grid", "run", *FIELDS, "diverged", "epoch", "learning_rate_now"]
    assert list(table["run"]) == names
    assert list(table["epoch"]) == list(range(len(names)))
    assert list(table["learning_rate"]) == [trained[name].learning_rate for name in names]
    assert list(table["batch_size"]) == [trained[name].batch_size for name in names]


def test_batch_sizes_are_numbers_where_no_run_takes_the_full_batch(trained, runs, tmp_path):
    names = [name for name, run in trained.items() if run.batch_size != "full"]
    assert read_measured(measured(tmp_path, names), "history", runs)["batch_size"].dtype == int


REFUSED = {
    "an unknown run": ({"run": "another"}, "has the run another, which the table of runs has not"),
    "a field of a run": ({"learning_rate": 0.1}, "has the column learning_rate, which belongs to the table of runs"),
    "of a version that told no divergence": ({"diverged": None}, "lacks the column diverged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_joined_is_refused_by_its_name(trained, runs, tmp_path, name):
    changes, reason = REFUSED[name]
    path = measured(tmp_path, list(trained)[:1])
    row = next(csv.DictReader(path.read_text().splitlines())) | changes
    pd.DataFrame([{column: value for column, value in row.items() if value is not None}]).to_csv(path, index=False)
    with pytest.raises(RecordError, match=reason) as refused:
        read_measured(path, "history", runs)
    assert str(refused.value).startswith(str(path))


def test_a_table_of_runs_that_lacks_a_field_is_refused_by_its_name(trained, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(as_csv(trained.values()).replace(",momentum,", ",momentu,"))
    with pytest.raises(RecordError, match=r"runs\.csv lacks the column momentum"):
        read_runs(path)


def without_line(number):
    return lambda text: "".join(line for index, line in enumerate(text.splitlines(keepends=True)) if index != number)


EDITED = {
    "another rate": (lambda text: text.replace(",0.1,", ",0.07,", 1), "has the learning_rate 0.07 for the run"),
    "no number": (lambda text: text.replace(",20,", ",twenty,", 1), "has the batch_size twenty for the run"),
    "an emptied cell": (lambda text: text.replace(",float32,", ",,", 1), "has the precision none for the run"),
    "a run lost": (without_line(1), "lacks the run"),
    "a run twice": (lambda text: text + text.splitlines()[1], "2 times, which the study plans once"),
}


@pytest.mark.parametrize("name", EDITED)
def test_a_table_of_runs_that_is_not_the_plans_is_refused_by_file_run_and_field(trained, tmp_path, name):
    change, reason = EDITED[name]
    path, plan = tmp_path / "runs.csv", as_csv(trained.values())
    path.write_text(plan)
    assert list(read_runs(path, plan)["run"]) == list(trained)
    path.write_text(change(plan))
    with pytest.raises(RecordError, match=reason) as refused:
        read_runs(path, plan)
    assert str(refused.value).startswith(str(path))
    assert any(run in str(refused.value) for run in trained)
