"""Tables that are whole, what a study asks for, and of one code and data: every other is refused by its name."""

from __future__ import annotations

import csv
import shutil
from importlib import metadata

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from running import SMALL

from benchmarks.project import ROOT
from sharpness.analysis.reading import check_origins, read_measured, read_runs
from sharpness.report.published import Publication
from sharpness.runtime import closure
from sharpness.runtime.files import write_table
from sharpness.stages.collect import collect
from sharpness.stages.publish import _check, publish
from sharpness.study.identity import settings_digest, sized
from sharpness.study.jobs import jobs
from sharpness.study.measurement import code_of, finite, required
from sharpness.study.paths import StudyFolder
from sharpness.study.plan import study_of
from sharpness.study.planned import check_finished, digest, wanted
from sharpness.study.published import Published
from sharpness.study.records import (
    TOLD_BY,
    RecordError,
    Wanted,
    check,
    columns_of,
    read_rows,
)
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.runs import as_csv

MADE_BY = {"code": "0a", "torch": "2.14.1+cu130", "device": "cpu", "threads": "1", "kernels": "", "data_digest": "1b"}


def check_publication(study, runs, published):
    _check(Published(study, StudyFolder(str(published))), runs)


def rows_of(run, asked, **changes):
    """What a stage writes of a run that does not diverge, with the same number everywhere."""
    values = {**dict.fromkeys(required(columns_of(asked.measurement)), 1.5), **MADE_BY, "settings_digest": asked.digest}
    values |= {"num_examples": 16} if "num_examples" in values else {}
    if asked.measurement == "history":
        places = [{"step": epoch * run.steps_per_epoch, "epoch": epoch, "diverged": False} for epoch in asked.steps]
    else:
        ends = {"settings": asked.settings, "diverged": False, "stopped": False, "trained_by": "0a"}
        kinds = [("planned", step) for step in asked.steps] or [("best", 10), ("last", 20)]
        places = [
            {**ends, "checkpoint": kind, "step": step, "epoch": step / 10, "start_step": ""} for kind, step in kinds
        ]
        values.pop("start_step", None)
    return [{"run": run.name, **place, **values, **changes} for place in places]


def study_with(*changes):
    config = yaml.safe_load(SMALL.read_text())
    for change in changes:
        change(config)
    return study_of(config, source="small")


@pytest.fixture(scope="module")
def study():
    return study_with()


@pytest.fixture
def written(study, tmp_path):
    """Writes all tables of a study's runs, as if they had been measured; ``changes``: of every row."""

    def write(folder=tmp_path / "runs", of=study, **changes):
        for experiment in of.experiments.values():
            for measurement in experiment.collected:
                for table, asked in wanted(of, experiment, measurement):
                    write_table(sized(rows_of(of.runs[asked.run], asked, **changes)), folder / table)
        return folder

    return write


def collected(study, folder, experiment="eigenvalues", measurement="spectrum"):
    chosen = study.experiments[experiment]
    grids, runs = map(list, zip(*chosen.members, strict=True))
    tables = wanted(study, chosen, measurement)
    output = folder.parent / "tables" / f"{experiment}_{measurement}.csv"
    paths, words = [folder / table for table, _ in tables], [asked.words(runs) for _, asked in tables]
    collect(experiment, measurement, grids, runs, paths, words, output)
    return output


def read(study, path, measurement="spectrum"):
    """As figures, tables and claims read it: with the fields of the runs."""
    runs = path.with_name("runs.csv")
    runs.write_text(as_csv(study.runs.values()))
    return read_measured(path, measurement, read_runs(runs))


def first_table(study, folder, experiment="eigenvalues", measurement="spectrum"):
    return folder / wanted(study, study.experiments[experiment], measurement)[0][0]


# The data set of a run, the stage that trains it, and whether it may stop.
OF_RUN = [("digits", "train", False), ("cifar10", "train_nudged", True), ("my blobs.npz", "train", False)]


@given(
    st.lists(st.integers(0, 10**6), unique=True).map(sorted), st.sampled_from(["", "leading"]), st.sampled_from(OF_RUN)
)
def test_what_is_wanted_comes_back_from_its_words(steps, settings, of_run):
    asked = Wanted("b", "spectrum", settings, "0123456789ab", steps, *of_run)
    assert Wanted.of(asked.words(["a", "b", "b"]), ["a", "b", "b"], "spectrum") == asked


def test_a_schedule_of_thousands_of_steps_is_a_few_words():
    asked = Wanted(
        "a", "spectrum", "leading", "0123456789ab", [*range(0, 4000, 4), *range(4000, 90000, 351)], *OF_RUN[0]
    )
    assert len(asked.words(["a"])) < 80


@pytest.mark.parametrize(("one", "other"), [({"a": 1, "b": [2]}, {"b": [2.0], "a": 1.0})])
def test_settings_are_known_by_their_values(one, other):
    assert settings_digest(one) == settings_digest(other)
    others = [{"a": 1, "b": [3]}, {"a": True, "b": [2]}, {"a": 1}, {"a": None, "b": [2]}, {"a": "1", "b": [2, 0]}]
    assert len({settings_digest(settings) for settings in [one, *others]}) == 6


def test_whole_tables_are_collected_row_by_row_with_every_digit(study, written):
    folder = written(eigenvalue=0.1 + 0.2)
    table = collected(study, folder)
    rows = read_rows(table, "spectrum")
    assert {row["eigenvalue"] for row in rows} == {"0.30000000000000004"}
    members = study.experiments["eigenvalues"].members
    assert list(dict.fromkeys((row["grid"], row["run"]) for row in rows)) == members
    assert "stopped" not in rows[0]
    assert read(study, table)["eigenvalue"].eq(0.1 + 0.2).all()


def shortened(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2 + 1]))


def without_its_rows(path):
    path.write_text(path.read_text().splitlines(keepends=True)[0])


def cut_within_a_line(path):
    path.write_text(path.read_text()[:-3])


def without_a_column(name):
    def spoil(path):
        rows = list(csv.DictReader(path.read_text().splitlines()))
        write_table([{key: value for key, value in row.items() if key != name} for row in rows], path)

    return spoil


def with_value(name, value):
    """A whole table, as another job may have written it."""

    def spoil(path):
        first, *rows = csv.DictReader(path.read_text().splitlines())
        write_table(sized([{**first, name: value}, *rows]), path)

    return spoil


def edited(path):
    """One digit of one number, as a person or a script may change it."""
    first, *rows = csv.DictReader(path.read_text().splitlines())
    digit = first["eigenvalue"][-1]
    changed = first["eigenvalue"][:-1] + ("1" if digit != "1" else "2")
    write_table([{**first, "eigenvalue": changed}, *rows], path)


def with_a_row_twice(path):
    *rows, _ = csv.DictReader(path.read_text().splitlines())
    write_table([*rows, rows[0]], path)


SPOILT = {
    "emptied": (lambda path: path.write_text(""), "is empty"),
    "one empty line": (lambda path: path.write_text("\n"), "is empty"),
    "shortened": (shortened, "is not whole"),
    "without rows": (without_its_rows, "is not whole"),
    "cut within a line": (cut_within_a_line, "is not whole"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is damaged or no table"),
    "without the eigenvalue": (without_a_column("eigenvalue"), "lacks the column eigenvalue"),
    "without the device": (without_a_column("device"), "lacks the column device"),
    "without the size": (without_a_column("table_size"), "lacks the column table_size"),
    "a number that is none": (
        with_value("eigenvalue", "nan"),
        "line 2: eigenvalue is nan, and nothing says that the run",
    ),
    "no number": (with_value("eigenvalue", ""), "line 2: eigenvalue is empty, and nothing says that the run"),
    "a row twice and another lost": (
        with_a_row_twice,
        r"lines 2 and \d+: both are of .*step 0, .*which 1\.5, rank 1\.5: ",
    ),
    "edited": (edited, "was edited since it was written"),
    "another run": (with_value("run", "another"), "is of the run another, not of"),
    "other settings": (with_value("settings_digest", "ffff"), "was measured with other settings than the study's"),
    "another step": (with_value("step", "3"), "lacks the steps 0, which the study plans"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_table_that_lost_something_is_refused_by_its_name(study, written, name):
    spoil, reason = SPOILT[name]
    folder = written()
    path = first_table(study, folder)
    spoil(path)
    with pytest.raises(RecordError, match=reason) as refused:
        collected(study, folder)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name", [name for name in SPOILT if name not in ("another run", "other settings", "another step")]
)
def test_a_collected_table_that_lost_something_is_refused_too(study, written, name):
    spoil, reason = SPOILT[name]
    path = collected(study, written())
    spoil(path)
    reason = "is damaged or empty" if name in ("emptied", "one empty line", "no text") else reason
    with pytest.raises(RecordError, match=reason):
        read(study, path)


def test_rows_of_every_measurement_are_told_apart_by_columns_that_it_has():
    assert {"history", *MEASUREMENTS} == {*TOLD_BY, "density"}
    for measurement, columns in TOLD_BY.items():
        assert set(columns) <= set(columns_of(measurement))


@pytest.mark.parametrize("measurement", TOLD_BY)
def test_a_row_twice_is_refused_of_every_measurement_and_another_of_the_same_checkpoint_is_not(
    study, tmp_path, measurement
):
    path, run = tmp_path / "table.csv", next(iter(study.runs.values()))
    asked = Wanted(run.name, measurement, "some", "0a", [10], *OF_RUN[0])
    (row,) = rows_of(run, asked)
    others = [{**row, column: "7"} for column in (*TOLD_BY[measurement], "step")]
    write_table(sized([row, *others]), path)
    assert len(read_rows(path, measurement)) == len(others) + 1
    write_table(sized([row, *others, {**row, "torch": "2.15.0"}]), path)
    with pytest.raises(RecordError, match=rf"table\.csv, lines 2 and {len(others) + 3}: both are of run {run.name}, "):
        read_rows(path, measurement)


def test_a_run_that_diverged_or_stopped_says_so_and_needs_no_later_step(study, tmp_path):
    experiment = study.experiments["eigenvalues"]
    tables = [(path, asked) for path, asked in wanted(study, experiment, "spectrum") if len(asked.steps) > 1]
    path, asked = tables[0]
    first, second, *_ = rows_of(study.runs[asked.run], asked)
    lost = {**second, **dict.fromkeys(finite(columns_of("spectrum")), ""), "diverged": True}
    for end in (lost, {**lost, "diverged": False, "stopped": True}):
        write_table(sized([first, end]), tmp_path / path)
        check(read_rows(tmp_path / path, "spectrum"), asked, path)
    write_table(sized([first]), tmp_path / path)
    with pytest.raises(RecordError, match="lacks the steps"):
        check(read_rows(tmp_path / path, "spectrum"), asked, path)


MIXED = {
    "code": ("code", "9f", "the code of the stage spectrum 0a, .* with 9f"),
    "training": ("trained_by", "9f", "the code of the stage train 0a, .* with 9f"),
    "torch": ("torch", "2.15.0", r"the torch 2\.14\.1, .* with 2\.15\.0"),
    "data": ("data_digest", "9f", "the data set digits 1b, .* with 9f"),
}


@pytest.mark.parametrize("name", MIXED)
def test_two_codes_or_data_sets_are_refused_by_the_names_of_both_tables(study, written, name):
    column, value, reason = MIXED[name]
    folder = written()
    (path, asked) = wanted(study, study.experiments["eigenvalues"], "spectrum")[-1]
    write_table(sized(rows_of(study.runs[asked.run], asked, **{column: value})), folder / path)
    with pytest.raises(RecordError, match=reason) as refused:
        collected(study, folder)
    assert str(folder / path) in str(refused.value)
    assert str(first_table(study, folder)) in str(refused.value)


def test_tables_of_two_experiments_are_of_one_code(study, written, tmp_path):
    one = collected(study, written(tmp_path / "one" / "runs"))
    other = collected(study, written(tmp_path / "other" / "runs", code="9f"), "schedules")
    frames = [("spectrum", path, read(study, path)) for path in (one, other)]
    check_origins(frames[:1])
    with pytest.raises(RecordError, match="a study has one of them"):
        check_origins(frames)


def test_a_table_of_an_older_version_is_read_as_it_is(study, tmp_path):
    path = tmp_path / "old_spectrum.csv"
    old = {"run": [min(study.runs)], "diverged": [False], "eigenvalue": [None], "code": ["12345678"]}
    pd.DataFrame(old).to_csv(path, index=False)
    table = read(study, path)
    assert table["code"].tolist() == ["12345678"]
    check_origins([("spectrum", path, table)] * 2)


# Results of which Snakemake knows nothing


@pytest.fixture
def current(monkeypatch):
    """Whatever a stage's code is, it is the one that the tables name."""
    monkeypatch.setattr(closure, "version", lambda *_: "0a")


def finished(study, folder, **settings):
    check_finished(study, folder.parent, is_recorded=lambda _: False, torch="2.14.1", **settings)


def test_results_without_a_record_that_are_of_the_study_pass(study, written, current):
    folder = written()
    path = collected(study, folder)
    path.with_name("runs.csv").write_text(as_csv(study.runs.values()))
    finished(study, folder)


def more_eigenvalues(config):
    config["spectrum"]["leading"]["num_eigenvalues"] = 3


def other_evaluation(config):
    config["evaluation_examples"] = 50


def other_steps(config):
    config["checkpoints"]["trajectory"]["dense_images"] = 40


def fewer_steps(config):
    config["checkpoints"]["trajectory"]["dense_images"] = 200


def fewer_runs(config):
    config["experiments"]["eigenvalues"]["grids"]["batch_size"][0]["batch_size"] = [20]


EDITS = {
    "settings": (more_eigenvalues, "was measured with other settings than the study's spectrum.leading"),
    "evaluation": (other_evaluation, "was measured with other settings than the study's evaluation_examples"),
    "steps": (other_steps, "lacks the steps 2, 4"),
    "fewer steps": (fewer_steps, r"lacks the steps \d+, which the study plans|has the steps 5, which"),
    "fewer runs": (fewer_runs, "has the run .* of the grid batch_size, unlike the study"),
}


def test_a_table_of_runs_without_a_record_is_held_against_the_study(study, written, current):
    folder = written()
    path = folder.parent / "tables" / "runs.csv"
    path.parent.mkdir()
    path.write_text(as_csv(list(study.runs.values())[1:]))
    with pytest.raises(RecordError, match=r"runs\.csv is not the table of the study's runs, .*remove it"):
        finished(study, folder)


@pytest.mark.parametrize("name", EDITS)
def test_results_without_a_record_are_held_against_the_study(study, written, current, name):
    change, reason = EDITS[name]
    folder = written()
    collected(study, folder)
    with pytest.raises(RecordError, match=reason):
        finished(study_with(change), folder)


def test_results_without_a_record_are_held_against_the_code_and_the_torch(study, written, monkeypatch):
    folder = written()
    with pytest.raises(RecordError, match=r"here it is \w+, and Snakemake has no record of it"):
        finished(study, folder)
    monkeypatch.setattr(closure, "version", lambda *_: "0a")
    with pytest.raises(RecordError, match=r"the torch 2\.14\.1, here it is 2\.15\.0"):
        check_finished(study, folder.parent, is_recorded=lambda _: False, torch="2.15.0+cpu")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "results_table.csv",
            "label,validation_epoch\n0.1,1\n0.1,7\n",
            "is of the validation_epoch 7, the study's is 1",
        ),
        ("results_table.csv", "label\n0.1\n", "is of the validation_epoch nobody knows, the study's is 1"),
        ("results_table.md", "resnet8 on digits\n", "does not begin with what the study measures"),
    ],
)
def test_tables_for_readers_without_a_record_are_held_against_the_study(study, written, current, name, content, reason):
    folder = written()
    tables = folder.parent / "tables"
    tables.mkdir()
    (tables / "results_table.csv").write_text("label,validation_epoch\n0.1,1\n")
    (tables / "claims.csv").write_text('claim,measured,would_decide\nn,"% at epoch 1, gamma 1",\na,,runs\n')
    for caption in (study.caption_for_people, study.caption):
        (tables / "results_table.md").write_text(caption("results_table") + ". More.\n")
        finished(study, folder)
    (tables / name).write_text(content)
    with pytest.raises(
        RecordError, match=rf"^{tables}/{name} {reason}.*, and Snakemake has no record of it: remove it"
    ):
        finished(study, folder)
    check_finished(study, folder.parent, is_recorded=lambda path: path.endswith(name), torch="2.14.1")


@pytest.mark.parametrize("kept", [1, 2, 4, 5, None])
def test_stale_results_are_named_together_and_beyond_the_first_few_counted(study, written, kept):
    folder = written(code="9f")
    tables = sorted(folder.rglob("*.csv"))
    for path in tables[kept or len(tables) :]:
        path.unlink()
    with pytest.raises(RecordError) as refused:
        finished(study, folder)
    told, count = str(refused.value), len(tables[:kept])
    assert "\n" not in told
    assert sum(str(path) in told for path in tables) == min(count, 4)
    assert told.endswith(f", {count - 4} more") == (count > 4)
    assert ("; so it is with " in told) == (count > 1)


def renamed(config):
    config["experiments"] = {
        {"eigenvalues": "of_rates"}.get(name, name): of_it for name, of_it in config["experiments"].items()
    }


def without_an_experiment(config):
    del config["experiments"]["agreement"]


def by_other_settings(config):
    config["steps"]["scaled"]["num_batches"] += 1


@pytest.mark.parametrize(
    "change", [renamed, without_an_experiment, other_evaluation, by_other_settings, more_eigenvalues]
)
def test_a_digest_tells_studies_apart(study, change):
    assert digest(study_with(change)) != digest(study) == digest(study_with())


@pytest.mark.parametrize("change", [renamed, without_an_experiment])
@pytest.mark.parametrize("name", ["tables/claims.csv", "report.html"])
def test_what_readers_are_told_of_another_study_is_refused_by_name(study, written, current, change, name):
    edited, folder = study_with(change), written(of=study_with(change))
    for experiment in edited.experiments.values():
        for measurement in experiment.collected:
            collected(edited, folder, experiment.name, measurement)
    results = folder.parent
    for of, path in ((edited, "tables/claims.csv"), (edited, "report.html"), (study, name)):
        (results / path).write_text(f"claim,study_digest\na,{digest(of)}\n")
    reason = rf"^{results / name} is of other experiments, runs or settings than the study's, .*: remove it"
    with pytest.raises(RecordError, match=reason):
        finished(edited, folder)
    check_finished(edited, results, is_recorded=lambda path: path.endswith(name), torch="2.14.1")
    (results / name).write_text(f"a,{digest(edited)}\n")
    finished(edited, folder)
    # What is made anew since a table is lacking is not refused.
    (results / name).write_text("a\n")
    (results / "tables/steps_steps.csv").unlink()
    finished(edited, folder)


def test_results_with_a_record_are_snakemakes_affair(study, written):
    folder = written(code="9f")
    check_finished(study, folder.parent, is_recorded=lambda _: True, torch="2.14.1")


# Publishing


@pytest.mark.parametrize("name", ["settings", "evaluation", "steps", "fewer steps"])
def test_results_of_other_settings_are_not_published(study, written, current, name, tmp_path):
    change, reason = EDITS[name]
    folder = written()
    check_publication(study, folder, tmp_path / "published")
    with pytest.raises(RecordError, match=reason):
        check_publication(study_with(change), folder, tmp_path / "published")


def test_what_was_kept_before_an_edit_is_not_completed_after_it(study, written, current, monkeypatch, tmp_path):
    kept = tmp_path / "published" / "runs"
    for name in study.experiments:
        written(kept / name)
    check_publication(study, tmp_path / "runs", tmp_path / "published")
    with pytest.raises(RecordError, match="was measured with other settings"):
        check_publication(study_with(more_eigenvalues), tmp_path / "runs", tmp_path / "published")
    half = written()
    for run in list(study.runs)[::2]:
        shutil.rmtree(half / run)
    check_publication(study, half, tmp_path / "published")
    for run in list(study.runs)[1::2]:
        shutil.rmtree(half / run)
    written(half, code="9f", trained_by="9f")
    monkeypatch.setattr(closure, "version", lambda *_: "9f")
    for run in list(study.runs)[::2]:
        shutil.rmtree(half / run)
    with pytest.raises(RecordError, match="a study has one of them"):
        check_publication(study, half, tmp_path / "published")


@pytest.mark.parametrize(
    ("edited", "told"),
    [
        ("spectrum", "code of the stage spectrum"),
        ("train", "code of the stage train"),
        ("train_nudged", "code of the stage train_nudged"),
        ("gradients", "code of the stage gradients"),
    ],
)
def test_results_of_code_that_was_edited_since_are_not_published(study, written, monkeypatch, edited, told, tmp_path):
    versions = {(f"sharpness.stages.{stage}",): "0a" for stage in ("train", "train_nudged")}
    versions |= {code_of(name): "0a" for name in MEASUREMENTS}
    monkeypatch.setattr(closure, "version", lambda *modules: versions[modules])
    folder, published = written(), tmp_path / "published"
    check_publication(study, folder, published)
    versions[code_of(edited) if edited in MEASUREMENTS else (f"sharpness.stages.{edited}",)] = "9f"
    with pytest.raises(RecordError, match=rf"^{folder}/.*csv was computed with other {told} than is here \(0a, here"):
        check_publication(study, folder, published)
    # What was kept of it before is compared among itself.
    for name in study.experiments:
        shutil.copytree(folder, published / "runs" / name)
    check_publication(study, tmp_path / "nothing", published)


def test_results_of_another_torch_are_not_published(study, written, current, monkeypatch, tmp_path):
    folder, published = written(), tmp_path / "published"
    check_publication(study, folder, published)
    monkeypatch.setattr(metadata, "version", {"torch": "2.15.0+cpu"}.__getitem__)
    with pytest.raises(
        RecordError, match=rf"^{folder}/.*csv was computed with other torch .*2\.14\.1, here it is 2\.15\.0"
    ):
        check_publication(study, folder, published)
    # What was kept of it before is compared among itself.
    for name in study.experiments:
        shutil.copytree(folder, published / "runs" / name)
    check_publication(study, tmp_path / "nothing", published)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_study_that_was_published_and_is_partly_run_anew_is_refused(study, written, is_old, tmp_path):
    experiment = study.experiments["eigenvalues"]
    publication = Publication(study)
    for measurement in experiment.collected:
        path = collected(study, written(tmp_path / "before" / "runs"), measurement=measurement)
        if is_old:
            added = ["table_size", "settings_digest", "data_digest", "trained_by", "kernels"]
            pd.read_csv(path, dtype=str).drop(columns=added, errors="ignore").to_csv(path, index=False)
        publication.add_collected(experiment, measurement, path)
    publication.check_origins()
    schedules = study.experiments["schedules"]
    anew = written(tmp_path / "anew" / "runs", code="9f", trained_by="9f")
    if is_old:  # what it does not say is not asked for, as long as nothing is published beside it
        for run in schedules.runs:
            publication.add_run(schedules, run, anew, is_kept=True)
        with pytest.raises(RecordError, match="the code of the stage"):
            publication.check_origins()
    else:
        with pytest.raises(RecordError, match="the code of the stage"):
            publication.add_run(schedules, next(iter(schedules.runs)), anew, is_kept=True)


@pytest.mark.parametrize("name", EDITS)
def test_what_was_published_before_an_edit_does_not_stay_under_the_new_caption(study, written, name):
    change, _ = EDITS[name]
    measurement = "history" if name == "evaluation" else "spectrum"
    path = collected(study, written(), measurement=measurement)
    Publication(study).add_collected(study.experiments["eigenvalues"], measurement, path)
    edited = study_with(change)
    with pytest.raises(RecordError, match=r"other settings|lacks the step|has the step|has the run") as refused:
        Publication(edited).add_collected(edited.experiments["eigenvalues"], measurement, path)
    assert str(refused.value).startswith(str(path))


def published_of_digits(folder, experiment, **changed):
    """One experiment of the published study, and its study's file."""
    config = yaml.safe_load((ROOT / "workflow/studies/digits.yaml").read_text()) | changed
    config["experiments"] = {experiment: config["experiments"][experiment]}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    for kept in (ROOT / "results/digits/published").glob(f"*/{experiment}*"):
        copy = folder / "digits/published" / kept.parent.name / kept.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(kept, copy)
    return path, folder / "digits/published"


@pytest.mark.slow
def test_a_rule_that_fails_ends_publishing_with_what_its_job_said(tmp_path):
    path, published = published_of_digits(tmp_path, "steps")
    image = published / "figures/steps.png"
    image.write_bytes(image.read_bytes()[:-9])
    told = f"could be made of what is kept in {published}: .*published/figures/steps.png is damaged or cut short"
    with pytest.raises(RecordError, match=told):
        publish(path, published.parent, ROOT / "Snakefile")
    image.unlink()  # as the sentence advises
    publish(path, published.parent, ROOT / "Snakefile")
    assert image.read_bytes() == (ROOT / "results/digits/published/figures/steps.png").read_bytes()


@pytest.mark.slow
def test_the_table_of_an_experiment_that_stays_is_of_the_epoch_of_its_study(tmp_path):
    epoch = 3
    path, published = published_of_digits(tmp_path, "results_table", validation_epoch=epoch)
    publish(path, published.parent, ROOT / "Snakefile")

    table = pd.read_csv(published / "tables/results_table.csv").set_index("label")
    assert set(table["validation_epoch"]) == {epoch}
    history = pd.read_csv(published / "tables/results_table_history.csv").merge(
        pd.read_csv(published / "tables/runs.csv"), on="run"
    )
    lost = set(history.loc[history["diverged"], "run"])  # which have no part in a mean
    plain = history[(history["grid"] == "sgd") & (history["epoch"] == epoch) & ~history["run"].isin(lost)]
    for rate, runs in plain.groupby("learning_rate"):
        measured = runs["validation_accuracy"].sum() / len(runs)
        assert table.loc[f"SGD({rate:g})", "validation_accuracy_mean"] == pytest.approx(measured, rel=1e-12)
    for name in ("results_table.md", "results_table.tex"):
        assert f"({epoch})" in (published / "tables" / name).read_text()


def test_the_jobs_of_a_study_are_those_of_its_runs_and_products(study):
    of_study = jobs(study)
    files = [str(path) for path in of_study.files(ROOT)]
    assert len(files) == len(set(files))
    expected = len(study.runs) + sum(len(study.parts(*measured)) for measured in study.measured)
    assert len([path for path in files if "/runs/" in path]) == expected
    assert str(ROOT / "benchmarks" / "figure-eigenvalues_peaks.csv") in files
    assert str(ROOT / "benchmarks" / "collect-nudged_history.csv") in files


def patient(config):
    config["defaults"]["stop_patience"] = 1


def test_runs_that_stopped_before_every_checkpoint_leave_a_table_with_no_rows(tmp_path, written):
    study = study_with(patient)
    experiment = study.experiments["first_layer"]
    folder = written(of=study)
    for table, asked in wanted(study, experiment, "spectrum"):
        lost = {**dict.fromkeys(required(columns_of("spectrum")), ""), "stopped": True}
        write_table(sized(rows_of(study.runs[asked.run], asked, **lost)[:1]), folder / table)
    path = collected(study, folder, "first_layer")
    assert read_rows(path, "spectrum") == []
    table = read(study, path)
    assert table.empty
    assert {"experiment", "grid", "run", "eigenvalue"} <= set(table)
    Publication(study).add_collected(experiment, "spectrum", path)
    # One that lost its rows is not such a table.
    path = collected(study, folder)
    without_its_rows(path)
    with pytest.raises(RecordError, match="is not whole"):
        read(study, path)
