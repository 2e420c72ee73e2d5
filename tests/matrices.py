"""Symmetric matrices made to order, for the tests of what works on any operator."""

import numpy as np
import torch


class Counting:
    """A matrix that counts its products."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device
        self.products = 0

    def __matmul__(self, vector):
        self.products += 1
        return self.matrix @ vector


def with_spectrum(eigenvalues, seed=0):
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    size = len(eigenvalues)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    matrix = basis @ np.diag(np.asarray(eigenvalues, dtype=float)) @ basis.T
    return torch.from_numpy((matrix + matrix.T) / 2)
