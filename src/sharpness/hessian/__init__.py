"""The loss of a network on examples, and its Hessian as an operator."""


def __getattr__(name: str) -> object:
    if name != "HessianOperator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # on first use, so that importing the package does not import every module

    return import_module("sharpness.hessian.operator").HessianOperator
