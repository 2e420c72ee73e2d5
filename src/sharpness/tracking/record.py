"""What a tracker measured at one step of a training."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class CurvatureRecord:
    """The leading eigenvalues after one step of a training, beside the stability limit, and their cost."""

    step: int  # updates before it
    eigenvalues: tuple[float, ...]  # [k], largest first; NaN once the training has diverged
    residuals: tuple[float, ...]  # [k], |H v - λ v| / max|λ|
    found_by: str  # followed, or why they were searched anew; diverged if the curvature is not finite
    overlap: float | None  # mean squared cosine of the angles to the previous eigenvectors
    beyond: float | None  # largest curvature that a probe found outside the span of the followed eigenvectors
    complete: bool | None  # True: a search missed none of them (99.9 %); None: unknown, as after following
    learning_rate: float | None  # η of the next step; None without an optimizer
    rate_times_eigenvalue: float | None  # η times the largest eigenvalue
    rate_limit: float | None  # the stability limit of η λ, such as 2 for SGD; None where η is 0
    stable_below: float | None  # the same limit as an eigenvalue
    batch_sharpness: float | None  # mean curvature of mini-batches along their own gradients
    batch_sharpness_error: float | None  # its standard error
    num_products: int  # Hessian-vector products that this took, those of Batch Sharpness included
    cpu_seconds: float  # CPU time of the process that it took
    seconds: float  # the same by the clock, for GPUs

    def columns(self) -> dict[str, object]:
        """Return the record as a row of a table, with a column for every eigenvalue and residual."""
        row: dict[str, object] = {}
        for name, value in asdict(self).items():
            if isinstance(value, tuple):
                row |= {f"{name.removesuffix('s')}_{rank}": entry for rank, entry in enumerate(value)}
            else:
                row[name] = value
        return row
