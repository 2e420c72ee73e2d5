"""What a study cost, from the files of its jobs."""

import pytest

from sharpness.report.costs import Cost, costs_of, jobs_of
from sharpness.study.jobs import Jobs
from sharpness.study.records import RecordError


def test_costs_are_summed_by_part_the_largest_first(tmp_path):
    header = "seconds,cpu_seconds,host"
    jobs = {
        "runs/a/benchmarks/train.csv": "10.5,9.5,one",
        "runs/b/benchmarks/train.csv": "1.5,0.5,another",
        "benchmarks/figure-peaks.csv": "20,0,one",
        "benchmarks/figure-steps.csv": "2,1,one",
    }
    for name, row in jobs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{header}\n{row}\n")

    own = Jobs(["a", "b"], [0, 0], ["train spectrum-leading-0"], ["figure-peaks", "figure-steps", "claims"])
    assert costs_of(jobs_of(tmp_path, own)) == [Cost("figure", 2, 22, 1), Cost("train", 2, 12, 10)]


def test_jobs_of_other_studies_in_the_folder_do_not_count(tmp_path):
    for name in ("runs/a/benchmarks/train", "runs/a/benchmarks/spectrum-old-0", "runs/b/benchmarks/train"):
        path = tmp_path / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("seconds,cpu_seconds,host\n10,9,one\n")
    own = Jobs(["a"], [0], ["train spectrum-leading-0"], ["claims"])
    assert costs_of(jobs_of(tmp_path, own)) == [Cost("train", 1, 10, 9)]


@pytest.mark.parametrize("text", ["", "seconds,cpu_seconds\n", "seconds,cpu_seconds\n1.5", "seconds\n1.5\n", "\0\n"])
def test_a_damaged_file_of_a_job_is_named(tmp_path, text):
    path = tmp_path / "benchmarks" / "claims.csv"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(RecordError, match=r"benchmarks/claims.csv is damaged"):
        jobs_of(tmp_path, Jobs([], [], [], ["claims"]))
