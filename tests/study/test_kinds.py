"""The one entry of a kind: what stands there is what is drawn, told and decided."""

from pathlib import Path

import pytest

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.deciding import decide
from sharpness.analysis.claims.poster import CLAIMS
from sharpness.analysis.figures import interactive
from sharpness.study.kinds import KINDS
from sharpness.study.registry import MEASUREMENTS

ROOT = Path(__file__).parents[2]


def test_the_kinds_that_feed_claims_are_those_whose_tables_are_read_for_them():
    asked = set()

    class Recording(Collected):
        def rows(self, measurement, *kinds):
            asked.update(kinds)
            return super().rows(measurement, *kinds)

    decide(Recording({}, frozenset(), {}))

    assert asked == {name for name, kind in KINDS.items() if kind.claims}


def test_every_letter_in_an_entry_is_that_of_a_claim():
    assert {letter for kind in KINDS.values() for letter in kind.claims} == set(CLAIMS)


@pytest.mark.parametrize("name", KINDS)
def test_what_a_kind_needs_is_measured_and_what_it_has_is_drawn_and_told(name):
    kind = KINDS[name]
    assert set(kind.measurements) <= {*MEASUREMENTS, "history"}
    for function in kind.figures:
        assert (ROOT / f"src/sharpness/analysis/figures/{function}.py").exists()
    for caption in (*kind.figures, *([kind.result_table] if kind.result_table else [])):
        assert (ROOT / f"workflow/report/{caption}.md").exists()
    assert set(kind.interactive) <= set(kind.figures) & set(kind.measurements)
    assert all(hasattr(interactive, function) for function in kind.interactive)


def test_every_interactive_figure_is_one_of_a_kind():
    public = {name for name in vars(interactive) if name in {fn for kind in KINDS.values() for fn in kind.figures}}
    assert public == {function for kind in KINDS.values() for function in kind.interactive}
