"""What is wrong with a study's file, a sentence each for its author: the key, the value, and what would be right."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from sharpness.study.kinds import BASE
from sharpness.study.schema_words import known_words
from sharpness.study.settings import unmet


class StudyError(ValueError):
    """The study's file is wrong; the message has a line for each thing that is, a sentence for its author."""

    @classmethod
    def of(cls, source: str, sentences: Sequence[str]) -> StudyError:
        """Everything that is wrong with a file; more than one thing is counted in the last line."""
        count = [f"{len(sentences)} things are wrong with this study"] if len(sentences) > 1 else []
        return cls("\n".join(f"{source}: {sentence}" for sentence in [*sentences, *count]))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    path: tuple[str | int, ...]  # of the key in question
    sentence: str
    is_needless: bool = False  # an unknown key, without which all else stays as it is


def problems(value: Any, schema: Mapping[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Hold a value against its JSON schema, as far as studies use that language.

    Args:
        value: what the file says.
        schema: of the value.
        path: to the value, from the top of the file.

    Yields:
        everything that is wrong, from the top down.
    """
    if "anyOf" in schema:  # an axis: one value, or a list of them
        branches = [[*problems(value, branch, path)] for branch in schema["anyOf"]]
        yield from [] if not all(branches) else branches[isinstance(value, list)]
        return
    if schema.get("additionalProperties") is True and isinstance(value, dict):
        return  # a mapping of the user's own, which the run checks
    is_right_type = "type" in schema and not unmet(value, {"type": schema["type"]})
    if is_right_type and isinstance(value, dict):
        yield from _in_mapping(value, schema, path)
    elif is_right_type and isinstance(value, list):
        yield from _in_list(value, schema, path)
    elif demand := unmet(value, schema):
        yield Problem(path, f"{_place(path)} is {value!r}, {_demand(value, schema, demand)}")


def without(study: Any, paths: Iterable[tuple[str | int, ...]]) -> dict[str, Any] | None:
    """Remove the values at some paths from a study, a list as a whole; return None if no experiment is left."""
    rest = copy.deepcopy(study)
    for path in paths:
        node, holder, last = rest, None, ""
        for key in path:
            if isinstance(node, dict) and isinstance(key, str):
                node, holder, last = node.get(key), node, key
            else:
                node = node[key] if isinstance(node, list) and isinstance(key, int) and key < len(node) else None
        if holder is None:
            return None
        holder.pop(last, None)
    experiments = rest.get("experiments", {})
    rest["experiments"] = {
        name: section for name, section in experiments.items() if "kind" in section and section.get("grids") != {}
    }
    return {"study": "study", **rest} if rest["experiments"] else None


def follows(sentence: str, problem: Problem) -> bool:
    """Whether a sentence may be a mere consequence of removing another problem's value."""
    if problem.is_needless:
        return False
    text = re.sub(r"grids\.\w+", "", sentence)
    match [key for key in problem.path if isinstance(key, str)]:
        case ["defaults", field] | ["experiments", _, "grids", _, field]:
            return _has_one_of(text, _WITH.get(field, [field]))
        case ["experiments", name, *_]:
            return f"experiments.{name}" in text
        case ["defaults"] | ["experiments"]:
            return True
        case [section, name, key] if section != "checkpoints":
            return _has_one_of(text, [key])
        case [section, name, *_]:
            return f"{section}.{'' if name == BASE else name}" in text or repr(name) in text
        case keys:
            return _has_one_of(text, keys)


# What sentences name that depend on a field of a run, beside those that name the field itself.
_WITH = {"data": ["data", "digits", "images", "num_training"], "model": ["model", "simple_cnn", "images"]}


def _has_one_of(text: str, words: Iterable[str]) -> bool:
    return any(re.search(rf"\b{re.escape(word)}", text) for word in words)


def by_subject(sentences: Iterable[str]) -> list[str]:
    """Keep the first sentence about each key, and one of those that repeat themselves for several grids."""
    first: dict[str, str] = {}
    for sentence in sentences:
        subject = re.split(r" (?:is|must|has|lacks|names) ", sentence)[0]
        of_runs = re.match(r"experiments\.\w+\.grids\.\w+: (.* must .*)", sentence)
        first.setdefault(of_runs[1] if of_runs else subject, sentence)
    return [*first.values()]


def _in_mapping(value: dict[str, Any], schema: Mapping[str, Any], path: tuple[str | int, ...]) -> Iterator[Problem]:
    place, known = _place(path), schema.get("properties", {})
    others = schema.get("additionalProperties", False)
    if len(value) < schema.get("minProperties", 0):
        yield Problem(path, f"{place} is empty, give at least one value")
    for key in schema.get("required", ()):
        if key not in value:
            yield Problem((*path, key), f"{place} lacks the key {key!r}")
    for key, needed in schema.get("dependentRequired", {}).items():
        for other in needed if key in value else ():
            if other not in value:
                yield Problem((*path, key), f"{place} has {key!r} and lacks {other!r}, without which it says nothing")
    for key, item in value.items():
        if demand := unmet(key, schema["propertyNames"]) if "propertyNames" in schema else "":
            yield Problem((*path, key), f"a name in {place} is {key!r}, {demand}")
        elif key in known or others:
            yield from problems(item, known.get(key, others), (*path, key))
        else:
            yield Problem((*path, key), f"unknown key {key!r} in {place}, {known_words(key, known)}", is_needless=True)


def _in_list(value: list[Any], schema: Mapping[str, Any], path: tuple[str | int, ...]) -> Iterator[Problem]:
    if len(value) < schema.get("minItems", 0):
        yield Problem(path, f"{_place(path)} is empty, give at least one value")
    if schema.get("uniqueItems") and any(item in value[:index] for index, item in enumerate(value)):
        yield Problem(path, f"{_place(path)} is {value!r}, {_demand(value, schema, 'must not repeat a value')}")
    for index, item in enumerate(value):
        yield from problems(item, schema["items"], (*path, index))


def _place(path: tuple[str | int, ...]) -> str:
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
    return place or "the study"


def _demand(value: Any, schema: Mapping[str, Any], demand: str) -> str:
    """Say what the schema demands of a value, with a hint and the key's description."""
    if words := schema.get("enum") or (demand.startswith("must be one of") and schema.get("known")):
        demand = known_words(str(value), map(str, words))
    if demand.startswith("must be of type") and isinstance(value, str) and _is_number(value):
        demand += f" (YAML reads it as text; write {_as_yaml(float(value))})"
    if demand.startswith("must be of type") and isinstance(value, dict):
        demand += "".join(f" (its key {key!r} is not text)" for key in value if not isinstance(key, str))
    return f"{demand}: {schema['description']}" if "description" in schema else demand


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _as_yaml(number: float) -> str:
    # Not repr: YAML takes 1e-06 for text, 1.0e-06 for a number.
    return yaml.safe_dump(int(number) if number.is_integer() else number).split()[0]
