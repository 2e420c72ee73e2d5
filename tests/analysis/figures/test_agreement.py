"""The figure ``agreement``, judged by what it has drawn."""

from figures.invented import history_frame, in_both, run_fields, spectrum_frame

from sharpness.analysis.figures.agreement import agreement


def test_the_reference_is_named_and_the_other_way_has_its_differences():
    runs = in_both([run_fields(0), run_fields(1)])
    upper, lower = agreement(spectrum_frame(runs), history_frame(runs)).get_axes()
    labels = [entry.get_text() for entry in lower.get_legend().get_texts()]
    # The frames are the same in both precisions.
    assert labels == ["precision float32: reference", "precision bfloat16: 0.0, 0.0"]
    assert upper.get_yscale() == "log"
    assert [len(axes.get_lines()) for axes in (upper, lower)] == [2, 2]
