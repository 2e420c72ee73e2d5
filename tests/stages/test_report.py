"""What the report reads is whole, or refused by its name."""

from pathlib import Path

import pandas as pd
import pytest

from sharpness.report.own import image_in
from sharpness.report.page import caption_of
from sharpness.stages import report as stage
from sharpness.study.records import RecordError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("content", [b"", b"# title", b"\xff\xfe", b"text\n\nmore"])
def test_a_caption(tmp_path, content):
    path = tmp_path / "slices.md"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=f"{path} is damaged"):
        stage._read(path, caption_of)


@pytest.mark.parametrize("content", ["", "title: [", "title: a", "- 1"])
def test_the_citation(tmp_path, content):
    path = tmp_path / "CITATION.cff"
    path.write_text(content)
    with pytest.raises(RecordError, match=f"{path} is damaged"):
        stage._read(path, stage._citation)


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.99])
def test_a_picture(tmp_path, part):
    whole = next(iter((ROOT / "results/digits/published/figures").glob("*.png"))).read_bytes()
    path = tmp_path / "slices.png"
    path.write_bytes(whole)
    assert image_in(path) == whole
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(RecordError, match=f"{path} is damaged or cut short"):
        image_in(path)


def test_the_verdicts(tmp_path):
    path, markdown = tmp_path / "claims.csv", tmp_path / "claims.md"
    published = ROOT / "results/digits/published/tables"
    whole = pd.read_csv(published / "claims.csv")
    whole.to_csv(path, index=False)
    text = (published / "claims.md").read_text()
    markdown.write_text(text)
    assert len(stage._claims(path, markdown)) == len(whole)
    for rows, reason in (
        (whole.iloc[:-1], "has other verdicts than"),
        (whole.assign(verdict="holds"), "has other verdicts than"),
        (whole.drop(columns="verdict"), "lacks the column verdict"),
        (pd.DataFrame(), "is damaged or empty"),
    ):
        rows.to_csv(path, index=False)
        with pytest.raises(RecordError, match=f"{path} {reason}"):
            stage._claims(path, markdown)
    whole.to_csv(path, index=False)
    markdown.write_text(text[: len(text) // 2])
    with pytest.raises(RecordError, match=f"{path} has other verdicts than {markdown}: remove both"):
        stage._claims(path, markdown)
