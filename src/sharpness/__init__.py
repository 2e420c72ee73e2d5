"""Curvature of a network's loss along its training trajectory.

The public interface is imported on first use, so that the workflow plans without torch:
``from sharpness import HessianOperator, top_eigenpairs``.
"""

# Names as strings: imports here would make every stage of the workflow depend on all of these modules.
_PUBLIC = {
    "CurvatureRecord": "sharpness.tracking.record",
    "CurvatureTracker": "sharpness.tracking.tracker",
    "Eigenpairs": "sharpness.eigen.eigenpairs",
    "Estimate": "sharpness.eigen.estimators",
    "HessianOperator": "sharpness.hessian.operator",
    "Layout": "sharpness.hessian.layout",
    "Loss": "sharpness.hessian.loss",
    "SpectralDensity": "sharpness.eigen.estimators",
    "SymmetricOperator": "sharpness.eigen.operators",
    "__version__": "sharpness.version",
    "flatten": "sharpness.hessian.loss",
    "follow_eigenpairs": "sharpness.eigen.lanczos",
    "frobenius_norm": "sharpness.eigen.estimators",
    "load_pairs": "sharpness.eigen.saving",
    "load_run": "sharpness.training.loading",
    "plot_density": "sharpness.plots.spectrum",
    "plot_plane": "sharpness.plots.landscape",
    "plot_slice": "sharpness.plots.landscape",
    "plot_spectrum": "sharpness.plots.spectrum",
    "spectral_density": "sharpness.eigen.estimators",
    "squared_frobenius_norm": "sharpness.eigen.estimators",
    "stability_limit": "sharpness.tracking.limits",
    "top_eigenpairs": "sharpness.eigen.lanczos",
    "trace": "sharpness.eigen.estimators",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """List the public names before they are imported, for completion in notebooks."""
    return sorted({*globals(), *_PUBLIC})
