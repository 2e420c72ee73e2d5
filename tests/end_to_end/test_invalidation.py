"""Only what changed runs again: an edit in a project whose small study has run, and the jobs that a dry run names."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import SMALL, planned_jobs, run_study, snakemake

from benchmarks.project import PROJECT, ROOT, copy_project
from sharpness.study.plan import KINDS, MEASUREMENTS

pytestmark = pytest.mark.slow


@pytest.fixture
def project(finished: Path) -> Iterator[Path]:
    """The project with its results; its own files are put back afterwards."""
    yield finished
    for name in PROJECT:
        if (finished / name).is_dir():
            shutil.rmtree(finished / name)
        else:
            (finished / name).unlink()
    copy_project(finished)


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What a clone without results plans."""
    return planned_jobs(copy_project(tmp_path_factory.mktemp("clone")))


# After the name of a rule: all of its jobs, as in a clone.
ALL = -1
FIGURES = tuple(f"figure_{function}" for kind in KINDS.values() for function in kind.figures)
LAST = {"claims": 1, "report": 1}
AFTER_TRAINING = {**dict.fromkeys(("collect", "agreement", "results_table", *MEASUREMENTS, *FIGURES), ALL), **LAST}


def after_measuring(name: str) -> dict[str, int]:
    """What runs where one measurement is made anew: what is drawn from it, and the experiments' tables of it."""
    kinds = [kind for kind in KINDS.values() if name in kind.measurements]
    figures = [f"figure_{function}" for kind in kinds for function in kind.figures]
    tables = [rule for rule, kind in (("agreement", "agreement"), ("results_table", "table")) if KINDS[kind] in kinds]
    measured = sum(
        name in experiment["measure"] for experiment in yaml.safe_load(SMALL.read_text())["experiments"].values()
    )
    return {**dict.fromkeys([name, *figures, *tables], ALL), "collect": measured, **LAST}


def expected_jobs(jobs: dict[str, int], everything: dict[str, int]) -> dict[str, int]:
    return {rule: everything[rule] if count == ALL else count for rule, count in jobs.items()}


# Edits of the study


def more_learning_rates(study: dict[str, Any]) -> None:
    study["experiments"]["eigenvalues"]["grids"]["learning_rate"][0]["learning_rate"].append(0.2)


def more_eigenvalues(study: dict[str, Any]) -> None:
    study["spectrum"]["more"]["num_eigenvalues"] = 5


def a_finer_slice(study: dict[str, Any]) -> None:
    study["slices"]["top"]["scales"] = [-2, -1, -0.5, 0, 0.5, 1, 2]


def more_seeds(study: dict[str, Any]) -> None:
    study["experiments"]["steps"]["grids"]["run"][0]["seed"] = [0, 7]


def longer_runs(study: dict[str, Any]) -> None:
    study["defaults"]["epochs"] = 3


def evaluations_after_some_epochs(study: dict[str, Any]) -> None:
    study["evaluation_epochs"] = [1, 2]


def other_seconds_between_saves(study: dict[str, Any]) -> None:
    study["state_seconds"] = 30
    study["tensorboard"] = True


EDITS_OF_THE_STUDY: dict[str, tuple[Callable[[dict[str, Any]], None], dict[str, int]]] = {
    "a new learning rate trains that run": (
        more_learning_rates,
        {"runs": 1, "train": 1, "spectrum": 2, "collect": 2, "figure_eigenvalues": 1, "figure_peaks": 1, **LAST},
    ),
    "more eigenvalues measure spectra, without training": (
        more_eigenvalues,
        {"spectrum": 2, "collect": 1, "figure_spectrum": 1, **LAST},
    ),
    "another grid of slices measures slices": (
        a_finer_slice,
        # Of the two runs, in two parts each; for two experiments.
        {"slices": 4, "collect": 2, "figure_slices": 1, "figure_schematic": 1, "figure_widths": 1, **LAST},
    ),
    "a new seed trains that run": (
        more_seeds,
        {"runs": 1, "train": 1, "steps": 2, "collect": 2, "figure_steps": 1, **LAST},
    ),
    "more epochs are longer runs": (longer_runs, {"runs": 1, "train": ALL, **AFTER_TRAINING}),
    "other epochs that are evaluated train anew": (
        evaluations_after_some_epochs,
        {"train": ALL, **AFTER_TRAINING},
    ),
    "settings that change no result: the report, which shows them": (other_seconds_between_saves, {"report": 1}),
}


@pytest.mark.parametrize("name", EDITS_OF_THE_STUDY)
def test_an_edit_of_the_study_runs_what_depends_on_it(project, everything, name):
    change, jobs = EDITS_OF_THE_STUDY[name]
    study = yaml.safe_load(SMALL.read_text())
    change(study)
    (project / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    planned = planned_jobs(project, study=project / "study.yaml")
    assert planned == expected_jobs(jobs | {"effective_study": 1}, everything)


def test_a_comment_and_blank_lines_in_the_study_compute_nothing(project):
    text = SMALL.read_text().replace("\ndefaults:\n", "\n\n# The run that all grids vary.\n\ndefaults:\n")
    text = text.replace("learning_rate: 0.05", "learning_rate: 0.050 # as ever")
    assert text.count("as ever") == text.count("all grids vary") == 1
    (project / "study.yaml").write_text(text)
    # The report names the study's file, here another one.
    assert planned_jobs(project, study=project / "study.yaml") == {"report": 1}


# Edits of the code


EDITS_OF_THE_CODE: dict[str, tuple[str, dict[str, int]]] = {
    "a figure's function draws that figure": ("analysis/figures/steps.py", {"figure_steps": 1, "report": 1}),
    "the engine measures curvature and trains what is nudged": (
        "eigen/lanczos.py",
        # Two grids of two have one run each with a gamma other than one; of plain SGD no run.
        {
            "train": 2,
            **dict.fromkeys(MEASUREMENTS, ALL),
            **dict.fromkeys(FIGURES, ALL),
            **{"agreement": ALL, "results_table": ALL, "collect": ALL},
            **LAST,
        },
    ),
    **{
        f"the module of {name} measures that alone": (f"measurements/{name}.py", after_measuring(name))
        for name in MEASUREMENTS
    },
    "the list of all measurements: the report, which reads the plan": ("study/registry.py", {"report": 1}),
    "the training trains": ("training/loop.py", {"train": ALL, **AFTER_TRAINING}),
    "the data set as tensors: training and all after it": ("data/datasets.py", {"train": ALL, **AFTER_TRAINING}),
    "the original files: everything": ("data/originals.py", {"prepare_data": 1, "train": ALL, **AFTER_TRAINING}),
    "the table's rules make the table": ("analysis/results_markup.py", {"results_table": 1, "report": 1}),
    "the claims' rules decide them": ("analysis/claims/peaks.py", LAST),
}


@pytest.mark.parametrize("name", EDITS_OF_THE_CODE)
def test_an_edit_of_the_code_runs_what_depends_on_it(project, everything, name):
    source, jobs = EDITS_OF_THE_CODE[name]
    path = project / "src" / "sharpness" / source
    path.write_text(path.read_text() + "\n# Edited.\n")
    planned = planned_jobs(project)
    wanted = expected_jobs(jobs, everything)
    if source == "eigen/lanczos.py":
        # Histories of plain SGD are collected as they were.
        assert planned.pop("collect") < wanted.pop("collect")
    assert planned == wanted


def test_touching_every_file_runs_nothing(project):
    for name in PROJECT:
        for path in [project / name, *(project / name).rglob("*")]:
            path.touch()
    assert planned_jobs(project) == {}


def test_another_commit_and_back_runs_nothing(project):
    def git(*words: str) -> None:
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=main")
        subprocess.run(["git", *identity, *words], cwd=project, check=True, capture_output=True)

    (project / ".gitignore").write_text("results/\n.snakemake/\n__pycache__/\n")
    git("init")
    git("add", "--all")
    git("commit", "--message", "one")
    for path in (project / "src" / "sharpness").rglob("*.py"):
        path.write_text(path.read_text() + "\n# Edited.\n")
    git("commit", "--all", "--message", "another")
    assert planned_jobs(project)
    git("checkout", "HEAD~1")
    try:
        assert planned_jobs(project) == {}
    finally:
        shutil.rmtree(project / ".git")


def test_a_project_that_is_moved_with_its_results_has_nothing_to_do(project, tmp_path):
    moved = shutil.copytree(project, tmp_path / "elsewhere", symlinks=True)
    assert planned_jobs(moved) == {}


def test_another_torch_runs_everything_and_says_so(project, everything, tmp_path):
    # What the environment says of itself, before it is asked for anything.
    information = tmp_path / "torch-9.9.9.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9.9\n")
    planned = ("runs", "effective_study")  # by the plan alone
    computed = {rule: count for rule, count in everything.items() if rule not in planned}
    assert planned_jobs(project, PYTHONPATH=str(tmp_path)) == computed
    said = snakemake(project, "-n", "--configfile", str(SMALL), PYTHONPATH=str(tmp_path)).stdout
    assert "torch 9.9.9" in said


def test_after_an_edit_that_moves_no_number_results_can_be_kept(project, tmp_path):
    # A copy: its results are of the edited code from then on.
    kept = shutil.copytree(project, tmp_path / "kept", symlinks=True)
    results = sorted((kept / "results" / "small").rglob("*.csv"))
    before = [path.read_bytes() for path in results]
    path = kept / "src" / "sharpness" / "eigen/lanczos.py"
    unedited = path.read_text()
    path.write_text(unedited + "\n# A comment.\n")
    edited = planned_jobs(kept)
    assert edited

    touched = snakemake(kept, "--touch", "--cores", "1", "--configfile", str(SMALL))

    assert touched.returncode == 0, touched.stderr[-3000:]
    assert planned_jobs(kept) == {}
    assert [path.read_bytes() for path in results] == before
    path.write_text(unedited)
    assert planned_jobs(kept) == edited


# Results that cannot be what they seem


@pytest.fixture
def unrecorded(project, tmp_path):
    """The project with its results, of which Snakemake has lost all records."""
    copied = shutil.copytree(project, tmp_path / "unrecorded", symlinks=True)
    shutil.rmtree(copied / ".snakemake")
    # Without records Snakemake goes by time stamps: none tells of an edit, whatever the tests before have put back.
    made = time.time() - 60
    for path in copied.rglob("*"):
        if path.is_file() and not path.is_symlink():
            is_result = copied / "results" in path.parents
            os.utime(path, (made, made if is_result else made - 60))
    return copied


def test_results_without_a_record_that_are_of_the_study_and_its_code_stay(unrecorded):
    assert planned_jobs(unrecorded) == {}


def test_results_without_a_record_that_are_of_other_settings_are_refused_by_name(unrecorded):
    study = yaml.safe_load(SMALL.read_text())
    more_eigenvalues(study)
    (unrecorded / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    done = snakemake(unrecorded, "-n", "--configfile", "study.yaml")
    assert done.returncode == 1
    assert "more-0.csv was measured with other settings than the study's spectrum.more" in done.stderr
    assert "Traceback" not in done.stderr


def test_tables_and_verdicts_without_a_record_that_are_of_another_epoch_are_refused_by_name(unrecorded):
    study = yaml.safe_load(SMALL.read_text()) | {"validation_epoch": 2}
    (unrecorded / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    tables = unrecorded / "results/small/tables"
    told = {
        "results_table.csv": "is of the validation_epoch 1, the study's is 2",
        "claims.csv": "is of other experiments, runs or settings than the study's",
    }
    for name, words in told.items():
        done = snakemake(unrecorded, "-n", "--configfile", "study.yaml")
        assert done.returncode == 1
        assert f"results/small/tables/{name} {words}" in done.stderr
        assert "Traceback" not in done.stderr
        (tables / name).unlink()
    done = snakemake(unrecorded, "-n", "--configfile", "study.yaml")
    assert "results/small/study.yaml is not the study as it stands" in done.stderr
    (unrecorded / "results/small/study.yaml").unlink()
    planned = {"results_table": 1, "claims": 1, "report": 1, "effective_study": 1}
    assert planned_jobs(unrecorded, study=Path("study.yaml")) == planned


def test_results_without_a_record_that_are_of_other_code_are_refused_by_name(unrecorded):
    path = unrecorded / "src" / "sharpness" / "measurements" / "steps.py"
    before = path.stat()
    path.write_text(path.read_text() + "\n# Edited.\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = snakemake(unrecorded, "-n", "--configfile", str(SMALL))
    assert done.returncode == 1
    assert "scaled-0.csv was computed with the code of the stage steps" in done.stderr


def test_a_table_that_lost_its_rows_ends_the_study_by_its_name(project, tmp_path):
    copied = shutil.copytree(project, tmp_path / "shortened", symlinks=True)
    path = next((copied / "results/small/runs").glob("*/steps/scaled-0.csv"))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-4]))
    done = snakemake(copied, "--cores", "1", "--show-failed-logs", "--configfile", str(SMALL))
    assert done.returncode == 1
    assert f"{path.relative_to(copied)} is not whole" in done.stderr


# Results that are not there


def test_a_clone_plans_everything_beside_published_tables_and_figures(project, everything, tmp_path):
    clone = copy_project(tmp_path / "clone")
    for kind in ("tables", "figures"):
        shutil.copytree(project / "results" / "small" / kind, clone / "results" / "small" / "published" / kind)
    published = {path: path.read_bytes() for path in (clone / "results").rglob("*") if path.is_file()}

    assert planned_jobs(clone) == everything

    # Nor does a run that begins delete them.
    snakemake(clone, "--cores", "1", "results/data/digits.safetensors", "--configfile", str(SMALL))
    assert all(path.read_bytes() == content for path, content in published.items())


DELETED = {
    "figures/steps.png": {"figure_steps": 1, "report": 1},
    "tables/steps_steps.csv": {"collect": 1, "figure_steps": 1, **LAST},
    "report.html": {"report": 1},
}


@pytest.mark.parametrize("name", DELETED)
def test_a_deleted_output_is_made_again(project, name):
    path = project / "results" / "small" / name
    content, times = path.read_bytes(), path.stat()
    path.unlink()
    try:
        assert planned_jobs(project) == DELETED[name]
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_deleted_table_of_runs_trains_measures_and_draws_nothing(project):
    path = project / "results" / "small" / "tables" / "runs.csv"
    content, times = path.read_bytes(), path.stat()
    path.unlink()
    try:
        planned = planned_jobs(project)
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert planned == {"runs": 1, **LAST}


def test_a_run_that_is_added_hides_no_other_change(project):
    """The table of runs is made anew: of what takes none of the new run, its own reasons count all the same."""
    study = yaml.safe_load(SMALL.read_text())
    more_seeds(study)
    study["validation_epoch"] = 2
    assert SMALL.read_text().count("validation_epoch: 1") == 1
    (project / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    with (project / "src/sharpness/analysis/figures/widths.py").open("a") as drawing:
        drawing.write("\n# Edited.\n")
    jobs = EDITS_OF_THE_STUDY["a new seed trains that run"][1]
    planned = planned_jobs(project, study=project / "study.yaml")
    assert planned == jobs | {"effective_study": 1, "results_table": 1, "figure_widths": 1}


def test_the_cost_of_a_job_is_an_output_of_its_rule_without_which_nothing_is_made_anew(project):
    costs = {path: path.read_bytes() for path in (project / "results").rglob("benchmarks/*.csv")}
    assert len(costs) == len(list((project / "results").rglob("logs/*.log")))
    told = snakemake(project, "-n", "--delete-all-output", "--configfile", str(SMALL))
    outputs = told.stdout + told.stderr
    assert all(str(path.relative_to(project)) in outputs for path in costs)
    for path in costs:
        path.unlink()
    try:
        assert planned_jobs(project) == {}
    finally:
        for path, content in costs.items():
            path.write_bytes(content)


def test_a_measurement_that_failed_is_missed_by_the_study_and_by_its_figure(project, tmp_path):
    broken = shutil.copytree(project, tmp_path / "broken", symlinks=True)
    path = broken / "src" / "sharpness" / "measurements" / "steps.py"
    working = path.read_text()
    path.write_text(
        working.replace("        weights, buffers,", "        raise RuntimeError\n        weights, buffers,")
    )
    failed = snakemake(broken, "--cores", "2", "--configfile", str(SMALL))
    assert failed.returncode == 1
    assert (broken / "results" / "small" / "figures" / "steps.pdf").exists()

    path.write_text(working)  # also back at the code that made the figure

    jobs = {"steps": 2, "collect": 1, "figure_steps": 1}
    assert planned_jobs(broken) == {**jobs, **LAST}
    assert planned_jobs(broken, "results/small/figures/steps.pdf") == jobs


def test_the_copy_has_all_that_a_study_needs(tmp_path):
    assert set(PROJECT) <= {path.name for path in ROOT.iterdir()}
    assert run_study(copy_project(tmp_path / "alone"), "results/data/digits.safetensors")


def leading(**settings: Any) -> dict[str, Any]:
    """The small study's experiments of one run: a spectrum, which may keep eigenvectors, and what may take them."""
    study = yaml.safe_load(SMALL.read_text())
    kinds = ("slices", "steps", "gradients", "density", "variants")
    study["experiments"] = {kind: study["experiments"][kind] for kind in kinds}
    study["experiments"]["eigenvalues"] = {"kind": "eigenvalues", "grids": {"learning_rate": [{"seed": 0}]}}
    study["experiments"]["eigenvalues"]["measure"] = {"spectrum": ["leading"]}
    study["experiments"]["gradients"]["grids"] = {"learning_rate": [{"seed": 0}]}
    study["spectrum"]["leading"] |= settings
    return study


def test_kept_eigenvectors_are_found_once_and_renewed_with_all_that_took_them(tmp_path):
    project, file = copy_project(tmp_path / "project"), tmp_path / "study.yaml"

    def planned(**settings: Any) -> dict[str, int]:
        file.write_text(yaml.safe_dump(leading(**settings), sort_keys=False))
        jobs = planned_jobs(project, study=file)
        return {rule: count for rule, count in jobs.items() if rule.partition("_with")[0] in ("train", *MEASUREMENTS)}

    file.write_text(yaml.safe_dump(leading(keep_vectors=True), sort_keys=False))
    done = snakemake(project, "--cores", "2", "--show-failed-logs", "--configfile", str(file))
    assert done.returncode == 0, done.stderr[-5000:]
    assert planned_jobs(project, study=file) == {}
    (folder,) = (project / "results" / "small" / "runs").iterdir()
    steps = {path.stem for path in folder.glob("spectrum/leading-*-vectors/*.safetensors")}
    slices, spectra = (
        [*csv.DictReader((project / "results/small/tables" / f"{name}.csv").read_text().splitlines())]
        for name in ("slices_slices", "eigenvalues_spectrum")
    )
    assert steps == {row["step"] for row in slices}
    # The very same pairs, to the last digit.
    told = {row["step"]: row["eigenvalue"] for row in spectra if (row["which"], row["rank"]) == ("largest", "0")}
    assert {row["step"]: row["eigenvalue"] for row in slices} == told

    # Two parts of each, and one of those that start from one checkpoint.
    takers = {"slices": 2, "steps": 2, "gradients": 2, "density": 1, "variants": 4}
    kept = {"keep_vectors": True}
    assert planned(**kept, probe_products=4) == {"spectrum_with_vectors": 2, **takers}
    assert planned(**kept, num_eigenvalues=1) == {"spectrum_with_vectors": 2, **takers}
    assert planned(**kept, num_examples=17) == {"spectrum_with_vectors": 2, **takers}
    assert planned() == {"spectrum": 2, **takers}
    scales = leading(**kept)
    scales["slices"]["top"]["scales"] = [-1, 0, 1]
    file.write_text(yaml.safe_dump(scales, sort_keys=False))
    assert "spectrum_with_vectors" not in (jobs := planned_jobs(project, study=file))
    assert jobs["slices"] == 2
    # A file that is lost is made again, and nothing trains.
    file.write_text(yaml.safe_dump(leading(**kept), sort_keys=False))
    shutil.rmtree(next(folder.glob("spectrum/leading-0-vectors")))
    assert "train" not in (jobs := planned_jobs(project, study=file))
    assert jobs["spectrum_with_vectors"] == 1
