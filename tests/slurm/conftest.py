"""A real Slurm on this machine, or a reason why there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "srun", "squeue", "munged", "mariadbd")


def missing() -> str | None:
    """Why no Slurm can be started here; None where one can."""
    # They stand in sbin, which not everyone's PATH has.
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacking = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if lacking:
        return f"no {', '.join(lacking)} on this machine"
    return None if os.geteuid() == 0 else "only root can start a Slurm"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two nodes of two GPUs each, with accounting; gives the folder of their files."""
    reason = missing()
    if reason is not None:
        assert os.environ.get("CI") != "true", f"the tests of Slurm must not be skipped here: {reason}"
        pytest.skip(reason)
    # Not below pytest's own folder, which is readable by its user alone: MariaDB runs as another.
    folder = Path(f"/tmp/sharpness-slurm-{os.getpid()}")
    command = [str(HERE / "cluster.sh")]
    # Into a file: the daemons would hold a pipe open.
    log = tmp_path_factory.mktemp("cluster") / "log"
    with log.open("w") as file:
        up = subprocess.run([*command, "up", str(folder)], stdout=file, stderr=file, check=False)
    try:
        assert up.returncode == 0, log.read_text()
        yield folder
    finally:
        subprocess.run([*command, "down", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)
