"""Reading a study's file: what YAML keeps silent about is said in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpness.study.file import only_study, read_study, study_name, with_types
from sharpness.study.schema import StudyError

ROOT = Path(__file__).parents[2]
STUDIES = sorted([ROOT / "config.yaml", *ROOT.glob("workflow/studies/*.yaml"), *ROOT.glob("tests/workflow/*.yaml")])


def message_of(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError) as caught:
        read_study(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_a_study_is_what_yaml_says(path):
    assert read_study(path) == yaml.safe_load(path.read_text(encoding="utf-8"))


TWICE = {
    "at the top": ("a: 1\nb: 2\na: 3\n", "'a'", 1, 3),
    "below a list": ("a:\n- {b: 1}\n- b: 1\n  c: 2\n  b: 1\n", "'b'", 3, 5),
    "once in quotes": ("seed: 1\n'seed': 2\n", "'seed'", 1, 2),
    "in a merged mapping": ("x: &x\n  a: 1\n  a: 2\ny: { <<: *x }\n", "'a'", 2, 3),
    "beside what is merged": ("x: &x { a: 1 }\ny:\n  <<: *x\n  a: 2\n  a: 3\n", "'a'", 4, 5),
    "a merge": ("x: &x { a: 1 }\nz: &z { b: 1 }\ny:\n  <<: *x\n  <<: *z\n", "'<<'", 4, 5),
    "of another spelling": ("yes: 1\ntrue: 2\n", "True", 1, 2),
    "in JSON": ('{"a": 1,\n "b": {"c": 1,\n "c": 2}}', "'c'", 2, 3),
    "in JSON with tabs": ('{\n\t"a": 1,\n\t"a": 2\n}', "'a'", 2, 3),
}


@pytest.mark.parametrize(("text", "key", "first", "second"), TWICE.values(), ids=TWICE.keys())
def test_a_key_given_twice_is_refused_with_both_lines(tmp_path, text, key, first, second):
    expected = f"the key {key} is given twice, in line {first} and in line {second}"
    assert message_of(tmp_path / "study.yaml", text) == expected


def test_a_key_given_twice_in_one_line_is_refused_with_both_values(tmp_path):
    text = "study: é\nb: {seed: 'é', c: 1, seed: [1, 2]}\n"
    expected = "the key 'seed' is given twice in line 2, as 'é' and as [1, 2]"
    assert message_of(tmp_path / "study.yaml", text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("study: a\nseed: 010\n", "010 in line 2 has a leading zero, by which YAML reads it as 8: write 10 or 8"),
        ("a:\n- [1, -0_17]\n", "-0_17 in line 2 has a leading zero, by which YAML reads it as -15: write -17 or -15"),
        (
            "x: &x { a: 010 }\ny: { <<: *x }\n",
            "010 in line 1 has a leading zero, by which YAML reads it as 8: write 10 or 8",
        ),
    ],
)
def test_an_integer_with_a_leading_zero_is_refused_with_its_line(tmp_path, text, said):
    assert message_of(tmp_path / "study.yaml", text) == said


def test_other_numbers_with_zeros_and_texts_are_what_they_are(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("[0, -0, 00, 07, 10, 0.5, 0x10, 0b11, '010', 1e-05, 2020-01-02]")
    assert read_study(path)[:-1] == [0, 0, 0, 7, 10, 0.5, 16, 3, "010", "1e-05"]


def test_what_is_merged_may_be_replaced(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("x: &x { a: 1, b: 2 }\ny: { <<: *x, a: 3 }\n")
    assert read_study(path)["y"] == {"a": 3, "b": 2}


@settings(max_examples=50)
@given(data=st.data())
def test_any_line_of_a_study_given_twice_is_refused(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "study.yaml"
    lines = (ROOT / "tests/workflow/small.yaml").read_text().splitlines()
    # A line with a value of its own, not one that opens a section and not one in braces over several lines.
    simple = [i for i, line in enumerate(lines) if ": " in line and "&" not in line and line.lstrip()[0] not in "#-"]
    chosen = data.draw(st.sampled_from(simple))
    path.write_text("\n".join([*lines[: chosen + 1], lines[chosen], *lines[chosen + 1 :]]))
    with pytest.raises(StudyError, match=f"given twice, in line {chosen + 1} and in line {chosen + 2}"):
        read_study(path)


BAD = {
    "another encoding": ("study: a\n# caf\xe9\n".encode("latin-1"), "line 2 is not text in UTF-8"),
    "a bracket left open": ("a: [1\n", "line 2 is not valid YAML (expected ',' or ']'"),
    "a tab": ("a:\n\tb: 1\n", "line 2 is not valid YAML (found character '\\t'"),
    "a list as a key": ("? [1, 2]\n: 3\n", "line 1 is not valid YAML (found unhashable key)"),
    "an object of Python's": ("a: !!python/name:os.system x\n", "line 1 is not valid YAML (could not determine"),
    "no such day": ("a: 2020-13-45\n", "is not valid YAML (month must be in 1..12)"),
    "two documents": ("a: 1\n---\nb: 2\n", "line 2 is not valid YAML"),
    "a zero byte": ("a: \0\n", "is not valid YAML (unacceptable character"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD.keys())
def test_what_is_no_yaml_is_refused_in_one_line(tmp_path, text, words):
    assert message_of(tmp_path / "study.yaml", text).startswith(words)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"none\.yaml: cannot be read \(No such file or directory\)"):
        read_study(tmp_path / "none.yaml")
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(tmp_path)


def test_for_a_file_that_is_not_there_the_nearest_is_named(tmp_path):
    for name in ("digits", "paper"):
        (tmp_path / f"{name}.yaml").write_text("study: one\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"digit\.yaml: cannot be read \(No such .*\); nearest in .*: digits$"):
        read_study(tmp_path / "digit.yaml")
    with pytest.raises(StudyError, match=r"nearest in .*: digits, paper$"):
        read_study(tmp_path / "none.yaml")


def test_one_file_is_a_study_and_two_are_not():
    only_study(["a.yaml"])
    with pytest.raises(StudyError, match=r"never merges with another, got a\.yaml and b\.yaml"):
        only_study(["a.yaml", "b.yaml"])


def test_a_study_without_a_name_is_refused(tmp_path):
    for text in ("", "[1]", "study: 3\n"):
        (tmp_path / "study.yaml").write_text(text)
        with pytest.raises(StudyError, match="lacks the key 'study'"):
            study_name(tmp_path / "study.yaml")


def test_the_name_of_a_study_is_printed_or_what_is_wrong_with_it(tmp_path):
    def said(path: Path) -> tuple[int, str]:
        command = [sys.executable, "-m", "sharpness.study.file", str(path)]
        done = subprocess.run(
            command, env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False
        )
        return done.returncode, (done.stdout + done.stderr).strip()

    assert said(ROOT / "tests/workflow/small.yaml") == (0, "small")
    assert said(tmp_path / "none.yaml") == (1, f"{tmp_path}/none.yaml: cannot be read (No such file or directory)")


def test_values_of_the_command_line_have_the_types_of_yaml():
    merged = {
        "study": "one",
        "defaults": {"epochs": "3", "data": "digits", "seed": 7},
        "steps": {"a": {"alphas": ["1", "2.5"]}},
    }
    given = {"defaults": {"epochs": "3", "data": "digits"}, "steps": {"a": {"alphas": ["1", "2.5"]}}}
    assert with_types(merged, given) == {
        "study": "one",
        "defaults": {"epochs": 3, "data": "digits", "seed": 7},
        "steps": {"a": {"alphas": [1, 2.5]}},
    }
    assert with_types({"defaults": {"learning_rate": "1e-3"}}, {"defaults": {"learning_rate": "1e-3"}}) == {
        "defaults": {"learning_rate": "1e-3"}  # which the schema refuses
    }
