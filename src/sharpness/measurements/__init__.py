"""Measurements at a run's checkpoints."""
