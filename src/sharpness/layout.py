"""Former name of ``sharpness.hessian.layout``, kept for code that imports it."""

from sharpness.hessian.layout import *  # noqa: F403
