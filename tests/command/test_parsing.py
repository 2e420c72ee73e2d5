"""What may be typed: every line that a document shows is understood, and every mistake is one sentence."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from sharpness.command import main, snakemake
from sharpness.command.commands import COMMANDS, HANDED_ON
from sharpness.command.parsing import read, usage
from sharpness.workflow.project import pipeline

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))


def shown():
    """The words of every command that a document shows, after ``sharpness``, by document."""
    for document in DOCUMENTS:
        text = document.read_text().replace("$(SHARPNESS)", "sharpness")
        while (plainer := re.sub(r"\$\([^()]*\)", "some", text)) != text:  # what make puts in
            text = plainer
        lines = re.findall(r"^(?:\t@|    )(?:\.venv/bin/)?sharpness (.*)$|`sharpness ([^`]*)`", text, re.MULTILINE)
        for line in map("".join, lines):
            words = shlex.split(line, comments=True)
            if len(words) > 1 and "|" not in words and "COMMAND" not in words:
                yield document.name, words


def test_every_command_of_a_document_is_understood():
    found = list(shown())
    assert {words[0] for _, words in found} == set(COMMANDS)
    assert ["run", "some", "results/some/figures/some.pdf"] in [words for name, words in found if name == "Makefile"]
    for _, (name, *words) in found:
        own = words[: words.index("--")] if "--" in words else words
        assert "study" in read(name, COMMANDS[name], own) or name == "new"
        assert name in HANDED_ON or "--" not in words


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("run mine a.pdf --cores 2 b.pdf", {"study": "mine", "targets": ["a.pdf", "b.pdf"], "cores": "2"}),
        ("run --profile slurm mine", {"study": "mine", "targets": [], "profile": "slurm"}),
        ("report mine --together a b", {"study": "mine", "together": ["a", "b"]}),
        ("show --settings mine", {"study": "mine", "settings": True}),
        ("new mine", {"name": "mine"}),
    ],
)
def test_options_may_stand_anywhere(words, given):
    name, *rest = words.split()
    found = read(name, COMMANDS[name], rest)
    assert {key: found[key] for key in given} == given


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("plann digits", "sharpness: there is no command 'plann'; nearest: plan"),
        ("start", "sharpness: there is no command 'start'; "),
        ("zzz", "sharpness: there is no command 'zzz'; use new, plan, cost, run, show, report, publish"),
        ("digits", "sharpness: digits is a study; put a command before it, as in: sharpness run digits"),
        ("new", "sharpness new: the following arguments are required: NAME; sharpness new --help says more"),
        ("run", "sharpness run: the following arguments are required: STUDY; sharpness run --help says more"),
        ("plan", "sharpness plan: the following arguments are required: STUDY; sharpness plan --help says more"),
        ("plan digits more", "sharpness plan: unknown argument: more; sharpness plan --help says more"),
        ("show digits --setting", "sharpness show: unknown argument: --setting; nearest: --settings; "),
        (
            "run digits --keep-going",
            "sharpness run: unknown argument: --keep-going; put arguments of Snakemake after --; ",
        ),
        ("run digits --cores 0", "sharpness run: argument --cores: give a number from 1 on, or all; got '0'; "),
        ("run digits --cores two", "sharpness run: argument --cores: give a number from 1 on, or all; got 'two'; "),
        ("run digits -- -n", "sharpness: -n runs nothing; to see what would run, and why: sharpness plan digits"),
        (
            "report digits -- --dry-run",
            "sharpness: --dry-run runs nothing; to see what would run, and why: sharpness plan",
        ),
        ("run digits --profile slrm", "sharpness: there is no profile 'slrm'; there are slurm, or a folder's path"),
        ("run digits --profile .", "sharpness: the profile . has no config.yaml"),
        ("show digits -- --keep-going", "sharpness: show passes nothing on to Snakemake; plan, run, report do"),
        ("run digts", "sharpness: there is no study 'digts'; nearest: digits"),
        ("new digits", "sharpness: there already is a study digits, "),
        ("show digits", "sharpness: there are no verdicts in /"),
        ("report digits --together gpt", "sharpness: there are no verdicts in /"),
    ],
)
def test_a_mistake_is_one_sentence(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sharpness", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main.main()

    message = str(ended.value) if isinstance(ended.value.code, str) else capsys.readouterr().err
    assert message.startswith(said)
    assert "\n" not in message.strip()
    assert ended.value.code not in (0, None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    (tmp_path / "results").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sharpness", "plan", "digits"])
    with pytest.raises(SystemExit, match=r"^sharpness: results/digits/logs: Not a directory$"):
        main.main()


def test_the_help_has_every_command_in_a_line_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sharpness"])
    main.main()

    told = capsys.readouterr().out
    assert told.strip() == usage(COMMANDS)
    assert re.findall(r"^  (\w+) +[A-Z]", told, re.MULTILINE) == list(COMMANDS)


def test_a_profile_is_found_here_and_where_the_pipeline_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("jobs: 4\n")

    assert snakemake.submitted("mine", "2") == ["--profile", "mine", "--cores", "2"]
    assert snakemake.submitted("slurm") == ["--profile", str(pipeline() / "slurm")]
    with pytest.raises(ValueError, match=r"^there is no profile 'other'; there are mine, slurm, or a folder's path$"):
        snakemake.submitted("other")
