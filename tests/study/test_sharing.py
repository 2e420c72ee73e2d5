"""Which part of a spectrum keeps the eigenvectors of a checkpoint, and what that spares."""

import copy
from pathlib import Path

import pytest
import yaml

from sharpness.study.forecast import work_of
from sharpness.study.plan import study_of
from sharpness.study.sharing import kept_parts, num_shared

SMALL = yaml.safe_load((Path(__file__).parents[1] / "workflow" / "small.yaml").read_text())


def study(**settings):
    config = copy.deepcopy(SMALL)
    config["spectrum"]["leading"] |= settings
    return study_of(config, source="small")


def shared(found):
    return {
        (measurement, part)
        for run, measurement, name in found.measured
        for part in found.parts(run, measurement, name)
        if kept_parts(found, run, measurement, name, part)
    }


def test_where_nobody_keeps_them_nothing_is_shared():
    plain = study()
    assert plain.keepers == {}
    assert shared(plain) == set()
    assert shared(study(keep_vectors=True, num_examples=17)) == set()


def test_each_part_has_those_of_its_own_checkpoints_and_of_the_one_before():
    keeping = study(keep_vectors=True)
    assert shared(keeping) == {
        *((name, part) for name in ("slices", "steps", "gradients") for part in "01"),
        *((name, "1") for name in ("density", "variants")),
    }
    (run, *_) = keeping.experiments["slices"].runs
    assert kept_parts(keeping, run, "slices", "top", "1") == [("spectrum", "leading", "1")]
    # A subspace is compared with that of the checkpoint before, which lies in the part before.
    assert kept_parts(keeping, run, "gradients", "top2", "1") == [
        ("spectrum", "leading", "1"),
        ("spectrum", "leading", "0"),
    ]
    assert kept_parts(keeping, run, "gradients", "top2", "0") == [("spectrum", "leading", "0")]


def test_runs_whose_spectrum_is_not_measured_share_nothing():
    keeping = study(keep_vectors=True)
    others = set(keeping.runs) - set(keeping.keepers)
    assert others
    assert not any(
        kept_parts(keeping, run, measurement, name, part)
        for run, measurement, name in keeping.measured
        if run in others
        for part in keeping.parts(run, measurement, name)
    )


@pytest.mark.parametrize("part", ["slices", "steps", "gradients", "density", "variants"])
def test_a_forecast_counts_no_search_where_they_are_kept(part):
    spared = []
    for found in (study(), study(keep_vectors=True)):
        jobs = [job for job in work_of(found) if job.part == part]
        spared.append(sum(some.at_most for job in jobs for some in job.products))
    keeping = study(keep_vectors=True)
    count = sum(
        num_shared(keeping, run, part, name, each)
        for run, measurement, name in keeping.measured
        if measurement == part
        for each in keeping.parts(run, part, name)
    )
    assert count > 0
    # max_products of each search is 40.
    assert spared[0] - spared[1] == 40 * count
