"""Single values given beside a study's file: ``defaults.epochs=3``, checked as if they stood in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from sharpness.study.schema import StudyError

_FORM = "--config takes KEY=VALUE, with points into mappings, as defaults.epochs=3"


def overrides(given: Sequence[str]) -> dict[str, Any]:
    """Read values by their keys; what leads into one mapping comes together.

    Args:
        given: ``KEY=VALUE``, the value in YAML.

    Raises:
        StudyError: one has no such form, or two set the same key.
    """
    found: dict[str, Any] = {}
    for words in given:
        path, equals, text = words.partition("=")
        keys = path.split(".")
        if not equals or not all(key.replace("_", "a").replace("-", "a").isalnum() for key in keys):
            raise StudyError(f"{_FORM}, got {words!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise StudyError(
                f"--config {words}: the value is not valid YAML ({' '.join(str(error).split())})"
            ) from None
        for key in reversed(keys):
            value = {key: value}
        found = merged(found, value, twice=words)
    return found


def merged(study: Any, given: Any, *, twice: str = "") -> Any:
    """Put values into a study's mappings, as Snakemake does; anything else is replaced.

    Args:
        study: what its file says.
        given: what is put in.
        twice: what is being given, where nothing may be replaced.

    Raises:
        StudyError: something would be replaced that may not.
    """
    if isinstance(study, Mapping) and isinstance(given, Mapping):
        return {
            **study,
            **{key: merged(study[key], value, twice=twice) if key in study else value for key, value in given.items()},
        }
    if twice:
        raise StudyError(f"--config {twice}: the key is given twice")
    return given


def for_snakemake(given: Mapping[str, Any]) -> list[str]:
    """The same for Snakemake, which knows no points: ``--config 'defaults={"epochs": 3}'``."""
    return ["--config", *(f"{key}={json.dumps(value)}" for key, value in given.items())] if given else []
