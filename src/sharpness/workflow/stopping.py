"""Stop on SIGTERM wherever it arrives.

The handler of Snakemake 9.27 takes the scheduler's lock. If the signal interrupts the thread that holds it, which takes
it in every round, that thread waits for itself, and the workflow neither goes on nor ends.
"""

from __future__ import annotations

import _thread

from snakemake.scheduling.job_scheduler import JobScheduler

_waiting_for_the_lock = JobScheduler.exit_gracefully


def install() -> None:
    """Let Snakemake's own handler wait in a thread of its own."""
    JobScheduler.exit_gracefully = _exit_gracefully


def _exit_gracefully(scheduler: JobScheduler, *_: object) -> None:
    # threading.Thread takes locks too.
    _thread.start_new_thread(_waiting_for_the_lock, (scheduler,))
