"""A Slurm executor that retries submissions and follows every job to its end.

snakemake-executor-plugin-slurm 2.8.0 treats every refusal by sbatch as a failed job, so that a controller that is busy
for a minute ends a study. It waits forever for a job that was preempted by cancelling and, with sacct, for any
cancelled job; and if the cluster forgets ended jobs within two minutes (``MinJobAge``), it uses sacct whatever its
settings say. This executor changes submission and watching, and nothing else.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from snakemake_executor_plugin_slurm import Executor
from snakemake_executor_plugin_slurm.job_status_query import get_min_job_age
from snakemake_executor_plugin_slurm.utils import get_job_wildcards
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

PATIENCE = 900.0
"""Seconds for which a refused job is resubmitted."""
_LONGEST_PAUSE = 60.0  # seconds between two submissions
_LONGEST_INTERVAL = 180  # seconds between two queries of the queue
_SHORTEST_INTERVAL = 5
_ROUNDS = 3  # queries after which an unknown job counts as ended

# Messages of temporary failures: of Slurm's commands, and of the C library about connections.
_TEMPORARY = re.compile(
    r"unable to contact|time[d -]*out|temporar|try again|retry|busy|not responding|standby|zero bytes|unspecified error"
    r"|(connect|send|receive|shutdown|communication|authentication) (failure|error)|connection|connected|broken pipe"
    r"|no route to host|unreachable|munge|invalid authentication credential|slurmdbd|slurm_persist|slurm_load_\w+ error"
    r"|rate limit|too many (requests|open files)|name resolution|getaddrinfo|i/o error writing|cannot allocate memory",
    re.IGNORECASE,
)
_FULL = re.compile("MaxSubmit")  # QOSMaxSubmitJobPerUserLimit, AssocMaxSubmitJobLimit: temporary, until other jobs end
_FAILED = ("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
_OVER = (*_FAILED, "COMPLETED", "PREEMPTED")
_FORGOTTEN = "FORGOTTEN"  # not a state of Slurm's


def install() -> None:
    """Replace Snakemake's executor ``slurm`` by this module's."""
    ExecutorPluginRegistry().get_plugin("slurm").executor = PatientExecutor


def is_temporary(refusal: str) -> bool:
    """Whether a refusal by sbatch may be temporary, unlike that of an unknown partition."""
    # No message: sbatch was killed.
    return not refusal.strip() or _TEMPORARY.search(refusal) is not None or _FULL.search(refusal) is not None


def interval_limit(min_job_age: int | None) -> int:
    """Return the longest interval in seconds between queries of the queue that misses no job's end.

    Args:
        min_job_age: seconds for which Slurm remembers ended jobs; 0: forever; None: unknown, assume Slurm's default.
    """
    if min_job_age == 0:
        return _LONGEST_INTERVAL
    return max(_SHORTEST_INTERVAL, min(_LONGEST_INTERVAL, (300 if min_job_age is None else min_job_age) // 3))


def parsed(text: str) -> dict[str, str]:
    """Parse lines ``job|state`` into states by job; "CANCELLED by 0" and "CANCELLED+" become CANCELLED."""
    rows = (line.partition("|") for line in text.splitlines())
    return {job.strip(): re.split(r"[ +]", state.strip())[0] for job, _, state in rows if job.strip()}


def message_of_sbatch(message: str) -> str:
    """Extract sbatch's own message from the plugin's."""
    said = message.partition("\n    sbatch call:")[0]
    return (said.partition("The error message was ")[2] or said).strip("'. \n")


class PatientExecutor(Executor):
    """The plugin's executor, with patient submission and reliable detection of ended jobs."""

    def __post_init__(self, test_mode: bool = False) -> None:
        # Refused jobs by Snakemake's number: time of the first refusal, and count.
        self._refused: dict[str, tuple[float, int]] = {}
        self._known: set[str] = set()  # Slurm's numbers of all accepted jobs
        self._waiting: set[str] = set()  # of those that have not ended
        self._missed: Counter[str] = Counter()  # queries in which a job was unknown
        self._ending = threading.Event()
        age = get_min_job_age()
        self._limit = interval_limit(age)
        self._interval = 0  # seconds between the last query and the next
        # Silence the plugin's advice to use either sacct or squeue: this executor uses both.
        self.workflow.executor_settings.status_command = None
        super().__post_init__(test_mode)
        if age is not None and self._limit < self._first_interval:
            self.logger.info(
                f"This cluster forgets a job {age} s after its end (MinJobAge): its queue is looked at every "
                f"{self._limit} s, and its accounting for jobs that the queue has forgotten."
            )

    @property
    def _first_interval(self) -> int:
        return int(self.workflow.executor_settings.init_seconds_before_status_checks)

    # Submission

    def get_account_arg(self, job: Any) -> Iterator[str]:
        """Pass the account on unchecked: sbatch checks it, and accounting may be down."""
        if account := job.resources.get("slurm_account"):
            yield f" -A {shlex.quote(re.split(r'[, ]+', str(account).strip())[0])}"
        else:
            yield from super().get_account_arg(job)

    def _report_job_error_threadsafe(self, job_info: SubmittedJobInfo, msg: str) -> None:
        """Resubmit a job after a temporary refusal. Called in the submitting thread, with sbatch's message."""
        job, refusal = job_info.job, message_of_sbatch(msg)
        reason = refusal or "sbatch was killed"
        since, times = self._refused.get(str(job.jobid), (time.monotonic(), 0))
        waits = time.monotonic() - since < PATIENCE or (_FULL.search(refusal) and self._waiting)
        if not is_temporary(refusal) or not waits:
            self.logger.error(f"Slurm does not take the job of rule {_described(job)}: {reason}")
            self._refused.pop(str(job.jobid), None)
            super()._report_job_error_threadsafe(job_info, msg)
            return
        if not self._refused:
            self.logger.warning(f"Slurm takes no jobs for now ({reason}): they are submitted again until it does.")
        self._refused[str(job.jobid)] = since, times + 1
        if not self._ending.wait(min(2.0 ** (times + 1), _LONGEST_PAUSE)) and not self._was_taken(job):
            self.run_job(job)

    def _report_job_submission_threadsafe(self, job_info: SubmittedJobInfo) -> None:
        if self._refused.pop(str(job_info.job.jobid), None) and not self._refused:
            self.logger.info("Slurm takes jobs again.")
        self._known.add(job_info.external_jobid)
        self._waiting.add(job_info.external_jobid)
        super()._report_job_submission_threadsafe(job_info)

    def _was_taken(self, job: Any) -> bool:
        """Adopt a job that Slurm accepted although sbatch received no answer; False if there is none."""
        wildcards = get_job_wildcards(job)
        if not wildcards or job.is_group():  # several jobs could share a comment
            return False
        text = _output_of("squeue", *_ALL, "--name", self.run_uuid, "--format=%i|%k") or ""
        rows = (line.partition("|") for line in text.splitlines())
        found = [number for number, _, comment in rows if comment == f"rule_{job.name}_wildcards_{wildcards}"]
        for number in sorted({*found} - self._known, key=int):
            log = self.slurm_logdir / f"rule_{job.name}" / wildcards / f"{number}.log"
            self.logger.info(f"Slurm had taken job {job.jobid} after all, as {number} (log: {log}).")
            self._report_job_submission_threadsafe(SubmittedJobInfo(job, number, {"slurm_logfile": log}))
            return True
        return False

    def cancel(self) -> None:
        """Cancel all jobs, and submit no more."""
        self._ending.set()
        self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        super().cancel()

    # Watching

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """Report jobs that have ended, and yield the others."""
        if not active_jobs:
            # The constructor may not have finished: the thread starts before.
            self.next_seconds_between_status_checks = self._first_interval
            return
        if self.array_jobs or self._submitted_job_clusters:  # squeue shows other numbers for them
            async for info in super().check_active_jobs(active_jobs):
                yield info
            return
        async with self.status_rate_limiter:
            states = await asyncio.to_thread(self._states, {info.external_jobid for info in active_jobs})
        some_ended = any(map(_is_over, states.values()))
        self._interval = min(self._first_interval if some_ended else self._interval + 10, self._limit)
        self.next_seconds_between_status_checks = self._interval
        for info in active_jobs:
            state = states.get(info.external_jobid, "")
            if _is_over(state):
                self._end(info, state)
            else:
                yield info

    def _states(self, numbers: set[str]) -> dict[str, str]:
        """Return the known states of jobs by number; empty if Slurm does not answer."""
        queue = _output_of("squeue", *_ALL, "--name", self.run_uuid, "--format=%i|%T")
        if queue is None:
            return {}
        states = {number: state for number, state in parsed(queue).items() if number in numbers}
        if lost := sorted(numbers - states.keys()):
            self._missed.update(lost)
            fields = ("--noheader", "--parsable2", "--format=JobIdRaw,State")
            ended = parsed(_output_of("sacct", "-X", *fields, "--jobs", ",".join(lost)) or "")
            states |= {number: _FORGOTTEN for number in lost if self._missed[number] >= _ROUNDS}
            states |= {number: ended[number] for number in lost if _is_over(ended.get(number, ""))}
        return states

    def _end(self, info: SubmittedJobInfo, state: str) -> None:
        """Report an ended job, or resubmit it if it was preempted."""
        job, number, log = info.job, info.external_jobid, info.aux["slurm_logfile"]
        self._waiting.discard(number)
        if state == "PREEMPTED":
            self.logger.warning(f"Slurm preempted job {number} (rule {_described(job)}): it is submitted again.")
            self._job_submission_executor.submit(self.run_job, job)
        elif state == "COMPLETED" or (state == _FORGOTTEN and not self._is_incomplete(job)):
            self.report_job_success(info)
            if not self.workflow.executor_settings.keep_successful_logs:
                log.unlink(missing_ok=True)
        else:
            if state == "NODE_FAIL":
                self._failed_nodes |= set((_output_of("squeue", *_ALL, "--jobs", number, "--format=%N") or "").split())
            message = f"Slurm's job {number} (rule {_described(job)}) {_explanation(state, job)}; its log: {log}"
            self.logger.error(message)
            self.report_job_error(info, msg=message, aux_logs=[str(log)])

    def _is_incomplete(self, job: Any) -> bool:
        """Whether Snakemake on the job's node did not complete the job."""
        members = job.jobs if job.is_group() else [job]
        return any(self.workflow.persistence.external_jobids(member) for member in members)


_ALL = ("--noheader", "--states=all")  # also ended jobs


def _output_of(*command: str) -> str | None:
    """Output of a Slurm command; None if it fails, is missing, or takes over a minute."""
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return None


def _is_over(state: str) -> bool:
    return state in _OVER or state == _FORGOTTEN


def _described(job: Any) -> str:
    """Describe a job by rule and wildcards."""
    words: Iterable[str] = () if job.is_group() else job.wildcards
    return " ".join([job.name, *words])


def _explanation(state: str, job: Any) -> str:
    """Say how a job ended, and what to do about it."""
    return {
        "OUT_OF_MEMORY": f"needed more memory than its mem_mb of {job.resources.get('mem_mb')} (slurm/config.yaml)",
        "TIMEOUT": f"was stopped after its runtime of {job.resources.get('runtime')} minutes (slurm/config.yaml)",
        "CANCELLED": "was cancelled",
        "NODE_FAIL": "lost its node",
        _FORGOTTEN: "ended in an unknown way, and its outputs are incomplete",
    }.get(state, f"ended as {state}")
