"""A study's file, read strictly: in UTF-8, one mapping, no key given twice, and no integer that a leading zero changes.

Free of torch and pandas: the workflow imports it each time it plans.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from sharpness.study.schema import StudyError


@dataclass(frozen=True)
class Parsed:
    """What a study's file says."""

    study: Any
    wrong: list[str]  # a sentence for each key that a mapping has twice, and each integer that a leading zero changes


def read_study(path: Path) -> Any:
    """Read a study's file as plain YAML (or JSON) values; ``study_of`` checks them.

    Raises:
        StudyError: as ``parse_study``, or a key is given twice, of which YAML keeps the last, or an integer is
            another for its leading zero, by which YAML takes it for octal.
    """
    parsed = parse_study(path)
    if parsed.wrong:
        raise StudyError.of(str(path), parsed.wrong)
    return parsed.study


def parse_study(path: Path) -> Parsed:
    """Read a study's file.

    Raises:
        StudyError: the file cannot be read, or is no YAML (or JSON) in UTF-8.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}){_nearest(path)}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise StudyError(f"{path}: line {line} is not text in UTF-8; save the file in that encoding") from None
    try:
        return parse(text)
    except yaml.YAMLError as error:
        return _as_json(text, path, error)
    except (ValueError, RecursionError) as error:  # a date that is none, or too many brackets
        raise StudyError(f"{path}: is not valid YAML ({_one_line(error)})") from None


def parse(text: str) -> Parsed:
    """Read a text of YAML.

    Raises:
        yaml.YAMLError: it is no YAML.
        ValueError: a date in it is none.
        RecursionError: it has too many brackets.
    """
    loader = _Loader(text)
    try:
        return Parsed(loader.get_single_data(), loader.wrong)
    finally:
        loader.dispose()


def only_study(paths: Sequence[str | Path]) -> None:
    """Refuse several files for one study, which Snakemake would merge.

    Raises:
        StudyError: there is more than one.
    """
    if len(paths) > 1:
        names = " and ".join(map(str, paths))
        raise StudyError(f"a study is one file and never merges with another, got {names} after --configfile")


def with_types(study: Any, given: Any) -> Any:
    """Read again as YAML what Snakemake's ``--config`` takes for text inside a mapping: ``defaults={epochs: 3}``.

    Args:
        study: what the file says, with what was given in it.
        given: the values that were given.
    """
    if isinstance(study, dict) and isinstance(given, dict):
        return {key: with_types(value, given[key]) if key in given else value for key, value in study.items()}
    if isinstance(study, list) and isinstance(given, list) and len(study) == len(given):
        return [with_types(*pair) for pair in zip(study, given, strict=True)]
    return yaml.safe_load(study) if isinstance(study, str) and study == given else study


def study_name(path: Path) -> str:
    """Read the name of the study in a file.

    Raises:
        StudyError: as ``read_study``, or the study has no name.
    """
    study = read_study(path)
    name = study.get("study") if isinstance(study, dict) else None
    if not isinstance(name, str):
        raise StudyError(f"{path}: the study lacks the key 'study', its name")
    return name


def key_lines(path: Path) -> dict[tuple[str | int, ...], int]:
    """Map the path of every key of a readable study to its line; merged keys have the line where they are written."""
    loader = _Loader(path.read_text(encoding="utf-8").expandtabs())
    try:
        node = loader.get_single_node()
        if node is not None:
            loader.construct_document(node)  # which flattens what is merged
        return dict(_lines(loader, node, ()))
    finally:
        loader.dispose()


def _lines(loader: _Loader, node: yaml.Node | None, path: tuple[str | int, ...]) -> Iterator[tuple[Any, int]]:
    """Path and line of every key below a node whose merged keys are among its own."""
    pairs: list[tuple[Any, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        pairs = [(loader.construct_object(key), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(index, value, value) for index, value in enumerate(node.value)]
    for key, at, value in pairs:
        yield (*path, key), at.start_mark.line + 1
        yield from _lines(loader, value, (*path, key))


def _as_json(text: str, path: Path, error: yaml.YAMLError) -> Parsed:
    """Parse JSON that is not YAML (indented by tabs), which Snakemake reads too."""
    try:
        study = json.loads(text)
        parsed = parse(text.expandtabs())
    except (ValueError, RecursionError, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f"line {mark.line + 1} "
        problem = getattr(error, "problem", None) or error
        raise StudyError(f"{path}: {place}is not valid YAML ({_one_line(problem)})") from None
    return replace(parsed, study=study)


def _nearest(path: Path) -> str:
    """Suggest names for a file that does not exist."""
    names = sorted(other.stem for other in path.parent.glob("*.yaml"))
    nearest = get_close_matches(path.stem, names) or names
    return f"; nearest in {path.parent}: {', '.join(nearest)}" if nearest and not path.exists() else ""


def _one_line(cause: object) -> str:
    return " ".join(str(cause).split())


_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Takes down keys that a mapping gives twice, and octal integers; what it merges (``<<``) it may replace."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._text = stream
        self.wrong: list[str] = []
        self._checked: set[yaml.Node] = set()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self._check_keys(node)
        return super().construct_mapping(node, deep=deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # A mapping is flattened before it is constructed, and after that its own keys look like merged ones.
        self._check_keys(node)
        super().flatten_mapping(node)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Take down an integer with a leading zero: in YAML 1.1 it is octal, which hardly anybody means."""
        value = int(super().construct_yaml_int(node))
        found = re.fullmatch(r"([-+]?)0+(\d+)", node.value.replace("_", ""))
        if found and int(found[1] + found[2]) != value:
            line = node.start_mark.line + 1
            self.wrong.append(
                f"{node.value} in line {line} has a leading zero, by which YAML reads it as {value}: "
                f"write {found[1]}{found[2]} or {value}"
            )
        return value

    def _check_keys(self, node: yaml.MappingNode) -> None:
        if node in self._checked:
            return
        self._checked.add(node)
        first: dict[Any, tuple[int, str]] = {}  # line and value
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # refused when it is constructed, or by the schema
            key = "<<" if key_node.tag == _MERGE else self.construct_object(key_node)
            line = key_node.start_mark.line + 1
            value = self._text[value_node.start_mark.index : value_node.end_mark.index]
            if key in first:
                other_line, other = first[key]
                places = f", in line {other_line} and in line {line}"
                if line == other_line:
                    places = f" in line {line}, as {other} and as {value}"
                self.wrong.append(f"the key {key!r} is given twice{places}")
            first[key] = (line, value)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)


if __name__ == "__main__":
    try:
        print(study_name(Path(sys.argv[1])))
    except StudyError as error:
        sys.exit(str(error))
