"""Sanity of the published results: complete, finite or marked as diverged, ordered, and as exact as they say."""

import html
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sharpness.stages.publish import publish
from sharpness.stages.report import report
from sharpness.study.kinds import KINDS
from sharpness.study.paths import StudyFolder
from sharpness.study.plan import Study, study_of
from sharpness.study.published import Published
from sharpness.study.records import RecordError

ROOT = Path(__file__).parents[2]
PUBLISHED = sorted(ROOT.glob("results/*/published"))

# The claims that each study's runs are about, as its figures tell: a row that vanished would vanish from everything.
LISTED = {
    "digits": "abcdefghijklmnopst",
    "fashion_mnist_10000": "abcdeopqs",
    "fashion_mnist_exploring": "abcdefghijklmnopqrst",
    "fashion_mnist_resnet_exploring": "fklmnos",
}

each = pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.parent.name)


def study_at(folder: Path) -> Study:
    path = ROOT / "workflow" / "studies" / f"{folder.parent.name}.yaml"
    return study_of(yaml.safe_load(path.read_text()), source=path.name)


def published_of(study: Study, folder: Path) -> Published:
    return Published(study, StudyFolder(str(folder)))


def tables(folder: Path, measurement: str) -> dict[str, pd.DataFrame]:
    """The published tables of one measurement, by experiment: where single runs are kept, those of them."""
    study, found = study_at(folder), {}
    for name, experiment in study.experiments.items():
        path = folder / "tables" / f"{name}_{measurement}.csv"
        kept = sorted((folder / "runs" / name).glob("*/"))
        if path.exists():
            found[name] = pd.read_csv(path)
        elif kept and measurement in experiment.collected:
            files = [file for run in kept for file in study.tables(name, run.name, measurement)]
            found[name] = pd.concat(pd.read_csv(folder / "runs" / name / file) for file in files)
    return found


@each
def test_every_run_of_a_published_experiment_has_a_history_to_its_end_or_diverged(folder):
    study, histories = study_at(folder), tables(folder, "history")
    assert histories
    for name, table in histories.items():
        experiment = study.experiments[name]
        assert set(table["run"]) <= set(experiment.runs)
        assert (set(table["run"]) == set(experiment.runs)) == published_of(study, folder).has(experiment)
        for run, rows in table.groupby("run"):
            assert rows["diverged"].any() or rows["epoch"].max() == study.runs[run].epochs
            finite = rows.loc[~rows["diverged"]]
            assert np.isfinite(finite[["training_loss", "validation_accuracy"]]).all(axis=None)
            # The test set is looked at where its accuracy is reported: at the best and at the last epoch.
            best = finite.loc[finite["validation_accuracy"].idxmax()]
            assert np.isfinite(best["test_accuracy"])
            # The last finite state of a run that diverged has no row where the study does not evaluate that epoch.
            last = rows.loc[rows["diverged"], "epoch"].min() - 1 if rows["diverged"].any() else study.runs[run].epochs
            is_evaluated = last in (study.config["evaluation_epochs"] or range(study.runs[run].epochs + 1))
            assert np.isfinite(finite["test_accuracy"].iloc[-1]) or not is_evaluated


@each
def test_published_eigenvalues_are_ordered_and_as_exact_as_asked_for(folder):
    study = study_at(folder)
    for table in tables(folder, "spectrum").values():
        largest = table[(table["which"] == "largest") & table["eigenvalue"].notna()]
        keys = ["run", "settings", "checkpoint", "step"]
        values = largest.sort_values([*keys, "rank"]).groupby(keys)["eigenvalue"]
        assert (values.diff().dropna() <= 0).all()
        allowed = largest["settings"].map(lambda name: study.config["spectrum"][name]["tolerance"])
        assert (largest["residual"] <= allowed).mean() > 0.99
        assert (largest["residual"] <= 3 * allowed).all()


@each
def test_every_planned_checkpoint_of_a_published_spectrum_was_measured(folder):
    study = study_at(folder)
    for name, table in tables(folder, "spectrum").items():
        lost = set(table.loc[table["diverged"], "run"])
        for (run, settings), rows in table[~table["run"].isin(lost)].groupby(["run", "settings"]):
            planned = {step for steps in study.parts(run, "spectrum", settings).values() for step in steps}
            assert planned <= set(rows["step"]), name


@each
def test_the_whole_frobenius_norm_is_that_of_the_leading_eigenvalues_and_a_rest(folder):
    for name in study_at(folder).experiments:
        path = folder / "tables" / f"{name}.csv"
        table = pd.read_csv(path) if path.exists() else pd.DataFrame()
        for end in ("best", "last"):
            if f"whole_frobenius_{end}_mean" in table:
                leading, whole = table[f"frobenius_{end}_mean"], table[f"whole_frobenius_{end}_mean"]
                error = table[f"whole_frobenius_{end}_error"]
                assert (leading[whole.notna()] <= (whole + 2 * error)[whole.notna()]).all()


@each
def test_every_published_figure_is_there_for_screen_and_print(folder):
    figures = folder / "figures"
    study = study_at(folder)
    names = {name for name, (_, experiment) in study.figures.items() if published_of(study, folder).has(experiment)}
    assert {path.stem for path in figures.glob("*.png")} == {path.stem for path in figures.glob("*.pdf")} == names


@each
def test_claims_have_verdicts_once_every_experiment_is_published_and_those_without_data_are_not_listed(folder):
    study, path = study_at(folder), folder / "tables" / "claims.csv"
    missing = [
        name for name, experiment in study.experiments.items() if not published_of(study, folder).has(experiment)
    ]
    assert path.exists() == (not missing), missing
    if missing:
        return
    claims = pd.read_csv(path)
    assert set(claims["claim"]) == set(LISTED[folder.parent.name])
    assert set(claims["claim"]) <= {letter for each in study.experiments.values() for letter in KINDS[each.kind].claims}
    assert ((claims["seeds"] > 0) | (claims["diverged"] > 0)).all()
    assert set(claims["verdict"]) <= {"holds", "does not hold", "undecided"}
    undecided = claims["verdict"] == "undecided"
    assert claims.loc[undecided, "would_decide"].notna().all()


@pytest.mark.slow
@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.parent.name)
def test_what_stays_is_published_again_without_a_change_and_with_the_verdicts_of_its_tables(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / folder.parent.name / "published")
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file() and path.name != "report.html"}
    for path in copied.glob("tables/claims.*"):
        path.unlink()
    publish(ROOT / "workflow/studies" / f"{folder.parent.name}.yaml", copied.parent, ROOT / "Snakefile")
    after = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file() and path.name != "report.html"}
    assert after == before


def verdicts_in(folder: Path) -> list[tuple[str, str, str]]:
    """Claim, verdict and deciding test of every claim that has one, as the table for computing has them."""
    table = pd.read_csv(folder / "tables" / "claims.csv", dtype=str, keep_default_na=False)
    return [(row["claim"], row["verdict"], row["test"]) for row in table.to_dict("records")]


DECIDED = [folder for folder in PUBLISHED if (folder / "tables" / "claims.csv").exists()]


@pytest.mark.slow
@pytest.mark.parametrize("folder", DECIDED, ids=lambda folder: folder.parent.name)
def test_verdicts_and_their_tests_are_the_same_wherever_they_are_read(folder, tmp_path):
    expected = verdicts_in(folder)
    text = (folder / "tables" / "claims.md").read_text()
    cells = [line.split(" | ") for line in text.splitlines() if re.match(r"\| [a-t] \|", line)]
    assert [(cell[0].strip("| "), cell[1].strip("*"), cell[2]) for cell in cells] == expected

    study, page = study_at(folder), tmp_path / "report.html"
    report([folder], ROOT / "workflow/report", ROOT / "CITATION.cff", page, rules=ROOT / "docs/claims.md")
    rows = re.findall(r'<tr id="claim-\d+"[^>]*>(.*?)</tr>', page.read_text(), flags=re.DOTALL)
    shown = []
    for row in rows:
        (claim,) = re.findall(r'href="#rule-(\w)"', row)
        (verdict,) = re.findall(r'<span class="verdict">.*</span>([a-z ]+)</span>', row)
        told = re.findall(r"<dt>Decided by</dt><dd>(.*?)</dd>", row)
        shown.append((claim, verdict, html.unescape(told[0]) if told else ""))
    assert sorted(shown) == sorted(expected)
    # Beside each figure, those that it bears on.
    chips = re.findall(r'<a href="#claim-\d+">([a-z ]+): ', page.read_text().partition('id="figures"')[2])
    assert set(chips) <= {verdict for _, verdict, _ in expected}
    assert len(chips) > 0 or not study.figures


@pytest.mark.parametrize("folder", DECIDED, ids=lambda folder: folder.parent.name)
def test_a_table_of_verdicts_that_was_cut_short_is_not_reported(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / folder.parent.name / "published")
    table = pd.read_csv(copied / "tables" / "claims.csv", dtype=str, keep_default_na=False)
    table.iloc[:-1].to_csv(copied / "tables" / "claims.csv", index=False)
    with pytest.raises(RecordError, match=r"claims\.csv has other verdicts than .*claims\.md: remove both"):
        report([copied], ROOT / "workflow/report", ROOT / "CITATION.cff", tmp_path / "report.html")


def test_a_table_of_runs_that_was_edited_is_not_reported(tmp_path):
    copied = shutil.copytree(ROOT / "results" / "digits" / "published", tmp_path / "digits" / "published")
    path = copied / "tables" / "runs.csv"
    whole = path.read_text()
    for text, reason in (
        (whole.replace(",0.05,", ",0.07,", 1), "has the learning_rate 0.07 for the run "),
        ("".join(whole.splitlines(keepends=True)[:-1]), "lacks the run "),
    ):
        path.write_text(text)
        with pytest.raises(RecordError, match=rf"runs\.csv {reason}.*: remove it, and it is made anew"):
            report([copied], ROOT / "workflow/report", ROOT / "CITATION.cff", tmp_path / "report.html")
