"""A user's own functions and classes, which a study names as ``file.py:name``: where they are, and what they say.

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

from sharpness.runtime import closure

VARIABLE = "SHARPNESS_STUDY_FOLDER"
"""The environment variable that tells jobs the folder of the study's file: paths in a study are relative to it."""

_REFERENCE = re.compile(r"(?P<place>[^:\s][^:]*):(?P<name>[A-Za-z_]\w*)")


class OwnError(ValueError):
    """A user's file cannot be used; the message is one sentence that names it, with the line where there is one."""


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
    names = {found for node in _parsed(path).body for found in _defined(node)}
    if name not in names and "*" not in names and "__getattr__" not in names:
        known = get_close_matches(name, names, n=1) or sorted(each for each in names if not each.startswith("_"))
        raise OwnError(f"{path} defines no {name!r}; it has {', '.join(known) or 'nothing'}")


def _check_imports(path: Path) -> None:
    """Check that the modules exist that a file imports in any case, not below an ``if`` or ``try``.

    Raises:
        OwnError: one is neither installed nor beside the file or the study.
    """
    for node in _parsed(path).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        for name in names:
            package = name.partition(".")[0]
            if not any(_files(path, package, 0)) and not _is_folder(path, package) and not _is_installed(package):
                place = f"{path}, line {node.lineno}"
                raise OwnError(f"{place}: there is no module {name!r}, installed or beside the study")


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
        for name, level in _imports(Path(file)):
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


def place_of_definition(reference: str) -> str:
    """Name the file and the line at which a user's function or class begins."""
    path = path_of(reference)
    if path is None:
        return reference
    name = _parts(reference)[1]
    line = next((node.lineno for node in _parsed(path).body if name in _defined(node)), None)
    return str(path) if line is None else f"{path}, line {line}"


def needed(reference: str) -> list[str]:
    """The arguments without which a user's function cannot be called, as its file says; none where it is no plain one.

    Raises:
        OwnError: its file cannot be parsed.
    """
    function = _plain_function(reference)
    if function is None:
        return []
    arguments = function.args
    placed = [*arguments.posonlyargs, *arguments.args]
    without = placed[: len(placed) - len(arguments.defaults)]
    keyed = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [each.arg for each in (*without, *(each for each, default in keyed if default is None))]


def returns_nothing(reference: str) -> bool:
    """Whether a user's function has no value wherever it ends, as its file says; False where it is no plain one.

    Raises:
        OwnError: its file cannot be parsed.
    """
    function = _plain_function(reference)
    return function is not None and not any(map(_gives, _within(function)))


def _plain_function(reference: str) -> ast.FunctionDef | None:
    """The definition of a user's function; None where there is none, or decorators change what it is."""
    path, name = path_of(reference), _parts(reference)[1]
    nodes = [] if path is None else _parsed(path).body
    found = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == name]
    return found[-1] if found and not found[-1].decorator_list else None


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what belongs to a function, and not to functions and classes inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield child
            yield from _within(child)


def _gives(node: ast.AST) -> bool:
    """Whether a function with this in it has a value."""
    if isinstance(node, ast.Return):
        return node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None)
    return isinstance(node, ast.Yield | ast.YieldFrom)


def docstring(reference: str) -> str:
    """What a user's function or class says of itself, without running it; "" where it says nothing.

    Raises:
        OwnError: its file cannot be parsed.
    """
    path = path_of(reference)
    nodes = [] if path is None else _parsed(path).body
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    found = [node for node in nodes if isinstance(node, kinds) and node.name == _parts(reference)[1]]
    return (ast.get_docstring(found[-1]) or "") if found else ""


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


@cache
def _read(path: Path, *_: int) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        place = f"{path}, line {line}" if line else str(path)
        raise OwnError(f"{place} is not valid Python: {' '.join(str(getattr(error, 'msg', error)).split())}") from None


def _parsed(path: Path) -> ast.Module:
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size)


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every name that a file imports, with the dots before it."""
    for node in closure.executed(_parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield base, node.level
            yield from ((f"{base}.{alias.name}".lstrip("."), node.level) for alias in node.names if alias.name != "*")


def _defined(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement at the top of a file defines."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Import() | ast.ImportFrom():
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
        case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
            children = (child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node)
            yield from (name for child in children for name in _defined_alone(child))


def _defined_alone(node: ast.stmt) -> Iterator[str]:
    if not isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
        yield from _defined(node)
