"""The look of the figures."""

import matplotlib
from figures.invented import run_fields, spectrum_frame

from sharpness.analysis.figures.spectrum import spectrum


def test_the_style_ends_with_the_figure():
    before = matplotlib.rcParams["axes.grid"]

    figure = spectrum(spectrum_frame([run_fields()]))

    assert matplotlib.rcParams["axes.grid"] == before
    assert not figure.get_axes()[0].spines["top"].get_visible()
