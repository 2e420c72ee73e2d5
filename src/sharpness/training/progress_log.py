"""Log a training run's progress: a line after every evaluated epoch, and TensorBoard's scalars."""

from __future__ import annotations

import logging
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from sharpness.study.run import Run
from sharpness.training.progress import Progress, Record

_log = logging.getLogger(__name__)

# Seconds between two lines of a run on the terminal that all runs of a workflow share.
_SECONDS_PER_LINE = 10.0


class ProgressLog:
    """Log the rows of a run's history as they come.

    Args:
        run: the settings.
        progress: the state at the start, which may be a saved one.
        tensorboard: folder for TensorBoard's events; None disables them.

    Raises:
        ValueError: TensorBoard's events are wanted, but its package is not installed.
    """

    def __init__(self, run: Run, progress: Progress, tensorboard: Path | None) -> None:
        self._run = run
        self._first_step = (progress.epoch - 1) * run.steps_per_epoch + progress.index
        self._began = self._shown = time.monotonic()
        self._terminal = _terminal()
        self._writer = None
        if tensorboard is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ValueError("tensorboard is true, but its package is missing: pip install tensorboard") from None
            # Hide events after the step at which the run resumes, since they are written again; the event of an epoch
            # that ended at this very step is not.
            self._writer = SummaryWriter(str(tensorboard), purge_step=self._first_step + 1)

    def __call__(self, record: Record) -> None:
        """Log an evaluated epoch."""
        run, seconds = self._run, time.monotonic() - self._began
        speed = (record.step - self._first_step) / seconds
        # Of a run that ends at the step at which it began there is no speed.
        left = (run.epochs * run.steps_per_epoch - record.step) / speed if speed else math.nan
        line = (
            f"{run.name}: epoch {record.epoch} of {run.epochs}, training loss {record.training_loss:.4f}, "
            f"validation accuracy {record.validation_accuracy:.1%}, {speed * run.examples_per_step:.0f} images/s, "
            + ("diverged" if record.diverged else f"{_duration(left)} left")
        )
        _log.info(line)
        if self._terminal is not None and time.monotonic() - self._shown >= _SECONDS_PER_LINE:
            print(line, file=self._terminal, flush=True)
            self._shown = time.monotonic()
        if self._writer is not None:
            for name, value in asdict(record).items():
                if name not in ("step", "epoch", "test_accuracy"):  # known only at the end
                    self._writer.add_scalar(name, value, record.step)
            self._writer.flush()


def _terminal() -> TextIO | None:
    """Open the terminal of a job whose standard error goes to a file; None if there is none, or it shows the log."""
    if sys.stderr.isatty():
        return None
    try:
        return Path("/dev/tty").open("w", encoding="utf-8")
    except OSError:
        return None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
