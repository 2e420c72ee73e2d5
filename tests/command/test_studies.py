"""Studies by their names: those that there are, the nearest to a typo, and a new one."""

import pytest

from sharpness.command.studies import begin, find, known
from sharpness.study.plan import study_in
from sharpness.study.schema import StudyError
from sharpness.workflow.project import pipeline


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_studies_that_come_along_are_known_by_the_names_of_their_files(here):
    folders = (pipeline() / "workflow" / "studies", pipeline() / "examples")
    files = [path for folder in folders for path in folder.glob("*.yaml")]
    assert set(known()) == {"paper", *(path.stem for path in files)}
    assert {"digits", "vit"} <= set(known())
    assert find("paper").name == "config.yaml"


def test_a_study_of_this_folder_comes_before_one_that_comes_along(here):
    (here / "digits.yaml").write_text("# mine\nstudy: digits\n")
    (here / "notes.yaml").write_text("not: a study\n")

    assert str(find("digits")) == "digits.yaml"
    assert str(find("./digits.yaml")) == "digits.yaml"
    assert "notes" not in known()


@pytest.mark.parametrize(
    ("typo", "said"),
    [
        ("digts", "there is no study 'digts'; nearest: digits"),
        ("Digits", "there is no study 'Digits'; nearest: digits"),
        ("digits.yml", "there is no study 'digits.yml'; nearest: digits"),
        ("studies/papper.yaml", "there is no study 'studies/papper.yaml'; nearest: paper"),
        ("zzz", "there is no study 'zzz'; there are digits, edge_of_stability"),
    ],
)
def test_a_typo_is_answered_by_the_nearest_names(here, typo, said):
    with pytest.raises(StudyError) as error:
        find(typo)

    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_new_study_has_twelve_lines_and_is_right(here):
    path = begin("mine")

    assert len(path.read_text().splitlines()) == 12
    assert len(study_in(path).runs) == 6
    assert find("mine") == path


@pytest.mark.parametrize("name", ["", "Mine", "1st", "a-b", "a b", "a/b", "digits", "paper", "data", "a" * 101])
def test_a_name_that_a_study_cannot_have_is_refused_and_no_file_is_left(here, name):
    with pytest.raises(StudyError):
        begin(name)

    assert list(here.iterdir()) == []
