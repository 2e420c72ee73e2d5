"""Eigenpairs that a spectrum keeps, for the other measurements of the same checkpoints and for people."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sharpness.eigen.lanczos import Eigenpairs
from sharpness.eigen.saving import load_pairs
from sharpness.hessian.operator import HessianOperator
from sharpness.runtime.sealed import DamagedError, digest_of
from sharpness.training.checkpoints import Snapshot

_log = logging.getLogger(__name__)


def keep(pairs: Eigenpairs, operator: HessianOperator, state: Snapshot, folder: Path, told: Mapping[str, str]) -> None:
    """Write the eigenpairs of ``operator`` at ``state`` to a file of ``folder``, by its step.

    Eigenvectors are in the order of ``parameters_to_vector``, as everywhere outside the pipeline.

    Args:
        pairs: of ``operator``.
        operator: the Hessian at ``state``.
        state: the checkpoint.
        folder: for the files of all checkpoints.
        told: what the run and its data are known by, kept beside what the operator says of itself.
    """
    order = operator.layout.in_torchs_order
    rows = torch.stack([operator.layout.converted(row, order) for row in pairs.eigenvectors])
    provenance = {**pairs.provenance, **_of_state(state), **told}
    replace(pairs, eigenvectors=rows, provenance=provenance).save(_file(folder, state))


def find(
    operator: HessianOperator,
    state: Snapshot,
    folders: Sequence[Path],
    told: Mapping[str, str],
    *,
    num_pairs: int,
    tolerance: float,
) -> Eigenpairs | None:
    """Read the leading eigenpairs of ``operator`` at ``state`` from the first of ``folders`` that has them.

    Args:
        operator: the Hessian at ``state``.
        state: the checkpoint.
        folders: with files that ``keep`` wrote.
        told: as ``keep`` was told.
        num_pairs: how many are wanted.
        tolerance: their largest residual.

    Returns:
        The pairs, which took no products; None where no folder has a file of this step, or its residuals are larger.

    Raises:
        DamagedError: a file is not what was written, or holds the eigenpairs of something else.
    """
    for path in (_file(folder, state) for folder in folders):
        if not path.exists():
            continue
        pairs = load_pairs(path, device=operator.device)
        _check(pairs, {**operator.provenance, **_of_state(state), **told}, path)
        worst = float(pairs.residuals[:num_pairs].max())
        if worst > tolerance or pairs.complete is False:
            _log.info("step %d: those in %s have not converged, residual %.1e", state.step, path, worst)
            continue
        order = operator.layout.in_torchs_order
        rows = torch.stack([order.converted(row, operator.layout) for row in pairs.eigenvectors[:num_pairs]])
        return replace(
            pairs,
            eigenvalues=pairs.eigenvalues[:num_pairs],
            eigenvectors=rows,
            residuals=pairs.residuals[:num_pairs],
            num_products=0,
            num_probing=0,
            num_certifying=0,
        )
    return None


def _file(folder: Path, state: Snapshot) -> Path:
    return folder / f"{state.step}.safetensors"


def _of_state(state: Snapshot) -> dict[str, Any]:
    return {"step": state.step, "weights": digest_of(state.weights), "buffers": digest_of(state.buffers)}


def _check(pairs: Eigenpairs, expected: dict[str, Any], path: Path) -> None:
    for name, value in expected.items():
        if (found := pairs.provenance.get(name)) != value:
            raise DamagedError(
                f"{path} holds eigenpairs of another {name.replace('_', ' ')} ({found}, here it is {value}): "
                f"remove {path.parent}, and it is made anew"
            )
