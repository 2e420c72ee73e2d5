"""The examples, at a small size: each trains, is measured and drawn."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from running import snakemake

from benchmarks.project import ROOT

pytestmark = pytest.mark.slow

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
# Of each study, what makes it small; and a figure of it.
SMALL = {
    "edge_of_stability": (
        ["defaults={num_training: 200, epochs: 2, model_args: {width: 8}}", "evaluation_epochs=[1, 2]"],
        "spectrum={default: {num_examples: 50}}",
        "sharpness",
    ),
    "vit": (
        ["defaults={num_training: 200, epochs: 1, model_args: {width: 8}}"],
        "spectrum={default: {num_examples: 20, num_eigenvalues: 2, checkpoints: switch}}",
        "transformer",
    ),
    "gpt": (
        ["defaults={num_training: 130, epochs: 1, model_args: {width: 8, depth: 1}}"],
        "spectrum={default: {num_examples: 20, num_eigenvalues: 2, checkpoints: switch}}",
        "text",
    ),
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_at_most_twenty_five_lines(path):
    assert len(path.read_text().splitlines()) <= 25


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_an_example_runs(tmp_path: Path, name):
    whole, measured, figure = SMALL[name]
    target = f"results/{name}/figures/{figure}.png"
    done = snakemake(
        tmp_path, target, "--cores", "2", "--show-failed-logs",
        "--configfile", str(ROOT / "examples" / f"{name}.yaml"), "--config", *whole, measured,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / target).stat().st_size > 1000
    spectrum = pd.read_csv(tmp_path / "results" / name / "tables" / f"{figure}_spectrum.csv")
    assert spectrum.loc[spectrum["which"] == "largest", "residual"].max() <= 0.01
    assert spectrum["complete"].all()
    assert spectrum["own_code"].nunique() == 1
    assert set(spectrum.get("preconditioner", [None])) == {"optimizer" if name == "gpt" else None}
