"""What a tracker keeps in the checkpoints of a training, and how another goes on from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from torch import Tensor

from sharpness.eigen.eigenpairs import Eigenpairs
from sharpness.tracking.record import CurvatureRecord

# What does not change along a training, of what pairs say that they are of.
_OF_THE_HESSIAN = ("parameters", "loss", "num_examples", "curvature", "batch_statistics", "l2")


def state_of(num_steps: int, history: Sequence[CurvatureRecord], pairs: Eigenpairs | None) -> dict[str, Any]:
    """Return plain numbers, text and tensors, which ``torch.load`` reads with ``weights_only=True``."""
    kept = None if pairs is None else {field.name: getattr(pairs, field.name) for field in fields(pairs)}
    return {"num_steps": num_steps, "history": [asdict(record) for record in history], "pairs": kept}


def resumed(state: Mapping[str, Any]) -> tuple[int, list[CurvatureRecord], Eigenpairs | None]:
    """Return the steps, records and eigenpairs of a state.

    Raises:
        TypeError: it is not the state of a tracker.
    """
    try:
        pairs, vectors = state["pairs"], state["follower"]["vectors"]
        history = [CurvatureRecord(**record) for record in state["history"]]
        number = int(state["num_steps"])
        if vectors is not None and vectors.dim() != 2:
            raise ValueError("no rows")
        return number, history, None if pairs is None else Eigenpairs(**pairs)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        got = f"a mapping of {', '.join(map(str, state))}" if isinstance(state, Mapping) else repr(state)
        raise TypeError(f"resume must be what state_dict() of a CurvatureTracker gave, got {got:.200}") from None


def on_device(pairs: Eigenpairs, like: Tensor) -> Eigenpairs:
    """Return eigenpairs as a tracker has them, wherever they were loaded: vectors like ``like``, values on the CPU."""
    values, residuals = pairs.eigenvalues.cpu(), pairs.residuals.cpu()
    return replace(pairs, eigenvalues=values, residuals=residuals, eigenvectors=pairs.eigenvectors.to(like))


def check_resumable(state: Mapping[str, Any], num_pairs: int, provenance: Mapping[str, Any]) -> None:
    """Check that a state has ``num_pairs`` eigenpairs of the same Hessian.

    Args:
        state: that of the training before.
        num_pairs: k.
        provenance: of the Hessian that is tracked now.

    Raises:
        ValueError: it has not.
    """
    records, vectors, pairs = state["history"], state["follower"]["vectors"], state["pairs"]
    found = len(records[0]["eigenvalues"]) if records else num_pairs if vectors is None else len(vectors)
    if found != num_pairs:
        raise ValueError(f"resume is of a tracker of {found} eigenvalues, this one has num_pairs={num_pairs}")
    of_pairs = {} if pairs is None else pairs["provenance"]
    differing = [name for name in _OF_THE_HESSIAN if name in of_pairs and of_pairs[name] != provenance[name]]
    if differing:
        name = differing[0]
        shown = "" if name == "parameters" else f": {of_pairs[name]}, here {provenance[name]}"
        raise ValueError(f"resume is of another Hessian: its {name.replace('_', ' ')} differ{shown}")
    size = sum(math.prod(shape) for shape in provenance["parameters"].values())
    if vectors is not None and vectors.shape[1] != size:
        raise ValueError(f"resume has eigenvectors of {vectors.shape[1]} weights, here {size} have rows")
