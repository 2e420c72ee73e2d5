"""Expressions for wildcards match the names that they are made of, and nothing else."""

import re

from hypothesis import given
from hypothesis import strategies as st

from sharpness.workflow.patterns import any_of

WORDS = st.lists(st.text("ab.-{|", max_size=6), max_size=12)


@given(names=WORDS, others=WORDS)
def test_exactly_the_names_match(names, others):
    pattern = any_of(names)
    for word in (*names, *others):
        assert bool(re.fullmatch(pattern, word)) == (word in names or (word == "" and not names))
        # As Snakemake takes it: among what stands before and behind.
        found = re.fullmatch(f"results/(?P<run>{pattern})/table.csv", f"results/{word}/table.csv")
        assert (found["run"] if found else None) == (word if word in names or (word == "" and not names) else None)


def test_what_names_begin_with_stands_there_once():
    names = [f"cifar10-45000-augmented-simple_cnn-lr{rate:g}-seed{seed}" for rate in range(100) for seed in range(10)]
    assert len(any_of(names)) < len("|".join(names)) / 5
