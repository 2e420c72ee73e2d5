"""Slurm on bad days: jobs are submitted until Slurm takes them, and watched until their end is known.

snakemake-executor-plugin-slurm 2.8.0 calls every refusal of sbatch a failed job: a controller that is busy for a minute
ends a study within seconds. It waits for ever for a job that was preempted by cancelling and, where it asks sacct, for
any that was cancelled; and where a cluster forgets ended jobs within two minutes (``MinJobAge``), it asks
sacct whatever its settings say. Its executor is replaced by this one, which changes these two things and no other.
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
"""Seconds for which a job is submitted again and again."""
_LONGEST_PAUSE = 60.0  # seconds between two submissions
_LONGEST_INTERVAL = 180  # seconds between two looks at the queue
_SHORTEST_INTERVAL = 5
_ROUNDS = 3  # looks at the queue after which a job that nobody knows is over

# What Slurm's commands say where the request may be right, but nobody could take it: its own words and those of the C
# library for a connection.
_PASSING = re.compile(
    r"unable to contact|time[d -]*out|temporar|try again|retry|busy|not responding|standby|zero bytes|unspecified error"
    r"|(connect|send|receive|shutdown|communication|authentication) (failure|error)|connection|connected|broken pipe"
    r"|no route to host|unreachable|munge|invalid authentication credential|slurmdbd|slurm_persist|slurm_load_\w+ error"
    r"|rate limit|too many (requests|open files)|name resolution|getaddrinfo|i/o error writing|cannot allocate memory",
    re.IGNORECASE,
)
_FULL = re.compile("MaxSubmit")  # QOSMaxSubmitJobPerUserLimit, AssocMaxSubmitJobLimit: it passes as jobs end
_FAILED = ("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
_OVER = (*_FAILED, "COMPLETED", "PREEMPTED")
_FORGOTTEN = "FORGOTTEN"  # a state that Slurm does not have


def install() -> None:
    """Let Snakemake's executor ``slurm`` be this module's."""
    ExecutorPluginRegistry().get_plugin("slurm").executor = PatientExecutor


def is_passing(refusal: str) -> bool:
    """Whether what sbatch said may be otherwise in a minute: not so for a partition that there is not."""
    # Killed without a word, it was not refused.
    return not refusal.strip() or _PASSING.search(refusal) is not None or _FULL.search(refusal) is not None


def interval_limit(min_job_age: int | None) -> int:
    """The longest time in seconds between two looks at the queue that misses no end of a job.

    Args:
        min_job_age: for how many seconds Slurm tells the state of a job that has ended; 0 for ever; None unknown,
            for which Slurm's own default is taken.
    """
    if min_job_age == 0:
        return _LONGEST_INTERVAL
    return max(_SHORTEST_INTERVAL, min(_LONGEST_INTERVAL, (300 if min_job_age is None else min_job_age) // 3))


def parsed(text: str) -> dict[str, str]:
    """The second field of each line ``job|state`` by the first; "CANCELLED by 0" and "CANCELLED+" are CANCELLED."""
    rows = (line.partition("|") for line in text.splitlines())
    return {job.strip(): re.split(r"[ +]", state.strip())[0] for job, _, state in rows if job.strip()}


def words_of_sbatch(message: str) -> str:
    """What sbatch itself said, in the plugin's message about it."""
    said = message.partition("\n    sbatch call:")[0]
    return (said.partition("The error message was ")[2] or said).strip("'. \n")


class PatientExecutor(Executor):
    """The plugin's executor; jobs wait for Slurm to take them, and all that ended are found to have ended."""

    def __post_init__(self, test_mode: bool = False) -> None:
        # Refused jobs by Snakemake's number: since when, and how often.
        self._refused: dict[str, tuple[float, int]] = {}
        self._known: set[str] = set()  # Slurm's numbers of all jobs that it took
        self._waiting: set[str] = set()  # of those that are not over
        self._missed: Counter[str] = Counter()  # in how many rounds nobody knew a job
        self._ending = threading.Event()
        age = get_min_job_age()
        self._limit = interval_limit(age)
        self._interval = 0  # seconds from the last look at the queue to the next
        # The plugin would recommend sacct or squeue; neither is what is asked here alone.
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
        """The account as it is given: sbatch knows whether it is right, and accounting need not answer."""
        if account := job.resources.get("slurm_account"):
            yield f" -A {shlex.quote(re.split(r'[, ]+', str(account).strip())[0])}"
        else:
            yield from super().get_account_arg(job)

    def _report_job_error_threadsafe(self, job_info: SubmittedJobInfo, msg: str) -> None:
        """Submit again what Slurm could not take now. Called in a thread that submits, with the words of sbatch."""
        job, refusal = job_info.job, words_of_sbatch(msg)
        reason = refusal or "sbatch was killed"
        since, times = self._refused.get(str(job.jobid), (time.monotonic(), 0))
        waits = time.monotonic() - since < PATIENCE or (_FULL.search(refusal) and self._waiting)
        if not is_passing(refusal) or not waits:
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
        """Go on with a job that Slurm has although sbatch heard no answer; False if there is none."""
        wildcards = get_job_wildcards(job)
        if not wildcards or job.is_group():  # several could have one comment
            return False
        text = _asked("squeue", *_ALL, "--name", self.run_uuid, "--format=%i|%k") or ""
        rows = (line.partition("|") for line in text.splitlines())
        found = [number for number, _, comment in rows if comment == f"rule_{job.name}_wildcards_{wildcards}"]
        for number in sorted({*found} - self._known, key=int):
            log = self.slurm_logdir / f"rule_{job.name}" / wildcards / f"{number}.log"
            self.logger.info(f"Slurm had taken job {job.jobid} after all, as {number} (log: {log}).")
            self._report_job_submission_threadsafe(SubmittedJobInfo(job, number, {"slurm_logfile": log}))
            return True
        return False

    def cancel(self) -> None:
        """Cancel all jobs; none is submitted any more."""
        self._ending.set()
        self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        super().cancel()

    # Watching

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """Report those jobs that are over, and give those that are not."""
        if not active_jobs:
            # Maybe not made to the end yet: its thread begins before that.
            self.next_seconds_between_status_checks = self._first_interval
            return
        if self.array_jobs or self._submitted_job_clusters:  # their numbers are not those of squeue
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
        """The states of jobs by their numbers, as far as they are known; none where Slurm does not answer."""
        queue = _asked("squeue", *_ALL, "--name", self.run_uuid, "--format=%i|%T")
        if queue is None:
            return {}
        states = {number: state for number, state in parsed(queue).items() if number in numbers}
        if lost := sorted(numbers - states.keys()):
            self._missed.update(lost)
            fields = ("--noheader", "--parsable2", "--format=JobIdRaw,State")
            ended = parsed(_asked("sacct", "-X", *fields, "--jobs", ",".join(lost)) or "")
            states |= {number: _FORGOTTEN for number in lost if self._missed[number] >= _ROUNDS}
            states |= {number: ended[number] for number in lost if _is_over(ended.get(number, ""))}
        return states

    def _end(self, info: SubmittedJobInfo, state: str) -> None:
        """Report a job that is over, or submit it again if Slurm alone wanted its end."""
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
                self._failed_nodes |= set((_asked("squeue", *_ALL, "--jobs", number, "--format=%N") or "").split())
            message = f"Slurm's job {number} (rule {_described(job)}) {_told(state, job)}; its log: {log}"
            self.logger.error(message)
            self.report_job_error(info, msg=message, aux_logs=[str(log)])

    def _is_incomplete(self, job: Any) -> bool:
        """Whether the Snakemake that ran a job on its node did not come to the end of it."""
        members = job.jobs if job.is_group() else [job]
        return any(self.workflow.persistence.external_jobids(member) for member in members)


_ALL = ("--noheader", "--states=all")  # also jobs that are over


def _asked(*command: str) -> str | None:
    """What a command of Slurm's says; None where it fails, is not there, or says nothing within a minute."""
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return None


def _is_over(state: str) -> bool:
    return state in _OVER or state == _FORGOTTEN


def _described(job: Any) -> str:
    """Rule and wildcards of a job."""
    words: Iterable[str] = () if job.is_group() else job.wildcards
    return " ".join([job.name, *words])


def _told(state: str, job: Any) -> str:
    """How a job ended, and what there is to do about it."""
    return {
        "OUT_OF_MEMORY": f"needed more memory than its mem_mb of {job.resources.get('mem_mb')} (slurm/config.yaml)",
        "TIMEOUT": f"was stopped after its runtime of {job.resources.get('runtime')} minutes (slurm/config.yaml)",
        "CANCELLED": "was cancelled",
        "NODE_FAIL": "lost its node",
        _FORGOTTEN: "is over, nobody knows how, and its outputs are incomplete",
    }.get(state, f"ended as {state}")
