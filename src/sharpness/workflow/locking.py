"""Two workflows at once: a second run of a study waits for the first, and no lock of a run that lives is removed.

Snakemake's lock is a list of files, which stays behind when a run is killed; it cannot tell whether that run lives, and
advises to remove it. Beside it, each run holds a lock of the system on files of its own, which ends with the process.
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
    """Let Snakemake keep to these rules.

    Args:
        study: the name of the study that is to run.
        data: the paths of its prepared data sets, which studies share.
    """
    OneAtATime.study, OneAtATime.data = Path("results") / study, [Path(path) for path in data]
    snakemake.workflow.FilePersistence = OneAtATime


class OneAtATime(FilePersistence):
    """Snakemake's records of a working folder, for one run of a study at a time."""

    study: Path
    data: list[Path]

    def __init__(self, *words: Any, **settings: Any) -> None:
        self._held: dict[Path, IO[str]] = {}
        super().__init__(*words, **settings)
        # A job of a run, a dry run, and who asks for the removal of a lock, make nothing.
        if settings.get("nolock") or settings.get("warn_only") or "--unlock" in sys.argv:
            return
        self._wait_for(self.study / _NAME, "another run of this study")
        for path in self.data:
            self._wait_for(path.with_name(f"{path.stem}{_NAME}"), f"another run, which makes {path},", unless=path)

    def _wait_for(self, path: Path, whom: str, unless: Path | None = None) -> None:
        """Hold a file for as long as this process lives; not if the other file is made in the meantime."""
        said = False
        while unless is None or not self._is_made(unless):
            file, is_held = _held(path)
            if is_held:
                self._held[path] = file
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
        """Snakemake's own lock, but for the data sets that another study has made.

        Raises:
            WorkflowError: a run makes the same files, or was killed when it did.
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
            raise WorkflowError(self._told(blocked[0]))
        Path(self._lockdir).mkdir(parents=True, exist_ok=True)
        try:
            self._write_locks("input", uses)
            self._write_locks("output", makes)
            yield
        finally:
            self.unlock()

    def _told(self, key: str) -> str:
        """Why this run cannot begin."""
        if alive := self._alive():
            return f"Another run makes {key}, too: {alive}. Wait until it has ended, then call this again."
        return (
            "A run in this folder was killed and has left its lock. If it was on a cluster, look at squeue --me and "
            "cancel what is left; then snakemake --unlock, and the same command with --rerun-incomplete."
        )

    def _alive(self) -> str:
        """One of the other runs here that live; empty if there is none."""
        for path in [*Path("results").glob(f"*/{_NAME}"), *Path("results/data").glob(f"*{_NAME}")]:
            if path not in self._held:
                file, is_held = _held(path)
                with file:
                    if not is_held:
                        return file.read().strip()
        return ""

    def cleanup_locks(self) -> None:
        """Remove Snakemake's own lock.

        Raises:
            WorkflowError: a run holds it.
        """
        if alive := self._alive():
            raise WorkflowError(f"A run is at work in this folder: {alive}. Its lock is not removed.")
        super()._delete_locks()

    def _delete_locks(self) -> None:
        """Remove this run's own lists: Snakemake would remove those of all."""
        for path in self._lockfile.values():
            Path(path).unlink(missing_ok=True)
        self._lockfile.clear()


def _held(path: Path) -> tuple[IO[str], bool]:
    """A file, and whether this process holds it now, until it is closed; else it says who does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file, False
    except OSError:  # a file system without locks: Snakemake's own has to do
        return file, True
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file, True
