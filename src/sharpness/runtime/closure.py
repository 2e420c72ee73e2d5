"""Find the source files on which a module depends: its import closure in this package, without importing.

The workflow's rules take a listing of these files as an input, so that an edit re-runs exactly what depends on it.
Standard library only.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PACKAGE = str(__package__).partition(".")[0]
_STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)
_FOR_TYPE_CHECKERS = re.compile(r"^if TYPE_CHECKING:\n(?:(?: .*)?\n)+", re.MULTILINE)
_IMPORT = re.compile(
    r"^ *(?:import ([\w., ]+)|from ([\w.]+) import (?:\(([\w\s,]+)\)|([\w ,*]+)))(?:  #.*)?$", re.MULTILINE
)
_WORD = re.compile(r"\bimport\b")
# Digest of each source file when this process began, by path; empty unless ``remember`` was called.
_at_start: dict[str, bytes] = {}


class SourcesChangedError(ValueError):
    """Source files were edited while they ran; the message names them."""


def remember() -> None:
    """Record a digest of every source file of this package, before any of them is imported.

    ``version`` uses these digests from then on, so that it describes the code that runs, even if files are edited.
    """
    _at_start.update({str(path): _digest(path) for path in (_ROOT / _PACKAGE).rglob("*.py")})


def remember_files(paths: Iterable[str]) -> None:
    """Record a digest of a user's files too, before they are imported; the first one counts."""
    for path in map(os.path.realpath, paths):
        _at_start.setdefault(path, _digest(Path(path)))


def digest_of_files(paths: Iterable[str]) -> str:
    """Hash files, as recorded by ``remember`` and ``remember_files``; hexadecimal."""
    digests = (_at_start.get(os.path.realpath(path)) or _digest(Path(path)) for path in paths)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def is_module(name: str) -> bool:
    """Whether there is a module of this name in this package."""
    return _path(name) is not None


def check_unchanged() -> None:
    """Check that the imported modules of this package, and a user's, are unchanged since they were remembered.

    Raises:
        SourcesChangedError: one has changed, so that results belong to no single version of the code.
    """
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    changed = sorted(path for path, digest in _at_start.items() if path in loaded and _digest(Path(path)) != digest)
    if changed:
        names = ", ".join(told(Path(path)) for path in changed)
        raise SourcesChangedError(
            f"{names} changed while this job ran, so that its results would belong to neither version: run it again"
        )


def sources(*modules: str) -> list[str]:
    """List the paths of ``modules`` and of all modules of this package that they import, directly or not; sorted.

    Args:
        modules: full names, such as "sharpness.stages.train".

    Raises:
        ModuleNotFoundError: there is no such module in this package.
    """
    for module in modules:
        if _path(module) is None:
            raise ModuleNotFoundError(f"no module {module} under {_ROOT}")
    found: set[str] = set()
    waiting = set(modules)
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= _imported(name) - found
    return sorted(str(_path(name)) for name in found)


def version(*modules: str) -> str:
    """Hash the source files of ``modules``, as recorded by ``remember``; hexadecimal.

    Raises:
        ModuleNotFoundError: there is no such module in this package.
    """
    digests = (_at_start.get(source) or _digest(Path(source)) for source in sources(*modules))
    return hashlib.sha256(b"".join(digests)).hexdigest()


def told(path: Path) -> str:
    """Name a source file in a message or listing: from this package on, wherever the project lies."""
    return str(path.relative_to(_ROOT)) if path.is_relative_to(_ROOT) else os.path.relpath(path)


def _digest(path: Path) -> bytes:
    """Digest of a file's contents; that of an empty file if it is gone."""
    return hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest()


@cache
def _imported(module: str) -> frozenset[str]:
    path = _path(module)
    assert path is not None  # callers pass only names with a file
    text = path.read_text(encoding="utf-8")
    names = _at_a_glance(text)
    if names is None:
        names = _parsed(text)
    # Importing a module imports its packages.
    return frozenset(name for name in {module.rpartition(".")[0], *names} if _path(name) is not None)


def _at_a_glance(text: str) -> set[str] | None:
    """List what a source imports from its lines, ten times faster than Python parses it; None where they may not tell.

    They tell where each line with the word "import", outside of the block for type checkers, is a plain import.
    """
    text = _FOR_TYPE_CHECKERS.sub("", text)
    found = list(_IMPORT.finditer(text))
    if len(found) != len(_WORD.findall(text)):
        return None
    names: set[str] = set()
    for modules, package, several, one in (match.groups() for match in found):
        plain = [words.split()[0] for words in (modules or several or one).split(",") if words.strip()]
        names |= {package, *(f"{package}.{name}" for name in plain)} if package else set(plain)
    return names


def _parsed(text: str) -> set[str]:
    names: set[str] = set()
    for node in executed(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements of a tree, except imports for type checkers only."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        children: list[ast.AST] = [*node.orelse]
    else:
        # Expressions are most of a tree, and import nothing.
        children = [child for child in ast.iter_child_nodes(node) if isinstance(child, _STATEMENTS)]
    yield node
    for child in children:
        yield from executed(child)


@cache
def _path(module: str) -> Path | None:
    """Path of a module of this package; None for anything else."""
    base = _ROOT.joinpath(*module.split("."))
    if module.partition(".")[0] != _PACKAGE:
        return None
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
