"""Run a stage of the workflow: parse its command line, record its cost, report errors in one sentence."""

from __future__ import annotations

import argparse
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path

import tyro

from sharpness.runtime import closure
from sharpness.runtime.files import is_of_full_disk, write_table
from sharpness.runtime.words import unpack


def run_stage(stage: Callable[..., None]) -> None:
    """Run ``stage`` with command-line arguments as in its signature; ``--benchmark FILE`` records its cost.

    The cost is a table of one row, an output of every rule: ``began`` (local time) and ``host``; ``seconds`` since the
    process started; ``cpu_seconds`` of all its threads, ``starting_cpu_seconds`` of them before its arguments were
    read; ``peak_mebibytes`` of its memory. Snakemake's own ``benchmark:`` does not see jobs that the fork server runs.

    Bad input (a ValueError) and edits of the source files meanwhile end it with one line on standard error and exit
    status 1. A full disk is also reported on standard output, since standard error may be a file on it.
    """
    starting = time.process_time()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None if it was closed
            stream.reconfigure(errors="backslashreplace")  # characters that the encoding lacks must not fail
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--benchmark", type=Path)
    own, words = parser.parse_known_args(unpack(sys.argv[1:]))
    try:
        closure.check_unchanged()
        tyro.cli(stage, args=words, config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands))
        closure.check_unchanged()
        if own.benchmark is not None:
            write_table([_cost(starting)], own.benchmark)
    except ValueError as error:
        sys.exit(f"{stage.__name__}: {error}")
    except Exception as error:
        if not is_of_full_disk(error):
            raise
        with suppress(OSError):
            print(f"{stage.__name__}: {error}", flush=True)
        sys.exit(f"{stage.__name__}: {error}")


def _cost(starting: float) -> dict[str, object]:
    """Cost of this process; ``starting`` is its CPU time before it parsed its arguments."""
    seconds = _seconds_since_start()
    return {
        "began": f"{datetime.fromtimestamp(time.time() - seconds):%Y-%m-%d %H:%M:%S}",
        "host": socket.gethostname(),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(time.process_time(), 2),
        "starting_cpu_seconds": round(starting, 2),
        "peak_mebibytes": _peak_mebibytes(),
    }


def _seconds_since_start() -> float:
    """Seconds since this process started, including Python's own start."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _peak_mebibytes() -> int:
    """Peak memory of this process; getrusage would include that of its parent before the fork."""
    (kibibytes,) = re.findall(
        r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE
    )
    return int(kibibytes) // 1024
