"""Hessian-vector products by the R-operator, operation by operation."""
