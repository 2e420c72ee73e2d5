"""Several studies in one page, by the command."""

import shutil
from pathlib import Path

import pytest

from sharpness.command import commands

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the demo and another study as they are published."""
    for study in ("digits", "fashion_mnist_10000"):
        shutil.copytree(ROOT / f"results/{study}/published", tmp_path / f"results/{study}/published")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_finished_and_published_studies_stand_in_one_page(here):
    found = [commands._finished(study) for study in ("digits", "fashion_mnist_10000")]
    assert [folder for folder, _ in found] == [
        Path("results/digits/published"),
        Path("results/fashion_mnist_10000/published"),
    ]

    page = commands._together(found)

    assert page == Path("results/report.html")
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) <= 10_000_000
    assert 'href="digits/published/tables/claims.csv"' in text
    assert 'href="fashion_mnist_10000/published/figures/widths.pdf"' in text
    for link in ("digits/published/study.yaml", "fashion_mnist_10000/published/tables/runs.csv"):
        assert f'href="{link}"' in text
        assert (page.parent / link).exists()


def test_a_study_without_verdicts_is_named_before_anything_runs(here):
    with pytest.raises(ValueError, match=f"there are no verdicts in {here}/results/precision yet; run the study first"):
        commands._finished("precision")


def test_what_is_published_of_a_study_is_shown_where_it_was_not_run(here, capsys):
    commands.show("digits")

    told = capsys.readouterr().out
    assert told.startswith("This study has not been completed here; these are its published results.\n")
    for name in ("tables/claims.md", "figures/steps.pdf"):
        assert f"results/digits/published/{name}" in told
    assert "ResNet-8, digits, mean ± standard deviation over 2 seeds" in told
    assert "CPU seconds" not in told  # what jobs cost is not published
