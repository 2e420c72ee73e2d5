"""What Snakemake offers every workflow: its use in another one, its own report, the graph of its rules."""

import os
import re
import zipfile
from pathlib import Path

import pytest
import yaml
from running import SMALL, environment, snakemake

from benchmarks.project import ROOT

PAGE = (ROOT / "docs" / "workflow.md").read_text()
STUDY = """\
sharpness:
  study: mine
  defaults: { data: digits, num_training: 200, epochs: 1 }
  experiments: { rates: { kind: eigenvalues, grids: { learning_rate: [{ learning_rate: 0.1 }] } } }
"""

# Hides what Snakemake and its plugin for Slurm do not bring along; jobs, which set PYTHONPATH, do not see it.
HIDING = """\
import importlib.metadata
import sys

HIDDEN = {"torch", "torchvision", "matplotlib", "safetensors", "sklearn", "scipy", "plotly", "tyro"}
distribution = importlib.metadata.distribution


class Hider:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def not_hidden(name):
    if name in HIDDEN:
        raise importlib.metadata.PackageNotFoundError(name)
    return distribution(name)


sys.meta_path.insert(0, Hider())
importlib.metadata.distribution = not_hidden
"""
# In place of conda: what Snakemake asks of it, and an environment that is this one.
CONDA = """\
#!/bin/bash
case "$*" in
--version) echo "conda 24.9.2" ;;
"info --json") echo '{"conda_prefix": "FOLDER", "platform": "linux-64"}' ;;
"config --get"*) echo '{"get": {"channel_priority": "strict"}}' ;;
"env create"*) mkdir -p "${!#}" && echo "$@" >> FOLDER/created ;;
esac
"""


@pytest.mark.slow
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
def test_with_conda_only_snakemake_itself_needs_to_be_installed(tmp_path):
    files = {"hiding/sitecustomize.py": HIDING, "bin/conda": CONDA, "bin/activate": "export ACTIVATED=$1\n"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace("FOLDER", str(tmp_path)), encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(yaml.safe_load(STUDY)["sharpness"]), encoding="utf-8")
    path = f"{tmp_path / 'bin'}{os.pathsep}{environment()['PATH']}"

    done = snakemake(
        *(tmp_path, "--sdm", "conda", "--cores", "1", "--configfile", "mine.yaml", "--until", "train"),
        PATH=path,
        PYTHONPATH=str(tmp_path / "hiding"),
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert [*tmp_path.glob("results/mine/runs/*/history.csv")]
    assert len((tmp_path / "created").read_text().splitlines()) == 1  # all rules share it


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


@pytest.mark.slow
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
