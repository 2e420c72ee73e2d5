"""Data sets as tensors, and their original files."""
