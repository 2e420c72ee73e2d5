"""SIGTERM ends a workflow even if it comes while Snakemake's scheduler holds its lock."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys, threading
from snakemake.scheduling.job_scheduler import JobScheduler
from sharpness.workflow import stopping

if sys.argv[1] == "installed":
    stopping.install()
    stopping.install()
scheduler = JobScheduler.__new__(JobScheduler)
scheduler._lock, scheduler._open_jobs, scheduler._user_kill = threading.Lock(), threading.Semaphore(0), None
signal.signal(signal.SIGTERM, scheduler.exit_gracefully)  # as the scheduler does when it is made
with scheduler._lock:
    os.kill(os.getpid(), signal.SIGTERM)
assert scheduler._open_jobs.acquire(timeout=30)
print(scheduler._user_kill)
"""


def test_a_signal_that_interrupts_who_holds_the_lock_stops_the_scheduler():
    command = [sys.executable, "-c", SCRIPT, "installed"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "graceful\n"), done.stderr


@pytest.mark.slow
def test_snakemake_still_waits_for_itself_there():
    # Once it does not, this project need not replace its handler.
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", SCRIPT, "as it is"], capture_output=True, timeout=30, check=False)
