"""Settings of a study: dataclasses whose fields say what they are, their range and their default, once.

The JSON schema, the filled-in study, the command line of a stage and the documentation all follow from them.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import re
import types
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_KEY = "setting"
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
# Stricter than JSON Schema, for what YAML can say: 15.0 is not an integer, .nan not a number, and 1 not a key.
_IS: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, Integral) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, Real) and not isinstance(value, bool) and value == value,
    "string": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value),
}
_RANGES: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (operator.ge, "at least"),
    "maximum": (operator.le, "at most"),
    "exclusiveMinimum": (operator.gt, "greater than"),
    "exclusiveMaximum": (operator.lt, "less than"),
}


@dataclasses.dataclass(frozen=True, init=False)
class Derived:
    """A default that follows from other values."""

    words: str
    function: Callable[..., Any]
    needs: tuple[str, ...]  # the names of the values, in the order of the function's arguments

    def __init__(self, words: str, function: Callable[..., Any], *needs: str) -> None:
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "needs", needs)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a study may say under one key."""

    default: Any
    description: str
    rules: dict[str, Any]  # keywords of JSON Schema: minimum, maximum, exclusiveMinimum, pattern, ...


def a_twentieth(num_training: int) -> int:
    """Return 5 % of the training set, at least 250 examples or all."""
    return min(num_training, max(250, num_training // 20))


AT_MOST_1000 = Derived("1000, or the study's smallest num_training if that is less", partial(min, 1000), "num_training")


def setting(default: Any, description: str, *, in_code: bool = False, **rules: Any) -> Any:
    """Declare a field of a dataclass of settings.

    The default is the plan's to fill in: the dataclass itself has none, so that code below the plan gets every value.

    Args:
        default: of a study that does not say; ``Derived`` where it follows from other values.
        description: what the value is, with its unit.
        in_code: whether the dataclass has the default too.
        rules: keywords of JSON Schema for the value; its type follows from the annotation.
    """
    metadata = {_KEY: Setting(default, description, rules)}
    if not in_code:
        return dataclasses.field(metadata=metadata)
    fixed = tuple(default) if isinstance(default, list) else json.dumps(default) if default == {} else default
    return dataclasses.field(default=fixed, metadata=metadata)


def settings_in(settings: type) -> dict[str, Setting]:
    """Return the fields of a dataclass that are settings, by name, in order."""
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(settings) if _KEY in field.metadata}


def schema_of(settings: type) -> dict[str, Any]:
    """Build the JSON schema of a mapping of settings; no key is required, since each has a default."""
    hints = get_type_hints(settings)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {
                **_type_schema(hints[name]),
                **found.rules,
                **({} if isinstance(found.default, Derived) else {"default": found.default}),
                "description": found.description,
            }
            for name, found in settings_in(settings).items()
        },
    }


def unmet(value: Any, schema: Mapping[str, Any]) -> str:
    """Say what the JSON schema of a setting demands of a value and the value does not meet; "" if it meets all."""
    if "enum" in schema:
        return "" if value in schema["enum"] else f"must be one of {', '.join(map(str, schema['enum']))}"
    listed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_IS[name](value) for name in listed):
        return f"must be of type {' or '.join(listed)}"
    if isinstance(value, str):
        if "known" in schema and value not in schema["known"] and not re.search(schema["otherwise"], value):
            return f"must be one of {', '.join(schema['known'])}"
        # Not re.search, as JSON Schema has it: Python's $ lets a line break pass.
        if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
            return f"must match {schema['pattern']}"
        if len(value) < schema.get("minLength", 0):
            return "must not be empty"
        if len(value) > schema.get("maxLength", len(value)):
            return f"must have at most {schema['maxLength']} characters: files are named after it"
    elif isinstance(value, list | tuple):
        if schema.get("uniqueItems") and any(item in value[:index] for index, item in enumerate(value)):
            return "must not repeat a value"
        demands = (unmet(item, schema["items"]) for item in value if "items" in schema)
        return next(filter(None, demands), "")
    elif isinstance(value, Real):
        for rule, (holds, words) in _RANGES.items():
            if rule in schema and not holds(value, schema[rule]):
                return f"must be {words} {schema[rule]}"
    return ""


def _type_schema(hint: Any) -> dict[str, Any]:
    """Build the JSON schema of a type.

    Raises:
        TypeError: no value in YAML has this type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _JSON_TYPES:
        return {"type": _JSON_TYPES[hint]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (list, tuple):
        return {"type": "array", "items": _type_schema(arguments[0])}
    if origin in (Union, types.UnionType):
        return _any_of([_type_schema(argument) for argument in arguments])
    raise TypeError(f"no setting can be of the type {hint}")


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """One schema for several: their types in one list, and the words allowed as a pattern."""
    if all("enum" in schema for schema in schemas):
        return {"enum": [word for schema in schemas for word in schema["enum"]]}
    names = [name for schema in schemas for name in ([schema["type"]] if "type" in schema else ["string"])]
    words = [word for schema in schemas for word in schema.get("enum", ())]
    merged = {key: value for schema in schemas for key, value in schema.items() if key not in ("type", "enum")}
    return {"type": names, **merged, **({"pattern": f"^({'|'.join(words)})$"} if words else {})}
