"""Hessian-vector products by double backward, and torch's functions made twice differentiable."""
