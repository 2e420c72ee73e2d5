"""Former name of ``sharpness.hessian.loss``, kept for code that imports it."""

from sharpness.hessian.loss import *  # noqa: F403
