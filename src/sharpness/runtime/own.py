"""A user's own functions and classes, which a study names as ``file.py:name``: where they are, and what they need.

Standard library only. Planning finds and parses files, and imports none; ``load`` and ``call`` run in jobs.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from sharpness.runtime import closure, definitions
from sharpness.runtime.definitions import Definition, OwnError

VARIABLE = "SHARPNESS_STUDY_FOLDER"
"""The environment variable that tells jobs the folder of the study's file: paths in a study are relative to it."""

_REFERENCE = re.compile(r"(?P<place>[^:\s][^:]*):(?P<name>[A-Za-z_]\w*)")


def folder() -> Path:
    """Return the folder of the study's file."""
    return Path(os.environ.get(VARIABLE, "."))


@contextmanager
def beside(study: Path) -> Iterator[None]:
    """Take paths as relative to a study's file, unless a job was told its folder: it may read a copy of the file."""
    is_told = VARIABLE in os.environ
    os.environ.setdefault(VARIABLE, os.path.relpath(study.parent))
    try:
        yield
    finally:
        if not is_told:
            del os.environ[VARIABLE]


def is_reference(text: str) -> bool:
    """Whether a word of a study names something of one's own: ``file.py:name``, or ``package.module:name``."""
    return _REFERENCE.fullmatch(text) is not None


def name_of(reference: str) -> str:
    """Name what a reference names in files and tables: ``probe`` for ``my_probe.py:Probe``."""
    return _parts(reference)[1].lower()


def path_of(reference: str) -> Path | None:
    """Find the file of a reference; None for a module of an installed package.

    Raises:
        OwnError: there is neither.
    """
    place = _parts(reference)[0]
    path = folder() / (place if place.endswith(".py") else f"{place.replace('.', '/')}.py")
    if path.is_file():
        return path
    package = place.partition(".")[0]
    if not place.endswith(".py") and package.isidentifier() and importlib.util.find_spec(package) is not None:
        return None
    near = get_close_matches(path.name, [other.name for other in path.parent.glob("*.py")], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise OwnError(f"{reference!r} names the file {path}, which does not exist{hint}; it is relative to the study's")


def definition(reference: str) -> Definition | None:
    """Return what a reference names, as its file's text says; None in an installed package."""
    path = path_of(reference)
    return None if path is None else Definition(path, _parts(reference)[1])


def place_of_definition(reference: str) -> str:
    """Name the file and the line at which a user's function or class begins."""
    found = definition(reference)
    return reference if found is None else found.place


def check(reference: str) -> None:
    """Check, without running it, that a file can be parsed, imports what is there, and defines the name.

    Raises:
        OwnError: it cannot, or does not.
    """
    path = path_of(reference)
    if path is None:
        return
    name = _parts(reference)[1]
    for file in _found(reference)[0]:
        _check_imports(Path(file))
    if without := _said_without(path, name):
        raise OwnError(without)


def _said_without(path: Path, name: str) -> str:
    """Say that a file does not define a name, and what it has; "" where it does, or may while it runs."""
    names = definitions.names(path)
    if name in names or names & {"*", "__getattr__"}:
        return ""
    known = get_close_matches(name, names, n=1) or sorted(each for each in names if not each.startswith("_"))
    return f"{path} defines no {name!r}; it has {', '.join(known) or 'nothing'}"


def _check_imports(path: Path) -> None:
    """Check that there is what a file imports in any case, not below an ``if`` or ``try``.

    Raises:
        OwnError: a module is neither installed nor beside the file or the study, or one of the user's lacks a name.
    """
    for node in definitions.parsed(path).body:
        if isinstance(node, ast.ImportFrom):
            _check_names(path, node)
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        for name in names:
            package = name.partition(".")[0]
            if not any(_files(path, package, 0)) and not _is_folder(path, package) and not _is_installed(package):
                place = f"{path}, line {node.lineno}"
                raise OwnError(f"{place}: there is no module {name!r}, installed or beside the study")


def _check_names(path: Path, node: ast.ImportFrom) -> None:
    """Check that the user's file from which another imports names has them.

    Raises:
        OwnError: it lacks one.
    """
    module = _module_file(path, node.module or "", node.level)
    if module is None:
        return
    text = module.read_text(encoding="utf-8", errors="replace")
    for name in (alias.name for alias in node.names if alias.name != "*"):
        is_module = _module_file(path, f"{node.module or ''}.{name}".lstrip("."), node.level) is not None
        # A name that the text has elsewhere may be made as it runs.
        if is_module or (module.parent / name).is_dir() or re.search(rf"\b{name}\b", text):
            continue
        if without := _said_without(module, name):
            raise OwnError(f"{path}, line {node.lineno}: {without}")


def _module_file(path: Path, name: str, level: int) -> Path | None:
    """The user's file from which names are imported; None where it is another's, or a folder without a file."""
    if not level and name.partition(".")[0] in sys.stdlib_module_names:
        return None
    for root in [path.parents[level - 1]] if level else _roots(path):
        whole = root.joinpath(*name.split(".")) if name else root
        for file in (whole / "__init__.py", whole.with_name(f"{whole.name}.py")):
            if file.is_file():
                return file
    return None


def _is_folder(path: Path, package: str) -> bool:
    """Whether there is a folder of the name, which Python imports even without a file in it."""
    return any((root / package).is_dir() for root in _roots(path))


@cache
def _is_installed(package: str) -> bool:
    return package in sys.builtin_module_names or importlib.util.find_spec(package) is not None


def sources(*references: str) -> list[str]:
    """List the files of references and the user's files that these import, directly or not; sorted.

    Modules of this package that they import are among them, installed packages are not.

    Raises:
        OwnError: a file does not exist or cannot be parsed.
    """
    found, modules = _found(*references)
    return sorted({*found, *(os.path.relpath(file) for file in closure.sources(*modules))})


def _found(*references: str) -> tuple[set[str], set[str]]:
    """The user's files behind references, and the modules of this package that they import."""
    named = [path for reference in references if (path := path_of(reference)) is not None]
    waiting = {os.path.normpath(file) for path in named for file in _packages(path)}
    found, modules = set[str](), set[str]()
    while waiting:
        file = waiting.pop()
        found.add(file)
        for name, level in definitions.imports(Path(file)):
            waiting |= {os.path.normpath(other) for other in _files(Path(file), name, level)} - found
            if not level and closure.is_module(name):
                modules.add(name)
    return found, modules


def version(*references: str) -> str:
    """Hash the files of references, and those that they import; hexadecimal, twelve digits, "" without a file."""
    return closure.digest_of_files(sources(*references))[:12] if references else ""


def made_by(references: tuple[str, ...]) -> dict[str, str]:
    """Return the provenance of what a user's own code had a part in: its version; nothing without any."""
    return {"own_code": version(*references)} if references else {}


def load(reference: str) -> Any:
    """Import the file of a reference and return what it names.

    Raises:
        OwnError: the file cannot be imported, or does not have the name.
    """
    path, (place, name) = path_of(reference), _parts(reference)
    if path is not None:
        closure.remember_files(sources(reference))
    with _importing(reference):
        module = importlib.import_module(place) if path is None else _module(path)
    try:
        return getattr(module, name)
    except AttributeError:
        raise OwnError(f"{path or place} has no {name!r}") from None


def call(reference: str, function: Callable[..., Any], /, *words: Any, **arguments: Any) -> Any:
    """Call a user's function.

    Raises:
        OwnError: it failed; the message has the line of the user's file.
    """
    with _importing(reference):
        return function(*words, **arguments)


@contextmanager
def blamed(reference: str, doing: str = "") -> Iterator[None]:
    """Turn an error of a user's code into one sentence with the line of the user's file.

    Args:
        reference: the code.
        doing: what it was to do, for the message.
    """
    try:
        yield
    except (OwnError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())
        what = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise OwnError(f"{_place_of(error, reference)}: {what}{f' ({doing})' if doing else ''}") from error


def _parts(reference: str) -> tuple[str, str]:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise OwnError(f"{reference!r} must be file.py:name, as my_models.py:build")
    return match["place"], match["name"]


def _place_of(error: BaseException, reference: str) -> str:
    """The last line of the user's own files at which an error was raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{os.path.relpath(error.filename)}, line {error.lineno}"
    own = {os.path.realpath(path) for path in sources(reference)}
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if os.path.realpath(frame.filename) in own]
    return (
        f"{os.path.relpath(lines[-1].filename)}, line {lines[-1].lineno}" if lines else place_of_definition(reference)
    )


@contextmanager
def _importing(reference: str) -> Iterator[None]:
    """Let a user's file import those beside it and beside the study, and leave no compiled files there."""
    path = path_of(reference)
    roots = [] if path is None else [str(root.resolve()) for root in _roots(path)]
    before = sys.dont_write_bytecode
    sys.path[:0] = roots
    sys.dont_write_bytecode = True
    try:
        with blamed(reference):
            yield
    finally:
        sys.dont_write_bytecode = before
        for root in roots:
            sys.path.remove(root)


def _module(path: Path) -> Any:
    """Import a file, as a module of its package where it is in one."""
    path = path.resolve()
    inside = path.with_suffix("").relative_to(folder().resolve()) if path.is_relative_to(folder().resolve()) else None
    parts = (path.stem,) if inside is None else inside.parts
    name = ".".join(parts)
    taken = getattr(sys.modules.get(name), "__file__", None)
    if taken and os.path.realpath(taken) == str(path):
        return sys.modules[name]
    is_plain = all(part.isidentifier() for part in parts)
    package = sys.modules.get(parts[0])
    within = [Path(root) for root in getattr(package, "__path__", ())]
    is_theirs = package is None or any(path.is_relative_to(root.resolve()) for root in within)
    if is_plain and is_theirs and name not in sys.modules:
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        if os.path.realpath(str(module.__file__)) == str(path):
            return module
    spec = importlib.util.spec_from_file_location(f"own_{re.sub(r'[^A-Za-z0-9]', '_', name)}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _packages(path: Path) -> Iterator[Path]:
    """Yield a file, and the packages between it and the study's folder, which importing it runs."""
    yield path
    if path.is_relative_to(folder()):
        parents = path.relative_to(folder()).parents
        yield from (file for parent in parents if (file := folder() / parent / "__init__.py").is_file())


def _roots(path: Path) -> list[Path]:
    """Where a user's file finds what it imports: beside it, then beside the study."""
    return list(dict.fromkeys([path.parent, folder()]))


def _files(path: Path, name: str, level: int) -> Iterator[Path]:
    """Yield the user's files that importing a dotted name runs: packages and the module."""
    roots = [path.parents[level - 1]] if level else _roots(path)
    parts = name.split(".") if name else []
    for root in roots:
        candidates = [root.joinpath(*parts[:length]) for length in range(1, len(parts) + 1)]
        files = [root / "__init__.py"] if level else []
        for candidate in candidates:
            files += [candidate.with_name(f"{candidate.name}.py"), candidate / "__init__.py"]
        yield from (file for file in files if file.is_file())
