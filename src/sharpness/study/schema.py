"""What is wrong with a study's file, in one sentence for its author: the key, the value, and what would be right."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jsonschema
import yaml


class StudyError(ValueError):
    """The study's file is wrong; the message is one sentence for its author."""


def check_schema(config: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Hold a study against its JSON schema.

    Raises:
        StudyError: about the error nearest to the top of the file.
    """
    errors = _Validator(schema).iter_errors(config)
    first = min(errors, key=lambda error: (len(error.absolute_path), list(map(str, error.absolute_path))), default=None)
    if first is not None:
        raise StudyError(_sentence(first))


def _whole_match(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    # jsonschema searches, and Python's $ lets a line break pass.
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


# Stricter than JSON Schema, for what YAML can say: 15.0 is not an integer, .nan not a number, and 1 not a key.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _whole_match},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: (
                isinstance(value, int | float) and not isinstance(value, bool) and value == value
            ),
            "object": lambda _, value: isinstance(value, dict) and all(isinstance(key, str) for key in value),
        }
    ),
)


def _sentence(error: jsonschema.ValidationError) -> str:
    """One sentence for one schema error: the key, its value, and what would be right."""
    if error.validator == "anyOf":  # an axis: one value, or a list of them
        branch = 1 if isinstance(error.instance, list) else 0
        causes = [cause for cause in error.context or () if cause.schema_path[0] == branch]
        return _sentence(causes[0])
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.absolute_path).lstrip(".")
    place = place or "the study"
    value = error.instance
    if "propertyNames" in error.schema_path:
        return f"a name in {place} is {value!r}, {_demand(error)}"
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = next(key for key in value if key not in known)
        return f"unknown key {unknown!r} in {place}, {known_words(unknown, known)}"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in value)
        return f"{place} lacks the key {missing!r}"
    if error.validator in ("minItems", "minProperties"):
        return f"{place} is empty, give at least one value"
    return f"{place} is {value!r}, {_demand(error)}"


def _demand(error: jsonschema.ValidationError) -> str:
    rule, value = error.validator, error.validator_value
    listed = value if isinstance(value, list) else [value]
    demands = {
        "type": f"must be of type {' or '.join(map(str, listed))}",
        "minimum": f"must be at least {value}",
        "maximum": f"must be at most {value}",
        "exclusiveMinimum": f"must be greater than {value}",
        "exclusiveMaximum": f"must be less than {value}",
        "enum": known_words(str(error.instance), map(str, listed)),
        "uniqueItems": "must not repeat a value",
        "pattern": f"must match {value}",
        "maxLength": f"must have at most {value} characters: files are named after it",
    }
    demand = demands.get(str(rule), error.message)
    if rule == "type" and isinstance(error.instance, str) and _is_number(error.instance):
        demand += f" (YAML reads it as text; write {_as_yaml(float(error.instance))})"
    if rule == "type" and isinstance(error.instance, dict):
        demand += "".join(f" (its key {key!r} is not text)" for key in error.instance if not isinstance(key, str))
    description = error.schema.get("description") if isinstance(error.schema, Mapping) else None
    return f"{demand}: {description}" if description else demand


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _as_yaml(number: float) -> str:
    # Not repr: YAML takes 1e-06 for text, 1.0e-06 for a number.
    return yaml.safe_dump(int(number) if number.is_integer() else number).split()[0]


def known_words(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"known are {', '.join(known)}" + (f" (did you mean {near[0]}?)" if near else "")
