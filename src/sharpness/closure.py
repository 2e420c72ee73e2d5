"""Which source files a module's behaviour follows from: its import closure in this package, found without importing.

The rules of the workflow take these files as inputs, so that an edit re-runs exactly what depends on it.
Standard library only.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parent.parent


def sources(module: str) -> list[str]:
    """Paths of ``module`` and of every module of this package that it imports, directly or not, sorted.

    Args:
        module: a full name, such as "sharpness.stages.train".

    Raises:
        ModuleNotFoundError: there is no such module in this package.
    """
    if _path(module) is None:
        raise ModuleNotFoundError(f"no module {module} under {_ROOT}")
    found: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= _imported(name) - found
    return sorted(str(_path(name)) for name in found)


def version(module: str) -> str:
    """Of the code that ``module`` runs: a hash over its sources, in hexadecimal digits.

    Raises:
        ModuleNotFoundError: there is no such module in this package.
    """
    return hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources(module))).hexdigest()


@cache
def _imported(module: str) -> frozenset[str]:
    path = _path(module)
    assert path is not None  # only names with a file are ever asked for
    names = {module.rpartition(".")[0]}  # importing a module runs its packages
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in names if _path(name) is not None)


@cache
def _path(module: str) -> Path | None:
    """The file of a module of this package; None for anything else."""
    base = _ROOT.joinpath(*module.split("."))
    if module.partition(".")[0] != __package__:
        return None
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
