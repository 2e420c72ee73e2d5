"""The loss of a network on examples, and its Hessian as an operator."""


def __getattr__(name: str) -> object:
    if name != "HessianOperator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # of the operator, on first use: a package must not depend on all it holds

    return import_module("sharpness.hessian.operator").HessianOperator
