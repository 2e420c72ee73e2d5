"""The interactive figures, judged by their data."""

import numpy as np
import pytest
from figures.invented import slices_table, spectrum_table
from matplotlib.colors import to_hex

from sharpness.analysis.figures import interactive
from sharpness.analysis.figures.palette import BLUE, EIGENVALUES, RED


class TestSpectrum:
    def test_shows_every_eigenvalue_and_residual_of_the_table_in_the_colours_of_the_static_figure(self):
        table = spectrum_table()

        traces = [trace for trace in interactive.spectrum(table).data if trace.customdata is not None]

        assert len(traces) == 3
        # Drawn last, on top: the largest.
        for rank, trace in enumerate(reversed(traces)):
            expected = table[table["rank"] == rank]
            np.testing.assert_array_equal(trace.x, expected["epoch"])
            np.testing.assert_array_equal(trace.y, expected["eigenvalue"])
            np.testing.assert_array_equal(trace.customdata, expected["residual"])
            assert f"rank {rank + 1}<" in trace.hovertemplate
        assert [traces[-1].line.color, traces[0].line.color] == [RED.lower(), BLUE.lower()]

    def test_has_a_logarithmic_panel_for_each_configuration_with_its_stability_limit(self):
        figure = interactive.spectrum(spectrum_table(learning_rates=(0.1, 0.5), seeds=(3, 1)))

        assert (figure.layout.yaxis.type, figure.layout.yaxis2.type) == ("log", "log")
        limits = [list(trace.y) for trace in figure.data if trace.line.dash == "dot"]
        assert limits == [[20, 20], [4, 4]]
        titles = [annotation.text for annotation in figure.layout.annotations]
        assert all("seed 1 (first of 2)" in title for title in titles)

    def test_the_axis_holds_all_but_noise_around_zero_and_is_labelled_in_plain_numbers(self):
        table = spectrum_table()
        table.loc[table["rank"] == 2, "eigenvalue"] = [-1, 1e-9, 0, 1e-9, 1e-9]

        axis = interactive.spectrum(table).layout.yaxis

        assert 10 ** axis.range[0] == pytest.approx(50 / 1000 / 1.3)
        assert 10 ** axis.range[1] == pytest.approx(2 * 50)
        assert {"0.05", "1", "20", "100"} <= set(axis.ticktext)

    def test_a_run_that_was_lost_before_it_was_measured_has_an_empty_panel(self):
        figure = interactive.spectrum(spectrum_table(lost_from=0))

        assert len(figure.data) == 0
        assert len(figure.layout.annotations) == 1

    def test_a_diverged_run_ends_in_a_cross_at_its_last_finite_value(self):
        (cross,) = [
            trace for trace in interactive.spectrum(spectrum_table(lost_from=3)).data if trace.name == "diverged"
        ]

        assert (list(cross.x), list(cross.y)) == ([2], [30])
        assert not any(trace.name == "diverged" for trace in interactive.spectrum(spectrum_table()).data)


class TestSlices:
    def test_the_surface_has_the_losses_of_the_table_coloured_by_the_largest_eigenvalue(self):
        table = slices_table()

        surface = interactive.slices(table).data[0]

        assert list(surface.x) == [-8, -2, 0, 2, 8]
        assert surface.z.shape == (4, 5)
        # Every curve rises further on the right, and is turned.
        of_first = table[(table["epoch"] == 0) & table["k"].between(-8, 8)].sort_values("k", ascending=False)
        np.testing.assert_array_equal(surface.z[0], of_first["loss"])
        np.testing.assert_array_equal(surface.surfacecolor[:, 0], [5, 6, 7, 8])
        np.testing.assert_array_equal(surface.customdata[:, 0], [0, 1, 2, 3])
        assert surface.colorscale[0] == (0, to_hex(EIGENVALUES(0.0)))
        assert surface.colorscale[-1] == (1, to_hex(EIGENVALUES(1.0)))

    def test_epochs_after_divergence_are_left_out_and_the_title_says_so(self):
        figure = interactive.slices(slices_table(lost_from=2))

        assert figure.data[0].z.shape[0] == 2
        assert "diverged after epoch 1" in figure.layout.annotations[0].text

    def test_a_loss_that_overflows_is_a_hole_and_a_high_one_is_beyond_the_axis(self):
        table = slices_table()
        table.loc[(table["k"] == 8) & (table["epoch"] == 0), "loss"] = np.inf
        table.loc[(table["k"] == 8) & (table["epoch"] == 1), "loss"] = 1e9

        figure = interactive.slices(table)

        surface, axis = figure.data[0], figure.layout.scene.zaxis
        assert np.isnan(surface.z[0, 0])
        assert surface.z[1, 0] == 1e9
        assert axis.type == "log"
        here = table.loc[table["k"] == 0, "loss"]
        assert 10 ** axis.range[0] < here.min() < here.max() < 10 ** axis.range[1] < 100 * here.max()

    def test_slices_on_one_grid_of_distances_are_shown_over_these(self):
        table = slices_table().assign(distance=lambda rows: rows["k"] / 100)
        table["k"] = table["distance"] * (1 + table["epoch"])  # the steps grow shorter

        figure = interactive.slices(table)

        assert list(figure.data[0].x) == [-0.16, -0.08, -0.02, 0, 0.02, 0.08, 0.16]
        assert figure.layout.scene.xaxis.title.text == "distance"

    def test_each_configuration_has_a_surface_and_a_bar_of_colours_of_its_own(self):
        figure = interactive.slices(slices_table(models=("simple_cnn", "resnet8")))

        surfaces = [trace for trace in figure.data if trace.type == "surface"]
        assert [surface.scene for surface in surfaces] == ["scene", "scene2"]
        assert surfaces[0].colorbar.y > 0.5 > surfaces[1].colorbar.y == 0
