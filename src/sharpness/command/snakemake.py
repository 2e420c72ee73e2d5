"""Start Snakemake on a study, and follow what it does."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sharpness.workflow import events
from sharpness.workflow.project import pipeline

Event = Mapping[str, Any]
_EMPTY: tuple[Event, Event] = ({}, {"event": "stopping"})  # at work, and told to stop


@dataclass(frozen=True)
class Ended:
    """How a run of Snakemake ended."""

    status: int
    was_stopped: bool  # by Ctrl-C, or by a signal


# The rate limit is never reached; by its time span Snakemake looks for new jobs, at every second a tenth of a core.
_ON_THIS_MACHINE = ("--scheduler", "greedy", "--max-jobs-per-timespan", "1000/5s")


def local(cores: str) -> list[str]:
    """Snakemake's options for jobs on this machine."""
    return ["--cores", cores, *_ON_THIS_MACHINE]


def submitted(profile: str, cores: str | None = None) -> list[str]:
    """Snakemake's options for a profile.

    Args:
        profile: a folder, the name of one in Snakemake's own places, or of a shipped one.
        cores: of this machine; by default, as the profile says.

    Raises:
        ValueError: there is no such profile.
    """
    from snakemake.cli import get_profile_dir

    ours = pipeline() / profile
    found = str(ours) if not Path(profile).exists() and _is_profile(ours) else profile
    if get_profile_dir(found) is None:
        raise ValueError(_no_profile(profile))
    return ["--profile", found, *(["--cores", cores] if cores else [])]


def _is_profile(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and folder != pipeline()


def _no_profile(profile: str) -> str:
    if Path(profile).is_dir():
        return f"the profile {profile} has no config.yaml"
    here = [str(path) for path in Path().iterdir() if path.is_dir() and (path / "config.yaml").is_file()]
    coming = [path.name for path in pipeline().iterdir() if path.is_dir() and _is_profile(path)]
    return f"there is no profile {profile!r}; there are {', '.join(sorted({*here, *coming}))}, or a folder's path"


def follow(config: Path, words: Sequence[str], log: IO[str], see: Callable[[Event], None]) -> Ended:
    """Run Snakemake on a study until it ends.

    Args:
        config: the study's file.
        words: for Snakemake.
        log: for all that it and its jobs print.
        see: called with each event, as ``workflow.events`` has them, and about once a second with an empty one; once it
            has been told to stop, with ``stopping``.

    Returns:
        How it ended: Ctrl-C and SIGTERM reach Snakemake, which stops its jobs; only then does this return.
    """
    reads, writes = os.pipe()
    signals: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: object) -> None:
        signals.append(number)
        for process in started:
            _tell(process, number)

    # Before it starts: with a handler here, it gets the default, where this process was told to ignore them.
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        process = subprocess.Popen(
            [*_command(config), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment() | {events.VARIABLE: str(writes), "PYTHONUNBUFFERED": "1"},
            pass_fds=(writes,),
            start_new_session=True,  # Ctrl-C comes to it from here, once, and no job writes to this terminal
        )
        os.close(writes)
        started.append(process)
        if signals:
            _tell(process, signals[-1])
        for event in _events(reads):
            see(event or _EMPTY[bool(signals)])
        return Ended(process.wait(), bool(signals))
    finally:
        os.close(reads)
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to Snakemake and its jobs."""
    if process.poll() is None:
        os.killpg(process.pid, number)


def unlock(config: Path) -> None:
    """Remove the lock of a run that was killed; that of a run at work stays."""
    locks = Path(".snakemake") / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        words = [*_command(config), "--unlock", "--quiet", "all"]
        subprocess.run(words, env=_environment(), capture_output=True, check=False)  # what is in the way, the run says


@contextmanager
def one_at_a_time(say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of runs in this folder, after another one has ended."""
    folder = Path(".snakemake")
    folder.mkdir(exist_ok=True)
    with (folder / "run.lock").open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another run in this folder to finish.")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # no locks on this file system
            pass
        yield


def _command(config: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(pipeline() / "Snakefile"),
        "--configfile",
        str(config),
    ]


def _environment() -> dict[str, str]:
    """This process's, with the programs of its Python first: jobs call ``python``."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def _events(descriptor: int) -> Iterator[Event]:
    """Events until Snakemake has closed its end, and an empty one whenever a second passes without any."""
    import select

    held = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], 1.0)
        if not ready:
            yield {}
            continue
        part = os.read(descriptor, 1 << 16)
        if not part:
            return
        *lines, held = (held + part).split(b"\n")
        for line in lines:
            yield json.loads(line)
