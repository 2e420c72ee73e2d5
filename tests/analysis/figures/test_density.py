"""The figure ``density``, judged by what it has drawn."""

import numpy as np
import pytest
from figures.invented import density_frame, lines, run_fields

from sharpness.analysis.figures.density import density


def test_the_density_of_all_panels_is_one_eigenvalue_each():
    figure = density(density_frame([run_fields()]))
    for axes in figure.get_axes():
        (curve,) = lines(axes, linestyle="-")
        assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(1, rel=1e-3)
