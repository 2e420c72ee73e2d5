"""The whole study as YAML, with where each of its values comes from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from sharpness.study.effective import Effective, Path
from sharpness.study.nested import MAPPINGS

_COLUMN = 60  # of the comments
_PLAIN = re.compile(r"[a-z][a-z0-9_]*")
_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # of YAML, which are no text


def as_yaml(whole: Effective, lines: Mapping[Path, int] | None = None) -> str:
    """The whole study, each default with a comment that says so.

    Args:
        whole: the study.
        lines: of the keys in its file; with them, the other values have a comment that names their line.
    """
    return "\n".join(_mapping(whole, lines, whole.config, (), "")) + "\n"


def _mapping(
    whole: Effective, lines: Mapping[Path, int] | None, values: Mapping[str, Any], path: Path, indent: str
) -> Iterator[str]:
    for key, value in values.items():
        at = (*path, key)
        if isinstance(value, dict) and value and (key != "measure" or len(path) != 2) and key not in MAPPINGS:
            yield f"{indent}{key}:"
            yield from _mapping(whole, lines, value, at, f"{indent}  ")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value) and key not in MAPPINGS:
            yield f"{indent}{key}:"
            for index, block in enumerate(value):
                axes = list(_mapping(whole, lines, block, (*at, index), f"{indent}    ")) or [f"{indent}    {{}}"]
                yield from [f"{indent}  - {axes[0].lstrip()}", *axes[1:]]
        else:
            yield _commented(f"{indent}{key}: {_flow(value)}", _origin(whole, lines, at))


def _origin(whole: Effective, lines: Mapping[Path, int] | None, path: Path) -> str:
    origin = whole.origins.get(path)
    if origin is None:
        return "default"
    return f"line {lines[origin]}" if lines is not None and origin in lines else ""


def _commented(text: str, comment: str) -> str:
    return f"{text:<{_COLUMN}}  # {comment}" if comment else text


def _flow(value: Any) -> str:
    """Write a value on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and value not in _WORDS
        return value if is_plain else yaml.safe_dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]
    if isinstance(value, float) and not (math.isfinite(value) and "e" not in repr(value)):
        return yaml.safe_dump(value).split()[0]  # not repr: YAML takes 1e-06 for text, 1.0e-06 for a number
    return repr(value) if isinstance(value, float) else json.dumps(value)
