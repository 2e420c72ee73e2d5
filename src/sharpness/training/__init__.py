"""Training: networks, the update rule, checkpoints and the saved state."""
