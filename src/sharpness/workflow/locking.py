"""Lock studies: a second run of a study waits for the first, and the lock of a running workflow is never removed.

Snakemake's lock is a list of files that stays behind when a run is killed. Snakemake cannot tell whether that run is
alive, and suggests removing the lock. So each run also holds a file lock of the operating system, which ends with the
process.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import snakemake.workflow
from snakemake.exceptions import WorkflowError
from snakemake.persistence.file import FilePersistence

_NAME = ".at_work"


def install(study: str, data: Iterable[str]) -> None:
    """Replace Snakemake's locks by these.

    Args:
        study: name of the study to run.
        data: paths of its prepared data sets, which studies share.
    """
    OneAtATime.study, OneAtATime.data = Path("results") / study, [Path(path) for path in data]
    snakemake.workflow.FilePersistence = OneAtATime


class OneAtATime(FilePersistence):
    """Snakemake's records of a working folder, limited to one run per study at a time."""

    study: Path
    data: list[Path]

    def __init__(self, *words: Any, **settings: Any) -> None:
        self._locked: dict[Path, IO[str]] = {}
        super().__init__(*words, **settings)
        # Jobs of a run, dry runs and --unlock need no lock.
        if settings.get("nolock") or settings.get("warn_only") or "--unlock" in sys.argv:
            return
        self._wait_for(self.study / _NAME, "another run of this study")
        for path in self.data:
            self._wait_for(path.with_name(f"{path.stem}{_NAME}"), f"another run, which makes {path},", unless=path)

    def _wait_for(self, path: Path, whom: str, unless: Path | None = None) -> None:
        """Lock a file until this process ends, waiting if necessary; stop waiting once ``unless`` has been made."""
        said = False
        while unless is None or not self._is_made(unless):
            file, is_held = _try_lock(path)
            if is_held:
                self._locked[path] = file
                return
            if not said:
                print(f"Waiting for {whom} to end: {file.read().strip()}.", file=sys.stderr, flush=True)
                said = True
            file.close()
            time.sleep(0.5)

    def _is_made(self, path: Path) -> bool:
        self._clear_cache()
        return path.exists() and not self._filter_incomplete_keys([str(path)])

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Take Snakemake's own lock, except for data sets that another study has made.

        Raises:
            WorkflowError: a run makes the same files, or was killed while making them.
        """
        makes = {str(file) for file in self.all_outputfiles()}
        uses = {str(file) for file in self.all_inputfiles()}
        shared = {str(path) for path in self.data if path.exists()}
        blocked = sorted(
            key
            for kind, key in self._read_locks()
            if key in makes or (kind == "output" and key in uses and key not in shared)
        )
        if blocked:
            raise WorkflowError(self._reason(blocked[0]))
        Path(self._lockdir).mkdir(parents=True, exist_ok=True)
        try:
            self._write_locks("input", uses)
            self._write_locks("output", makes)
            yield
        finally:
            self.unlock()

    def _reason(self, key: str) -> str:
        """Say why this run cannot start."""
        if running := self._running():
            return f"Another run makes {key}, too: {running}. Wait until it has ended, then call this again."
        return (
            "A run in this folder was killed and has left its lock. If it was on a cluster, look at squeue --me and "
            "cancel what is left; then snakemake --unlock, and the same command with --rerun-incomplete."
        )

    def _running(self) -> str:
        """Describe another running workflow in this folder; empty if there is none."""
        for path in [*Path("results").glob(f"*/{_NAME}"), *Path("results/data").glob(f"*{_NAME}")]:
            if path not in self._locked:
                file, is_held = _try_lock(path)
                with file:
                    if not is_held:
                        return file.read().strip()
        return ""

    def cleanup_locks(self) -> None:
        """Remove Snakemake's own lock.

        Raises:
            WorkflowError: a run is using it.
        """
        if running := self._running():
            raise WorkflowError(f"A run is at work in this folder: {running}. Its lock is not removed.")
        super()._delete_locks()

    def _delete_locks(self) -> None:
        """Remove this run's lists only; Snakemake would remove those of all runs."""
        for path in self._lockfile.values():
            Path(path).unlink(missing_ok=True)
        self._lockfile.clear()


def _try_lock(path: Path) -> tuple[IO[str], bool]:
    """Open and try to lock a file; return it with whether that succeeded. If not, its text names the holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file, False
    except OSError:  # no locks on this file system: rely on Snakemake's own
        return file, True
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file, True
