"""What a Python file defines and imports, read from its text: nothing of it runs. Standard library only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sharpness.runtime import closure


class OwnError(ValueError):
    """A user's file cannot be used; the message is one sentence that names it, with the line where there is one."""


@dataclass(frozen=True)
class Definition:
    """What a file defines under a name: a function, a class, or something else at its top."""

    path: Path
    name: str

    @property
    def place(self) -> str:
        """The file, and the line at which the definition begins."""
        line = next((node.lineno for node in parsed(self.path).body if self.name in _defined(node)), None)
        return str(self.path) if line is None else f"{self.path}, line {line}"

    @property
    def docstring(self) -> str:
        """What the function or class says of itself; "" where it says nothing.

        Raises:
            OwnError: the file cannot be parsed.
        """
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        found = [node for node in parsed(self.path).body if isinstance(node, kinds) and node.name == self.name]
        return (ast.get_docstring(found[-1]) or "") if found else ""

    @property
    def needed(self) -> list[str]:
        """The arguments without which the function cannot be called; none where it is no plain one.

        Raises:
            OwnError: the file cannot be parsed.
        """
        function = self._plain_function()
        if function is None:
            return []
        arguments = function.args
        placed = [*arguments.posonlyargs, *arguments.args]
        without = placed[: len(placed) - len(arguments.defaults)]
        keyed = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        return [each.arg for each in (*without, *(each for each, default in keyed if default is None))]

    @property
    def returns_nothing(self) -> bool:
        """Whether the function has no value wherever it ends; False where it is no plain one.

        Raises:
            OwnError: the file cannot be parsed.
        """
        function = self._plain_function()
        return function is not None and not any(map(_gives, _within(function)))

    def _plain_function(self) -> ast.FunctionDef | None:
        """The function's definition; None where there is none, or decorators change what it is."""
        nodes = parsed(self.path).body
        found = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == self.name]
        return found[-1] if found and not found[-1].decorator_list else None


def names(path: Path) -> set[str]:
    """The names that a file defines at its top; "*" is among them where it imports all of another.

    Raises:
        OwnError: the file cannot be parsed.
    """
    return {name for node in parsed(path).body for name in _defined(node)}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every name that a file imports, with the dots before it.

    Raises:
        OwnError: the file cannot be parsed.
    """
    for node in closure.executed(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield base, node.level
            yield from ((f"{base}.{alias.name}".lstrip("."), node.level) for alias in node.names if alias.name != "*")


def parsed(path: Path) -> ast.Module:
    """The file's syntax tree.

    Raises:
        OwnError: the file cannot be parsed.
    """
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size)


@cache
def _read(path: Path, *_: int) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        place = f"{path}, line {line}" if line else str(path)
        raise OwnError(f"{place} is not valid Python: {' '.join(str(getattr(error, 'msg', error)).split())}") from None


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
