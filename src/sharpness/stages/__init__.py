"""Stages: one module per rule of the workflow, each a typed function run as ``python -m sharpness.stages.<stage>``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import tyro


def run_stage(stage: Callable[..., None]) -> None:
    """Run ``stage`` with the arguments of the command line, as its signature says.

    Bad input (a ValueError) ends it with one line on standard error and exit status 1.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        tyro.cli(stage, config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands))
    except ValueError as error:
        sys.exit(f"{stage.__name__}: {error}")
