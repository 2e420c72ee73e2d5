"""Data sets as tensors, and where their original files are."""
