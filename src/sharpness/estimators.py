"""Former name of ``sharpness.eigen.estimators``, kept for code that imports it."""

from sharpness.eigen.estimators import *  # noqa: F403
