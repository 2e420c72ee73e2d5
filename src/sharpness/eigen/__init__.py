"""Eigenpairs and spectra of any symmetric operator: it knows vectors only."""
