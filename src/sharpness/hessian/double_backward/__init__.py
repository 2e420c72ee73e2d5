"""Hessian-vector products by double backward, and twice differentiable versions of torch's functions."""
