"""Networks, the update rule, the training loop, checkpoints and the saved state."""
