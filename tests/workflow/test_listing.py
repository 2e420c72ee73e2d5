"""The listing of a job's sources changes with what they say, and with nothing else."""

import os
from pathlib import Path

import pytest

from sharpness.runtime import closure
from sharpness.workflow import listing as listing_of


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Make the listing of two files as a new process would, and return its text and its date."""
    sources = [tmp_path / name for name in ("one.py", "other.py")]
    for seconds, path in enumerate(sources):
        path.write_text(f"x = {seconds}\n")
        os.utime(path, (1000 + seconds, 1000 + seconds))
    monkeypatch.setattr(closure, "sources", lambda *_: list(map(str, sources)))
    monkeypatch.chdir(tmp_path)

    def make():
        listing_of.listing.cache_clear()
        listing_of._digest.cache_clear()
        path = Path(listing_of.listing("train", "sharpness.stages.train"))
        assert path == Path(".snakemake/code/train.txt")
        return path.read_text(encoding="utf-8"), path.stat().st_mtime

    yield sources, make
    listing_of.listing.cache_clear()
    listing_of._digest.cache_clear()


def test_a_new_listing_is_as_old_as_the_newest_source(made):
    _, make = made
    text, date = make()
    assert date == 1001
    assert len(text.splitlines()) == 2


def test_what_is_touched_changes_nothing_and_what_is_edited_does_whatever_its_date(made):
    sources, make = made
    before = make()
    sources[0].touch()
    assert make() == before
    sources[1].write_text("x = 2\n")
    os.utime(sources[1], (1001, 1001))  # as rsync -t leaves it
    text, date = make()
    assert text != before[0]
    assert date > 1e9
    sources[1].write_text("x = 1\n")
    assert make()[0] == before[0]  # undone


def test_files_are_named_from_the_package_on(tmp_path, monkeypatch):
    """So that a project that was moved, or is installed elsewhere, has the same listing."""
    listing_of.listing.cache_clear()
    monkeypatch.chdir(tmp_path)
    path = Path(listing_of.listing("train", "sharpness.stages.train"))
    names = [line.split()[1] for line in path.read_text(encoding="utf-8").splitlines()]
    listing_of.listing.cache_clear()
    assert "sharpness/training/loop.py" in names
    assert names == [closure.told(Path(source)) for source in closure.sources("sharpness.stages.train")]
