"""Files are whole or not there, and tables keep every digit."""

import csv
import errno
import math
import os
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpness.runtime.files import DiskFullError, replacing, require_space, write_table, write_text


def test_the_file_appears_when_the_block_ends_well(tmp_path):
    path = tmp_path / "new" / "folder" / "table.csv"
    with replacing(path) as beside:
        beside.write_text("whole")
        assert not path.exists()
        assert beside.parent == path.parent  # on the same file system, so that the move is atomic
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", ["old", None])
def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, before, error):
    path = tmp_path / "table.csv"
    if before is not None:
        path.write_text(before)

    def fail():
        with replacing(path) as beside:
            beside.write_text("half")
            raise error

    with pytest.raises(error):
        fail()

    assert [file.read_text() for file in tmp_path.iterdir()] == ([] if before is None else [before])


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path):
    class Unwritable:
        def __str__(self):
            raise RuntimeError("no text")

    path = tmp_path / "table.csv"
    write_table([{"a": 1}], path)
    with pytest.raises(RuntimeError, match="no text"):
        write_table([{"a": 2}, {"a": Unwritable()}], path)
    assert path.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(), st.integers(), st.text(alphabet="aé,\"\n'γ ", max_size=5)), min_size=1))
def test_numbers_and_words_come_back_as_they_were(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    write_table([{"float": number, "count": count, "word": word} for number, count, word in rows], path)
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["float", "count", "word"]
    for row, (number, count, word) in zip(table, rows, strict=True):
        same = math.isnan(float(row["float"])) if math.isnan(number) else float(row["float"]) == number
        assert same
        assert int(row["count"]) == count
        assert row["word"] == word


def test_pandas_reads_the_table_with_every_digit_and_what_is_not_a_number(tmp_path):
    numbers = [0.1, 1 / 3, 1e-300, -2.5e17, math.nan, math.inf, np.float64(2) / 3]
    write_table([{"number": number, "diverged": index > 4} for index, number in enumerate(numbers)], tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv")
    np.testing.assert_array_equal(table["number"], numbers)
    assert table["diverged"].dtype == bool


def test_no_rows_are_one_empty_line(tmp_path):
    write_table([], tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "\n"


def test_a_column_that_a_row_lacks_is_empty_in_it(tmp_path):
    write_table([{"a": 1, "b": 2.5}, {"a": 2, "c": "x"}], tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "a,b,c\n1,2.5,\n2,,x\n"


def test_text_is_written_whole(tmp_path):
    write_text("learning rate η\n", tmp_path / "folder" / "record.yaml")
    assert (tmp_path / "folder" / "record.yaml").read_text() == "learning rate η\n"


@pytest.mark.parametrize("words", ["Python's own", "of a library"])
def test_a_full_disk_is_said_in_one_sentence_with_the_file_and_what_is_free(tmp_path, words):
    path = tmp_path / "folder" / "table.csv"

    def write(beside):
        beside.symlink_to("/dev/full")  # whatever is written there, the disk is full
        try:
            beside.write_text("1\n")
        except OSError as error:
            if words == "of a library":
                raise RuntimeError(f"I/O error: {os.strerror(error.errno)} (os error {error.errno})") from None
            raise

    with pytest.raises(DiskFullError) as caught, replacing(path) as beside:
        write(beside)

    free = rf"[\d,]+ of [\d,]+ MiB are free in {path.parent}"
    sentence = f"the disk is full, or your quota of it: no space for {path}; {free}"
    assert re.fullmatch(sentence, str(caught.value))
    assert list(path.parent.iterdir()) == []


def test_another_error_is_not_called_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file") as beside:
        (beside / "in a file").write_text("1\n")


def test_space_is_tried(tmp_path, monkeypatch):
    require_space(tmp_path, 1 << 20)

    def refuse(*_):
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(DiskFullError, match=r"the disk is full, .* MiB are free in"):
        require_space(tmp_path, 1 << 20)

    assert list(tmp_path.iterdir()) == []
