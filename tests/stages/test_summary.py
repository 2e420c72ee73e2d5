"""What the terminal says of a study that is done."""

import csv
from pathlib import Path

import pytest

from sharpness.analysis.claims.deciding import decided_by
from sharpness.analysis.claims.poster import IN_SHORT
from sharpness.stages.summary import WIDTH, summary

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["digits", "fashion_mnist_exploring"])
def test_every_verdict_is_told_whole_with_its_test_and_whether_it_is_confirmed(name, capsys):
    folder = ROOT / "results" / name / "published"
    summary(ROOT / "workflow" / "studies" / f"{name}.yaml", folder)
    lines = capsys.readouterr().out.partition("The poster's claims\n")[2].partition("\nMore: ")[0].splitlines()

    assert max(map(len, lines)) <= WIDTH
    assert lines.pop() == "* by the seeds that suggested the rules: not confirmed"
    told = " ".join(line.strip() if line[0] == " " else f"\n{line}" for line in lines).split("\n")[1:]
    with (folder / "tables" / "claims.csv").open() as file:
        rows = list(csv.DictReader(file))
    for line, row in zip(told, rows, strict=True):
        assert line.startswith(f"{row['claim']}  {row['verdict']} *  ")
        assert IN_SHORT[row["claim"]] in line
        assert line.rstrip().endswith(f"({decided_by(row)})" if decided_by(row) else IN_SHORT[row["claim"]])


def test_a_test_that_rejects_beside_an_undecided_verdict_says_on_which_images():
    with (ROOT / "results/digits/published/tables/claims.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["verdict"] == "undecided" and row["p"]]
    rejected = [row for row in rows if float(row["p"]) < 0.05]

    assert {row["claim"] for row in rejected} == {"a", "e"}
    assert all(decided_by(row).endswith(", on the measured images alone") for row in rejected)
    assert not any("images" in decided_by(row) for row in rows if row not in rejected)
