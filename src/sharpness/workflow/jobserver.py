"""Start the server that forks for local jobs, and write the shell function through which rules reach it."""

from __future__ import annotations

import atexit
import os
import secrets
import shlex
import subprocess
from collections.abc import Mapping

from sharpness.workflow import forkserver


def start(environment: Mapping[str, str]) -> str:
    """Start a server that ends with this process; return a shell function ``python`` that runs jobs through it.

    Args:
        environment: variables to add to this process's, for libraries that read them when loaded.
    """
    name = f"sharpness-{os.getpid()}-{secrets.token_hex(8)}"
    # Closed when this process ends, even if it is killed.
    server_reads, ours = os.pipe()
    server = subprocess.Popen(
        ["python", "-P", forkserver.__file__, "--serve", name],
        stdin=server_reads,
        env={**os.environ, **environment, **dict.fromkeys(forkserver.THREADS, "1")},
        process_group=0,  # Ctrl-C must reach the clients only, which pass it on
    )
    os.close(server_reads)

    def end() -> None:
        os.close(ours)
        server.wait()

    atexit.register(end)
    return through(name)


def through(name: str) -> str:
    """Return a shell function ``python`` that runs jobs through the named server, if it can be reached."""
    return f'python() {{ command python -X utf8 -I -S {shlex.quote(forkserver.__file__)} {name} "$@"; }}; '
