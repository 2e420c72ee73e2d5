"""Which parameters a curvature has rows for: by patterns of their names, or those that are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from sharpness.hessian.layout import Layout
from sharpness.hessian.loss import Loss

TRAINED = "trained"
"""Stands for the parameters that require a gradient."""


def rows_of(loss: Loss, parameters: str | Sequence[str]) -> Layout:
    """Return the layout of the chosen parameters, in the order of the network.

    Args:
        loss: of the network.
        parameters: a shell-style pattern (``layer3.*``) or several, each of any name that a tied weight has; or
            "trained", the parameters that require a gradient.

    Raises:
        TypeError: it is neither a pattern nor a sequence of patterns.
        ValueError: a pattern matches no parameter, or none is trained.
    """
    patterns = [parameters] if isinstance(parameters, str) else parameters
    if not isinstance(patterns, Sequence) or not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(
            "parameters must be a pattern of names such as 'layer3.*', several of them, or 'trained', got "
            f"{parameters!r}"
        )
    chosen: set[str] = set()
    for pattern in patterns:
        chosen |= _trained(loss) if pattern in (TRAINED, "what is trained") else _matching(loss, pattern)
    pairs = [(n, shape) for n, shape in zip(loss.layout.names, loss.layout.shapes, strict=True) if n in chosen]
    names, shapes = zip(*pairs, strict=True)
    return replace(loss.layout, names=names, shapes=shapes)


def _trained(loss: Loss) -> set[str]:
    if not loss.trained:
        raise ValueError("no parameter is trained: none requires a gradient")
    return set(loss.trained)


def _matching(loss: Loss, pattern: str) -> set[str]:
    names = loss.layout.names
    tied = {other: name for other, name in loss.ties.items() if name in names}
    found = {name for name in names if fnmatchcase(name, pattern)}
    found |= {name for other, name in tied.items() if fnmatchcase(other, pattern)}
    if not found:
        raise ValueError(f"no parameter matches {pattern!r}, there are {', '.join([*names, *tied])}, and 'trained'")
    return found
