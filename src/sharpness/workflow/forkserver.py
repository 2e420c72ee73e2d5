"""Local jobs as forks of one process, which has imported once what takes seconds to import.

``python forkserver.py --serve NAME`` imports packages and forks for each job, until its standard input ends.
``python forkserver.py NAME -m MODULE WORD ...`` is a job's own process: the server's fork gets its words, folder,
environment and standard streams, and every signal; the job's process ends as the fork does. Where nobody serves, it
starts ``python -m MODULE WORD ...`` by itself. Of a job that was killed it says so, and how much memory that had.
Nothing of this project is imported before the fork, so that a job runs the code that lies there when it starts. The
socket has a name and no file (Linux's abstract namespace): whatever is killed, nothing stays behind.
"""

# A job's process imports what stands here at every start, and runs without site-packages: only what it needs itself.
from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

PRELOADED = ("torch", "torch.func", "pandas", "matplotlib.pyplot", "safetensors.torch", "tyro", "yaml")
"""What most jobs import and no job changes. Those of one job in a study are its own affair."""

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_LENGTH = 8  # bytes that tell how long a request is
_ENDED = struct.Struct("iQ")  # how a job ended: its exit status, and the most memory that it had, in KiB
NOBODY = "nobody"
"""The name of no server: each job starts Python by itself."""
# Libraries that compute read these when they are loaded; the server's were, with one thread.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def start(environment: Mapping[str, str]) -> str:
    """Start a server that ends with this process; a function of the shell by which ``python`` is run by it.

    Args:
        environment: what the jobs have in addition to this process's own, for libraries that read it when loaded.
    """
    import atexit
    import secrets
    import subprocess

    name = f"sharpness-{os.getpid()}-{secrets.token_hex(8)}"
    # Closed when this process ends, however it does.
    server_reads, ours = os.pipe()
    server = subprocess.Popen(
        ["python", "-P", __file__, "--serve", name],
        stdin=server_reads,
        env={**os.environ, **environment, **dict.fromkeys(_THREADS, "1")},
        process_group=0,  # Ctrl-C is for the jobs' own processes, which pass it on
    )
    os.close(server_reads)

    def end() -> None:
        os.close(ours)
        server.wait()

    atexit.register(end)
    return through(name)


def through(name: str) -> str:
    """A function of the shell by which ``python`` is run by the server of a name, or by itself and told of."""
    import shlex

    return f'python() {{ command python -X utf8 -I -S {shlex.quote(__file__)} {name} "$@"; }}; '


def hand_over(connection: socket.socket, words: list[str]) -> tuple[int, int]:
    """Let the server run ``python *words``.

    Returns:
        its exit status, negative for the signal that killed it, and the most memory that it had, in KiB.

    Raises:
        OSError, EOFError: the server's process for this job was lost.
    """
    request = json.dumps({"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
    socket.send_fds(connection, [len(request).to_bytes(_LENGTH, "big")], [0, 1, 2])
    connection.sendall(request)

    def forward(number: int, _: object) -> None:
        connection.sendall(bytes([number]))

    for number in _FORWARDED:
        signal.signal(number, forward)
    ended = connection.recv(_ENDED.size)
    if not ended:
        raise EOFError("it closed the connection")
    status, peak = _ENDED.unpack(ended)
    return status, peak


def start_itself(words: list[str]) -> tuple[int, int]:
    """Run ``python *words`` as a child, which gets every signal and ends with this process.

    Returns:
        as ``hand_over``.
    """
    import ctypes

    parent = os.getpid()
    job = os.fork()
    if job == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() == parent:
            os.execvp("python", ["python", *words])
        os._exit(1)

    def forward(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(job, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    _, status, usage = os.wait4(job, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss


def serve(name: str) -> list[str]:
    """Serve until standard input ends, and exit; return in each fork that is a job, with its words."""
    import gc
    import importlib
    import select

    for package in PRELOADED:
        with suppress(ImportError):  # a job that needs it will say so
            importlib.import_module(package)
    # Slurm stops all processes of an allocation at once: this one ends with the workflow, what attends to a job with
    # that.
    earlier = {number: signal.signal(number, signal.SIG_IGN) for number in _FORWARDED}
    gc.collect()
    gc.freeze()  # so that a fork's collections do not copy what it shares
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(f"\0{name}")
        except OSError as error:  # the name is too long, for one
            sys.exit(f"Every job starts Python by itself, since nobody can listen at {name}: {error}")
        listener.listen(1024)
        while True:
            ready, _, _ = select.select([listener.fileno(), 0], [], [])
            if 0 in ready:
                _reap()
                sys.exit()
            connection, _ = listener.accept()
            # Anybody may connect to a name; jobs are for this user.
            if _user_of(connection) == os.geteuid() and os.fork() == 0:
                listener.close()
                words = _attend(connection)
                for number, handler in earlier.items():
                    signal.signal(number, handler)
                return words
            connection.close()
            _reap()


def _user_of(connection: socket.socket) -> int:
    """Who is at the other end."""
    size = struct.calcsize("3i")
    user: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1]
    return user


def _reap() -> None:
    """Let those forks go that have ended, so that what they took counts as this process's children's."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _attend(connection: socket.socket) -> list[str]:
    """Start the job that a connection asks for, and exit with it; return in the job, with its words."""
    header, streams, _, _ = socket.recv_fds(connection, _LENGTH, 3)
    if not header:  # whoever connected has gone
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
    with suppress(OSError):  # nobody waits for it any more
        connection.sendall(ended)
    os._exit(0)


def _ended(job: int, connection: socket.socket) -> tuple[int, int]:
    """Pass signals on to a job until it ends, and say how. Without a process that waits for it, it is killed."""
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
    """Take the place of the process that asks."""
    for own, stream in enumerate(streams):
        os.dup2(stream, own)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    words: list[str] = request["words"]
    return words


def _is_forked() -> bool:
    """Whether a fork of the server would be what Python is if it is started now."""
    return all(os.environ.get(name) == "1" for name in _THREADS)


def _connected(name: str) -> socket.socket | None:
    """A connection to the server; None where nobody serves."""
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
        sys.exit(128 + signal.SIGKILL)  # of a process that is killed itself the shell has a word to say
    if status < 0:
        if -status in _FORWARDED:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def _open_streams() -> None:
    """Let those standard streams be there that were closed, so that no other file takes their place."""
    for stream, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(stream)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(stream, "w" if stream else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def _killed_for_memory() -> int:
    """How many processes the kernel has killed for want of memory since the machine was started."""
    with suppress(OSError), open("/proc/vmstat", encoding="ascii") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _tell_of_kill(words: list[str], peak: int, *, for_memory: bool) -> None:
    """Say in one sentence that a job was killed, in its log and where its standard output goes: the terminal."""
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
    """As ``python -m MODULE WORD ...`` does, to the end."""
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
    # Python would take all modules apart, and for it copy what is shared with the server: a third of a second.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
