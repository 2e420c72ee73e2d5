"""Why jobs failed is read from Snakemake's log and theirs."""

from sharpness.workflow.failures import last_words

LOG = """Building DAG of jobs...
Error in rule train:
    message: None
    jobid: 3
    output: made
    log: {folder}/first.log (check log file(s) for error details)
    shell:
        python -m sharpness.stages.train 2> {folder}/first.log
Error in rule spectrum:
    jobid: 4
    log: {folder}/second.log (check log file(s) for error details)
Error in rule slices:
    jobid: 5
    log: {folder}/missing.log (check log file(s) for error details)
Error in rule spectrum:
    jobid: 4
    log: {folder}/second.log (check log file(s) for error details)
Finished jobid: 3 (Rule: train)
"""


def test_each_job_that_failed_in_the_end_gives_the_last_line_of_its_log(tmp_path):
    (tmp_path / "snakemake.log").write_text(LOG.format(folder=tmp_path), encoding="utf-8")
    (tmp_path / "first.log").write_text("went well at last\n", encoding="utf-8")
    (tmp_path / "second.log").write_bytes(b"begins\nspectrum: no layer \xce\xb3\n\n")

    assert last_words(tmp_path / "snakemake.log") == [
        f"{tmp_path}/second.log: spectrum: no layer γ",
        f"{tmp_path}/missing.log: No such file or directory",
    ]
