"""Where SGD goes: the curvature of a network's loss along its training trajectory.

The public interface is imported on first use, so that the workflow plans without torch:
``from sharpness import HessianOperator, top_eigenpairs``.
"""

# As strings, since an import of everything by every module would make every stage depend on everything.
_PUBLIC = {
    "Eigenpairs": "sharpness.eigen.lanczos",
    "HessianOperator": "sharpness.hessian.operator",
    "Layout": "sharpness.hessian.layout",
    "Loss": "sharpness.hessian.loss",
    "flatten": "sharpness.hessian.loss",
    "frobenius_norm": "sharpness.eigen.estimators",
    "spectral_density": "sharpness.eigen.estimators",
    "top_eigenpairs": "sharpness.eigen.lanczos",
    "trace": "sharpness.eigen.estimators",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)
