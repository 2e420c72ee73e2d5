"""Single values given beside a study's file: ``defaults.epochs=3``, checked as if they stood in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from sharpness.study.file import parse
from sharpness.study.schema import StudyError

_FORM = "--config takes KEY=VALUE, with points into mappings, as defaults.epochs=3"


def overrides(given: Sequence[str]) -> dict[str, Any]:
    """Read values by their keys; what leads into one mapping comes together.

    Args:
        given: ``KEY=VALUE``, the value in YAML.

    Raises:
        StudyError: one has no such form, a key is given twice, or an integer is another for its leading zero.
    """
    found: dict[str, Any] = {}
    for words in given:
        path, equals, text = words.partition("=")
        keys = path.split(".")
        if not equals or not all(key.replace("_", "a").replace("-", "a").isalnum() for key in keys):
            raise StudyError(f"{_FORM}, got {words!r}")
        try:
            parsed = parse(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise StudyError(
                f"--config {words}: the value is not valid YAML ({' '.join(str(error).split())})"
            ) from None
        if parsed.wrong:
            raise StudyError(f"--config {words}: {parsed.wrong[0]}")
        value = parsed.study
        for key in reversed(keys):
            value = {key: value}
        found = merged(found, value, twice=words)
    return found


def merged(study: Any, given: Any, *, twice: str = "", path: str = "") -> Any:
    """Put values into a study's mappings, as Snakemake does; anything else is replaced.

    Args:
        study: what its file says.
        given: what is put in.
        twice: what is being given, where nothing may be replaced.
        path: of the keys that lead to both, for the message.

    Raises:
        StudyError: something would be replaced that may not.
    """
    if isinstance(study, Mapping) and isinstance(given, Mapping):
        return {
            **study,
            **{
                key: merged(study[key], value, twice=twice, path=f"{path}.{key}") if key in study else value
                for key, value in given.items()
            },
        }
    if twice:
        key = path.removeprefix(".")
        raise StudyError(
            f"--config {twice}: the key {key!r} is given twice, as {_as_text(study)} and as {_as_text(given)}"
        )
    return given


def for_snakemake(given: Mapping[str, Any]) -> list[str]:
    """The same for Snakemake, which knows no points: ``--config 'defaults={"epochs": 3}'``."""
    return ["--config", *(f"{key}={json.dumps(value)}" for key, value in given.items())] if given else []


def _as_text(value: Any) -> str:
    """A value as one would give it, on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("...\n").strip()
