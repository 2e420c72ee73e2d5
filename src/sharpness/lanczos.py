"""Former name of ``sharpness.eigen.lanczos``, kept for code that imports it."""

from sharpness.eigen.lanczos import *  # noqa: F403
