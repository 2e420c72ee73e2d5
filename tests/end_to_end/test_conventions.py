"""What Snakemake offers every workflow: its use in another one, its own report, the graph of its rules."""

import re
import zipfile
from pathlib import Path

import pytest
import yaml
from running import SMALL, snakemake

from benchmarks.project import ROOT

PAGE = (ROOT / "docs" / "workflow.md").read_text()
STUDY = """\
sharpness:
  study: mine
  defaults: { data: digits, num_training: 200, epochs: 1 }
  experiments: { rates: { kind: eigenvalues, grids: { learning_rate: [{ learning_rate: 0.1 }] } } }
"""


def test_another_workflow_takes_the_rules_as_the_page_says(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "Snakefile").write_text(
        'configfile: "config.yaml"\n\n' + code.replace("/path/to/sharpness", str(ROOT)), encoding="utf-8"
    )
    (tmp_path / "config.yaml").write_text(STUDY, encoding="utf-8")

    done = snakemake(tmp_path, "-n", "summary.txt")

    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, flags=re.MULTILINE))
    rules = ("sharpness_prepare_data", "sharpness_train", "sharpness_spectrum", "sharpness_collect", "my_summary")
    assert counts == {**dict.fromkeys(rules, "1"), "total": "5"}


@pytest.mark.slow
def test_snakemakes_report_has_the_figures_and_tables_with_their_captions(finished):
    done = snakemake(finished, "--configfile", str(SMALL), "--report", "report.zip")

    assert done.returncode == 0, done.stderr[-3000:]
    with zipfile.ZipFile(finished / "report.zip") as archive:
        names = {Path(name).name for name in archive.namelist()}
        page = archive.read("report/report.html").decode()
    figures = {path.name for path in (finished / "results" / "small" / "figures").glob("*.png")}
    assert figures | {"claims.csv"} <= names
    assert "Solid, the largest eigenvalue of the Hessian" in page


def test_the_picture_of_the_rules_is_that_of_the_demo(tmp_path):
    demo = ROOT / "workflow" / "studies" / "digits.yaml"
    graph = snakemake(tmp_path, "--rulegraph", "--configfile", str(demo)).stdout
    rules = set(re.findall(r'label = "(\w+)"', graph))
    drawn = set(re.findall(r"<text[^>]*>(\w+)</text>", (ROOT / "docs" / "rulegraph.svg").read_text()))

    assert len(rules) > 15
    assert drawn == rules, "draw it: snakemake --rulegraph --configfile workflow/studies/digits.yaml | dot -Tsvg"


def test_the_catalogue_names_a_study_that_there_is():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    option, study = usage["mandatory-flags"]["flags"].split()

    assert option == "--configfile"
    assert (ROOT / study).is_file()
    assert usage["report"]
