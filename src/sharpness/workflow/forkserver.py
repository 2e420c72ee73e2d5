"""Run local jobs as forks of one server process, which has imported the packages that take seconds to import.

``python forkserver.py --serve NAME`` imports packages and forks for each job, until its standard input ends.
``python forkserver.py NAME -m MODULE ARGUMENT ...`` is the client that Snakemake starts for a job: the server's fork
gets its arguments, folder, environment, standard streams and signals, and the client exits with the fork's status.
Without a server, the client starts ``python -m MODULE ARGUMENT ...`` itself. It reports killed jobs and their memory.
Nothing of this project is imported before the fork, so that a job runs the code present at its start. The socket has a
name and no file (Linux's abstract namespace), so that nothing stays behind when processes are killed.
"""

# The client runs at every job's start, without site-packages: import only what it needs.
from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

# torch imports symbolic_shapes, and sympy with it, when the first network is built.
_OF_TORCH = ("torch", "torch.func", "torch.fx.experimental.symbolic_shapes", "safetensors.torch")
PRELOADED = (*_OF_TORCH, "pandas", "matplotlib.pyplot", "matplotlib.backends.backend_pdf", "tyro", "yaml")
"""Packages that most jobs import and none changes."""

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_LENGTH = 8  # bytes of the length that precedes a request
_ENDED = struct.Struct("iQ")  # how a job ended: exit status and peak memory in KiB
NOBODY = "nobody"
"""Name that stands for no server: each job starts Python itself."""
# Numerical libraries read these when loaded; the server loads them with one thread.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def hand_over(connection: socket.socket, words: list[str]) -> tuple[int, int]:
    """Let the server run ``python *words``.

    Returns:
        The exit status, negative for the signal that killed the job, and its peak memory in KiB.

    Raises:
        OSError, EOFError: the connection to the fork was lost.
    """
    request = json.dumps({"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
    socket.send_fds(connection, [len(request).to_bytes(_LENGTH, "big")], [0, 1, 2])
    connection.sendall(request)

    _forward_signals(lambda number: connection.sendall(bytes([number])))
    ended = connection.recv(_ENDED.size)
    if not ended:
        raise EOFError("it closed the connection")
    status, peak = _ENDED.unpack(ended)
    return status, peak


def start_itself(words: list[str]) -> tuple[int, int]:
    """Run ``python *words`` as a child, which receives every signal and ends with this process.

    Returns:
        As ``hand_over``.
    """
    import ctypes

    parent = os.getpid()
    job = os.fork()
    if job == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() == parent:
            os.execvp("python", ["python", *words])
        os._exit(1)

    _forward_signals(lambda number: os.kill(job, number))
    _, status, usage = os.wait4(job, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss


def _forward_signals(send: Callable[[int], None]) -> None:
    def forward(number: int, _: object) -> None:
        with suppress(ProcessLookupError):  # the job has just ended
            send(number)

    for number in _FORWARDED:
        signal.signal(number, forward)


def serve(name: str) -> list[str]:
    """Serve until standard input ends, and exit; return only in forks that become jobs, with their arguments."""
    import gc
    import importlib
    import select

    for package in PRELOADED:
        with suppress(ImportError):  # a job that needs it will report it
            importlib.import_module(package)
    # Slurm signals all processes of an allocation at once; this one ends with the workflow, and forks with their jobs.
    earlier = {number: signal.signal(number, signal.SIG_IGN) for number in _FORWARDED}
    gc.collect()
    gc.freeze()  # so that garbage collection in forks does not copy shared memory
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(f"\0{name}")
        except OSError as error:  # for example, the name is too long
            sys.exit(f"Every job starts Python by itself, since nobody can listen at {name}: {error}")
        listener.listen(1024)
        while True:
            ready, _, _ = select.select([listener.fileno(), 0], [], [])
            if 0 in ready:
                _reap()
                sys.exit()
            connection, _ = listener.accept()
            # Anybody may connect; run jobs of this user only.
            if _user_of(connection) == os.geteuid() and os.fork() == 0:
                listener.close()
                words = _attend(connection)
                for number, handler in earlier.items():
                    signal.signal(number, handler)
                return words
            connection.close()
            _reap()


def _user_of(connection: socket.socket) -> int:
    """User id of the peer."""
    size = struct.calcsize("3i")
    user: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1]
    return user


def _reap() -> None:
    """Reap ended forks, so that their cost is added to this process's children."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _attend(connection: socket.socket) -> list[str]:
    """Fork a requested job, and exit with it; return only in the job, with its arguments."""
    header, streams, _, _ = socket.recv_fds(connection, _LENGTH, 3)
    if not header:  # the client has gone
        os._exit(0)
    with connection.makefile("rb") as file:
        request = json.loads(file.read(int.from_bytes(header, "big")))
    job = os.fork()
    if job == 0:
        connection.close()
        return _become(request, streams)
    for stream in streams:
        os.close(stream)
    ended = _ENDED.pack(*_ended(job, connection))
    with suppress(OSError):  # the client no longer waits
        connection.sendall(ended)
    os._exit(0)


def _ended(job: int, connection: socket.socket) -> tuple[int, int]:
    """Forward signals to a job until it ends, and return how; kill the job if the client is gone."""
    import select

    end = os.pidfd_open(job)
    while True:
        ready, _, _ = select.select([end, connection.fileno()], [], [])
        if end in ready:
            _, status, usage = os.wait4(job, 0)
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss
        for number in connection.recv(1) or bytes([signal.SIGKILL]):
            os.kill(job, number)


def _become(request: dict[str, Any], streams: list[int]) -> list[str]:
    """Take over the client's streams, folder and environment; return its arguments."""
    for own, stream in enumerate(streams):
        os.dup2(stream, own)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    words: list[str] = request["words"]
    return words


def _is_forked() -> bool:
    """Whether a fork of the server would equal a new Python process, whose numerical libraries use one thread."""
    return all(os.environ.get(name) == "1" for name in THREADS)


def _connected(name: str) -> socket.socket | None:
    """Connect to the server; None if there is none."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"\0{name}")
        if _user_of(connection) == os.geteuid():
            return connection
    except OSError:
        pass
    connection.close()
    return None


def main(words: list[str]) -> None:
    """Serve, or run a job."""
    first, *rest = words
    _open_streams()
    if first == "--serve":
        _run(serve(*rest))
    if rest[:1] != ["-m"]:
        os.execvp("python", ["python", *rest])
    killed_before = _killed_for_memory()
    connection = _connected(first) if first != NOBODY and _is_forked() else None
    try:
        status, peak = start_itself(rest) if connection is None else hand_over(connection, rest)
    except (OSError, EOFError) as error:
        sys.exit(f"the process that forked for {rest[1]} was lost: {error}")
    if status == -signal.SIGKILL:
        _tell_of_kill(rest[1:], peak, for_memory=_killed_for_memory() > killed_before)
        sys.exit(128 + signal.SIGKILL)  # exit, since the shell would comment on a killed client
    if status < 0:
        if -status in _FORWARDED:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def _open_streams() -> None:
    """Reopen closed standard streams, so that no other file gets their descriptors."""
    for stream, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(stream)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(stream, "w" if stream else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def _killed_for_memory() -> int:
    """Number of processes that the kernel has killed for lack of memory since the machine started."""
    with suppress(OSError), open("/proc/vmstat", encoding="ascii") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _tell_of_kill(words: list[str], peak: int, *, for_memory: bool) -> None:
    """Report a killed job in one sentence, in its log and on standard output, which is the terminal."""
    log = ""
    with suppress(OSError):
        log = os.readlink("/proc/self/fd/2")
    name = " ".join([words[0].rpartition(".")[2], *filter(str.isidentifier, words[1:2])])  # "measure slices"
    why = "by the kernel, for want of memory" if for_memory else "by SIGKILL, as the kernel does for want of memory"
    sentence = (
        f"{name}: the job was killed {why}, when it had {peak / 1024:,.0f} MiB at most: "
        "run fewer jobs at a time (--cores), or give each more memory (on Slurm mem_mb, in slurm/config.yaml)"
    )
    for stream, text in ((2, f"{sentence}\n"), (1, f"{sentence}; its log: {log}\n")):
        with suppress(OSError):
            os.write(stream, text.encode(errors="backslashreplace"))


def _run(words: list[str]) -> NoReturn:
    """Run a module as ``python -m MODULE ARGUMENT ...`` does, and exit."""
    import atexit
    import runpy
    import threading

    _, module, *arguments = words
    sys.argv = [module, *arguments]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # Skip Python's teardown of modules, which would copy memory shared with the server: a third of a second.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
