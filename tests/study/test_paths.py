"""Where the files of a study are: distinct, in its folder, and the same for a rule's wildcards as for names."""

from hypothesis import given
from hypothesis import strategies as st

from sharpness.study.paths import StudyFolder, job_of, prepared

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)


@given(NAMES, NAMES, NAMES, st.integers(0, 9).map(str) | st.just("ends"))
def test_a_path_with_wildcards_is_that_of_the_names_put_in_their_place(run, measurement, settings, part):
    given = {"run": run, "measurement": measurement, "settings": settings, "part": part}
    folder, wild = StudyFolder.of("mine").run(run), StudyFolder.of("mine").run("{run}")
    assert wild.table("{measurement}", "{settings}", "{part}").format(**given) == folder.table(
        measurement, settings, part
    )
    assert wild.checkpoints("{part}").format(**given) == folder.checkpoints(part)
    job = job_of("{measurement}", "{settings}", "{part}")
    assert wild.log(job).format(**given) == folder.log(job_of(measurement, settings, part))


def test_no_two_files_of_a_study_share_a_path(run):
    folder = StudyFolder.of("mine")
    of_run = folder.run(run.name)
    paths = [
        *(folder.study, folder.report, folder.table("a"), folder.table("a", "md"), folder.figure("a", "pdf")),
        *(folder.log("a"), folder.benchmark("a"), folder.state(run), of_run.history, of_run.record),
        *(of_run.checkpoints("best"), of_run.checkpoints(0), of_run.table("spectrum", "leading", "0")),
        *(of_run.log("train"), of_run.benchmark("train"), folder.published.table("a"), prepared("digits")),
    ]
    assert len(set(paths)) == len(paths)
    assert all(path.startswith("results/mine/") for path in paths[:-1])
