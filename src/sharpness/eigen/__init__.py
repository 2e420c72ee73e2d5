"""Eigenpairs and spectra of any symmetric operator."""
