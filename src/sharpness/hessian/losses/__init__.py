"""Losses of a network's outputs, each with its first two derivatives."""
