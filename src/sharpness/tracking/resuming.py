"""What a tracker keeps in the checkpoints of a training, and how another goes on from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from sharpness.eigen.eigenpairs import Eigenpairs
from sharpness.tracking.record import CurvatureRecord

_PARTS = ("num_steps", "history", "pairs", "follower")


def state_of(num_steps: int, history: Sequence[CurvatureRecord], pairs: Eigenpairs | None) -> dict[str, Any]:
    """Return plain numbers, text and tensors, which ``torch.load`` reads with ``weights_only=True``."""
    kept = None if pairs is None else {field.name: getattr(pairs, field.name) for field in fields(pairs)}
    return {"num_steps": num_steps, "history": [asdict(record) for record in history], "pairs": kept}


def resumed(state: Mapping[str, Any]) -> tuple[int, list[CurvatureRecord], Eigenpairs | None]:
    """Return the steps, records and eigenpairs of a state.

    Raises:
        TypeError: it is not the state of a tracker.
    """
    if not isinstance(state, Mapping) or not set(_PARTS) <= state.keys():
        got = f"a mapping of {', '.join(map(str, state))}" if isinstance(state, Mapping) else repr(state)
        raise TypeError(f"resume must be what state_dict() of a CurvatureTracker gave, got {got:.200}")
    pairs = state["pairs"]
    history = [CurvatureRecord(**record) for record in state["history"]]
    return state["num_steps"], history, None if pairs is None else Eigenpairs(**pairs)


def check_resumable(state: Mapping[str, Any], num_pairs: int, size: int) -> None:
    """Check that a state has ``num_pairs`` eigenvectors of ``size`` weights.

    Raises:
        ValueError: it does not.
    """
    vectors, records = state["follower"]["vectors"], state["history"]
    if records and (had := len(records[0]["eigenvalues"])) != num_pairs:
        raise ValueError(f"resume is of a tracker of {had} eigenvalues, this one has num_pairs={num_pairs}")
    if vectors is not None and vectors.shape != (num_pairs, size):
        raise ValueError(
            f"resume has eigenvectors of {vectors.shape[1]} weights, here {size} have rows: it is of another network, "
            "or of other parameters"
        )
