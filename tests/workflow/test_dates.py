"""Files dated in the future, of which Snakemake would remove what is computed from them."""

import os
import time

import pytest

from sharpness.workflow.dates import DateError, check_dates


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "below/two", "below/deeper/three"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    return tmp_path


def test_files_of_now_and_such_as_are_not_there_pass(folder):
    check_dates([folder, folder / "one", folder / "nowhere"])


@pytest.mark.parametrize("name", ["one", "below/two", "below/deeper/three"])
def test_a_file_of_tomorrow_is_named(folder, name):
    tomorrow = time.time() + 86_400
    os.utime(folder / name, (tomorrow, tomorrow))
    with pytest.raises(DateError, match=rf"^{folder}/{name} is dated \d{{4}}-.*in the future .*touch$"):
        check_dates([folder])
    with pytest.raises(DateError):
        check_dates([folder / name])


def test_a_link_is_as_late_as_what_it_leads_to(folder, tmp_path):
    tomorrow = time.time() + 86_400
    os.utime(folder / "one", (tomorrow, tomorrow))
    (folder / "below/link").symlink_to(folder / "one")
    with pytest.raises(DateError, match="link is dated"):
        check_dates([folder / "below"])


def test_a_file_servers_clock_may_be_a_moment_ahead(folder):
    soon = time.time() + 1
    os.utime(folder / "one", (soon, soon))
    check_dates([folder])
