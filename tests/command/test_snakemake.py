"""How the command starts Snakemake."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap

FOLLOWING = """
import sys
from pathlib import Path
from sharpness.command import snakemake

# In place of Snakemake, a job that writes to its terminal, as training does where nothing else shows its progress.
job = "from pathlib import Path; Path('/dev/tty').write_text('epoch 2 of 10')"
snakemake._command = lambda config: [sys.executable, "-c", job]
with open(sys.argv[1], "w") as log:
    print("ended", snakemake.follow(Path("study.yaml"), [], log, lambda event: None).status)
"""


def test_no_job_writes_to_the_terminal_in_which_the_line_of_progress_stands(tmp_path):
    ours, theirs = pty.openpty()
    words = [sys.executable, "-c", textwrap.dedent(FOLLOWING), str(tmp_path / "log")]
    # With this terminal as that of its session.
    script = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    assert process.wait(60) == 0

    said = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "ended 1" in said
    assert "epoch" not in said
    assert "No such device or address" in (tmp_path / "log").read_text()
