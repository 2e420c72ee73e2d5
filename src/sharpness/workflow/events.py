"""Tell another process what Snakemake does, as lines of JSON: which jobs there are and why, which begin, which end."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from typing import Any

VARIABLE = "SHARPNESS_EVENTS"
"""Environment variable that holds the descriptor to write to."""

# What is told of each event: names as Snakemake has them.
_TOLD = {
    "run_info": ("stats",),
    "job_info": ("jobid", "rule_name", "wildcards", "reason", "log"),
    "job_started": ("jobs",),
    "job_finished": ("job_id",),
    "job_error": ("jobid",),
}


def install() -> None:
    """Write events to the descriptor that the environment names, if it does; jobs do not inherit it."""
    if descriptor := os.environ.pop(VARIABLE, ""):
        from snakemake.logging import logger

        logger.addHandler(_Teller(int(descriptor)))


class _Teller(logging.Handler):
    """Writes Snakemake's events."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write one event; nothing if nobody reads any longer."""
        event = str(getattr(record, "event", ""))
        if event in _TOLD:
            told: dict[str, Any] = {name: getattr(record, name, None) for name in _TOLD[event]}
            line = json.dumps({"event": event, **told}, default=str) + "\n"
            with suppress(OSError):
                os.write(self._descriptor, line.encode())
