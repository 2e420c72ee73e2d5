"""Words of a command line, packed into one and taken apart."""

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import sharpness
from sharpness.runtime.words import flags, pack, unpack

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda word: not word.startswith("packed:")
)


@given(before=st.lists(words), packed=st.lists(words, min_size=1), after=st.lists(words))
def test_packed_words_come_out_as_they_were(before, packed, after):
    one = pack(packed)
    assert not set(one) & set(" '\"$\\{}\n")  # neither the shell nor Snakemake reads anything into it
    assert unpack([*before, one, *after]) == [*before, *packed, *after]


def test_the_files_of_a_thousand_runs_fit_a_command():
    runs = [
        f"cifar10-45000-resnet32-lr{rate}-bs{batch}-e300-seed{seed}"
        for rate in range(10)
        for batch in range(10)
        for seed in range(10)
    ]
    files = [f"results/study/runs/{run}/spectrum/leading-{part}.csv" for run in runs for part in range(6)]
    steps = [f"{n} leading 0123456789abcdef 0 87-26100/87" for n in range(1000) for _ in range(6)]
    assert sum(map(len, files + steps)) > 600_000
    assert len(pack([*runs, *files, *steps])) < 60_000


def test_the_module_shows_what_a_word_stands_for():
    command = [sys.executable, "-m", "sharpness.runtime.words", "--one", pack(["two", "three four"])]
    environment = os.environ | {"PYTHONPATH": str(Path(sharpness.__file__).parent.parent)}
    shown = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", env=environment)
    assert shown.stdout.split("\n") == ["--one", "two", "three four", ""]


def test_flags_spell_keys_with_dashes_and_lists_as_words():
    values = {"learning_rate": 0.1, "init_scale": None, "augment": True, "scales": [-1, 0.5], "batch_size": "full"}

    assert flags("run", values) == [
        *("--run.learning-rate", "0.1"),
        *("--run.init-scale", "None"),
        *("--run.augment", "True"),
        *("--run.scales", "-1", "0.5"),
        *("--run.batch-size", "full"),
    ]


def test_an_empty_list_leaves_its_flag_alone():
    assert flags("job", {"steps": []}) == ["--job.steps"]
