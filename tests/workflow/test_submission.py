"""Slurm on bad days, played by small programs in place of its commands; tests/slurm has a real one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sharpness.workflow.slurm import interval_limit, is_temporary, message_of_sbatch, parsed

SOURCE = Path(__file__).parents[2] / "src"

SNAKEFILE = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
from sharpness.workflow import slurm
slurm.install()

rule all:
    input: expand("made/{{name}}", name=["one", "two"])
    localrule: True

rule make:
    output: "made/{{name}}"
    shell: "echo {{wildcards.name}} > {{output}}; echo {{wildcards.name}} >> executed"
"""

# A queue is a folder: N.state, N.comment. What is to happen stands in files: a refusal a line, a state a line.
PROGRAMS = {
    "sbatch": """
words = dict(zip(sys.argv[1:], sys.argv[2:]))
note("sbatch")
refusal = first_line("refusals")
if refusal and not refusal.startswith("taken: "):
    sys.exit(refusal)
number = str(1001 + len(list(queue.glob("*.state"))))
(queue / f"{number}.comment").write_text(words["--comment"])
state = queue / f"{number}.state"
(wrap,) = [word.removeprefix("--wrap=") for word in sys.argv if word.startswith("--wrap=")]
ending = first_line("endings")
state.write_text(ending or "RUNNING")
if not ending:
    command = 'if sh -c "$WRAP"; then echo COMPLETED; else echo FAILED; fi > "$STATE"'
    with open(words["--output"].replace("%j", number), "w") as log:
        subprocess.Popen(["sh", "-c", command], env=os.environ | {"WRAP": wrap, "STATE": str(state)},
                         stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=words["-D"], start_new_session=True)
if refusal:
    sys.exit(refusal.removeprefix("taken: "))
print(number)
""",
    "squeue": """
forgets = (queue / "forgets").exists()
for state in sorted(queue.glob("*.state")):
    if not (forgets and state.read_text().strip() != "RUNNING"):
        shown = state.with_suffix(".comment") if "%k" in sys.argv[-1] else state
        print(f"{state.stem}|{shown.read_text().strip()}")
""",
    "sacct": """
if not (queue / "accounting").exists():
    sys.exit("Slurm accounting storage is disabled")
for state in sorted(queue.glob("*.state")):
    print(f"{state.stem}|{state.read_text().strip().replace('CANCELLED', 'CANCELLED by 0')}")
""",
    "scontrol": """
print((queue / "config").read_text())
""",
    "srun": """
words = sys.argv[1:]
while words[0].startswith("-"):
    words.pop(0)
os.execvp(words[0], words)
""",
    "scancel": "",
    "sinfo": "print('gpu')",
    "sacctmgr": "sys.exit('sacctmgr: error: Connection refused')",
    "sshare": "sys.exit('sshare: error: Connection refused')",
}
HEAD = """#!{python}
import os, subprocess, sys, time
from pathlib import Path
queue = Path({queue!r})
def note(what):
    with (queue / "calls").open("a") as file:
        print(time.time(), what, file=file)
def first_line(name):
    path = queue / name
    lines = path.read_text().splitlines() if path.exists() else []
    path.write_text("".join(line + chr(10) for line in lines[1:]))
    return lines[0] if lines else ""
"""


class Cluster:
    """A folder in which a workflow of two jobs is run by Slurm's replacement."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.queue, self.programs = folder / "project", folder / "queue", folder / "programs"
        for path in (self.folder, self.queue, self.programs):
            path.mkdir()
        (self.folder / "Snakefile").write_text(SNAKEFILE)
        self.let("config", "MinJobAge               = 15 sec")
        for name, code in PROGRAMS.items():
            program = self.programs / name
            program.write_text(HEAD.format(python=sys.executable, queue=str(self.queue)) + code)
            program.chmod(0o755)

    def let(self, name: str, *lines: str) -> None:
        (self.queue / name).write_text("".join(f"{line}\n" for line in lines))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        settings = ["--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "1"]
        resources = ["--default-resources", "slurm_account=lab", "slurm_partition=gpu", "mem_mb=100", "runtime=1"]
        command = [sys.executable, "-m", "snakemake", "--executor", "slurm", "-j", "1", *settings, *words, *resources]
        path = os.pathsep.join([str(self.programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        variables = os.environ | {"PATH": path}
        return subprocess.run(
            command, cwd=self.folder, env=variables, capture_output=True, text=True, timeout=120, check=False
        )

    @property
    def submissions(self) -> list[float]:
        """When sbatch was called."""
        return [float(line.split()[0]) for line in (self.queue / "calls").read_text().splitlines()]

    @property
    def executed(self) -> list[str]:
        """What was computed, in this order."""
        return (self.folder / "executed").read_text().split()


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


FAILED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    "refusal",
    [
        FAILED + "Unable to contact slurm controller (connect failure)",
        FAILED + "Socket timed out on send/recv operation",
        FAILED + "Zero Bytes were transmitted or received",
        FAILED + "Slurm backup controller in standby mode",
        FAILED + "Resource temporarily unavailable",
        FAILED + "Slurm temporarily unable to accept job, sleeping and retrying",
        FAILED + "I/O error writing script/environment to file",
        FAILED + "Protocol authentication error",
        FAILED + "Transport endpoint is not connected",
        FAILED + "Unspecified error",
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
        + FAILED
        + "Job violates accounting/QOS policy (job submit limit, ...)",
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2": No such file or directory',
        "",
    ],
)
def test_a_refusal_that_passes_is_known(refusal):
    assert is_temporary(refusal)


@pytest.mark.parametrize(
    "refusal",
    [
        FAILED + "Invalid partition name specified",
        "sbatch: error: invalid partition specified: gpux\n" + FAILED + "Invalid partition name specified",
        FAILED + "Invalid account or account/partition combination specified",
        FAILED + "Requested node configuration is not available",
        FAILED + "Requested time limit is invalid (missing or exceeds some limit)",
        FAILED + "User's group not permitted to use this partition",
        FAILED + "Access/permission denied",
        FAILED + "Invalid qos specification",
        FAILED + "Memory required by task is not available",
        FAILED + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
        "sbatch: unrecognized option '--gpuss=1'",
        "/bin/sh: 1: sbatch: not found",
    ],
)
def test_a_refusal_that_stays_is_known(refusal):
    assert not is_temporary(refusal)


def test_the_message_of_sbatch_are_told_from_the_call():
    message = (
        "SLURM sbatch failed. The error message was 'sbatch: error: no'.\n    sbatch call:\n        sbatch --retry 1\n"
    )

    assert message_of_sbatch(message) == "sbatch: error: no"
    assert message_of_sbatch("Job submission failed with exception: no") == "Job submission failed with exception: no"


@pytest.mark.parametrize(("age", "limit"), [(0, 180), (None, 100), (300, 100), (60, 20), (900, 180), (2, 5)])
def test_the_queue_is_looked_at_before_it_forgets(age, limit):
    assert interval_limit(age) == limit


def test_states_are_read_with_what_stands_behind_them():
    assert parsed("1|CANCELLED by 0\n2_3|OUT_OF_MEMORY\n4|CANCELLED+\n\n") == {
        "1": "CANCELLED",
        "2_3": "OUT_OF_MEMORY",
        "4": "CANCELLED",
    }


@pytest.mark.slow
def test_jobs_are_submitted_until_slurm_takes_them(cluster):
    cluster.let("refusals", *[FAILED + "Socket timed out on send/recv operation"] * 2)

    done = cluster.run()

    assert done.returncode == 0, done.stderr
    assert sorted(cluster.executed) == ["one", "two"]
    assert done.stderr.count("Slurm takes no jobs for now") == 1
    first, second, third, _ = cluster.submissions
    assert 2 <= second - first < third - second  # with growing pauses


@pytest.mark.slow
def test_a_wrong_partition_fails_at_once(cluster):
    cluster.let("refusals", *[FAILED + "Invalid partition name specified"] * 2)
    began = time.monotonic()

    done = cluster.run("--keep-going")

    assert done.returncode == 1
    assert len(cluster.submissions) == 2
    assert "Slurm does not take the job of rule make one: " + FAILED + "Invalid partition name specified" in done.stderr
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_job_that_slurm_took_without_an_answer_is_not_submitted_twice(cluster):
    cluster.let("refusals", "taken: " + FAILED + "Socket timed out on send/recv operation")

    done = cluster.run()

    assert done.returncode == 0, done.stderr
    assert sorted(cluster.executed) == ["one", "two"]
    assert "after all, as 1001" in done.stderr


@pytest.mark.slow
def test_a_job_that_is_preempted_by_cancelling_is_no_failure_of_it(cluster):
    cluster.let("endings", "PREEMPTED", "PREEMPTED")

    done = cluster.run()  # without --retries

    assert done.returncode == 0, done.stderr
    assert sorted(cluster.executed) == ["one", "two"]
    assert len(cluster.submissions) == 4


@pytest.mark.slow
@pytest.mark.parametrize("accounting", [True, False])
def test_a_cluster_that_forgets_jobs_at_once_is_asked_for_what_is_known(cluster, accounting):
    cluster.let("config", "MinJobAge               = 2 sec")
    cluster.let("forgets")
    cluster.let("endings", "CANCELLED")
    if accounting:
        cluster.let("accounting")

    done = cluster.run("--retries", "1")

    assert done.returncode == 0, done.stderr
    assert sorted(cluster.executed) == ["one", "two"]
    assert len(cluster.submissions) == 3
    assert ("was cancelled" if accounting else "its outputs are incomplete") in done.stderr


@pytest.mark.slow
def test_a_job_that_needs_too_much_memory_is_told_of_in_one_sentence(cluster):
    cluster.let("endings", "OUT_OF_MEMORY")

    done = cluster.run()

    assert done.returncode == 1
    # Either of the two jobs may come first.
    assert re.search(r"Slurm's job 1001 \(rule make (one|two)\) needed more memory than its mem_mb of 100", done.stderr)
