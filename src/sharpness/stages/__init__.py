"""Stages: one module per rule of the workflow, each a typed function run as ``python -m sharpness.stages.<stage>``."""

from sharpness.runtime import closure

closure.remember()  # before the modules that a stage runs are imported
