"""The tables, against numbers worked out by hand."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from sharpness.analysis.results_markup import as_markdown, as_tex
from sharpness.analysis.tables import first_change, frobenius, results_table, trajectory

RUN = {
    "grid": "learning_rate",
    "settings": "default",
    "data": "digits",
    "model": "simple_cnn",
    "learning_rate": 0.1,
    "batch_size": "32",
    "gamma": 1.0,
    "seed": 0,
}


def eigenvalue_rows(eigenvalues, *, checkpoint="planned", step=0, epoch=0.0, which="largest", **run):
    fields = {**RUN, **run}
    fields["run"] = f"lr{fields['learning_rate']}-bs{fields['batch_size']}-g{fields['gamma']}-seed{fields['seed']}"
    place = {"step": step, "epoch": epoch, "which": which, "checkpoint": checkpoint}
    rows = [{**place, "rank": rank, "eigenvalue": value} for rank, value in enumerate(eigenvalues)]
    return pd.DataFrame([{**fields, **row, "diverged": not np.isfinite(row["eigenvalue"])} for row in rows])


def path_rows(largest, **run):
    """A run whose largest eigenvalue takes the given values at steps 0, 5, 10, ..., ten steps an epoch."""
    parts = [eigenvalue_rows([value, 1.0], step=5 * i, epoch=i / 2, **run) for i, value in enumerate(largest)]
    return pd.concat(parts, ignore_index=True)


def history_rows(validation, test, loss, distance, *, diverged_from=None, **run):
    fields = {**RUN, **run}
    fields["run"] = f"lr{fields['learning_rate']}-bs{fields['batch_size']}-g{fields['gamma']}-seed{fields['seed']}"
    columns = zip(validation, test, loss, distance, strict=True)
    names = ("validation_accuracy", "test_accuracy", "training_loss", "distance")
    return pd.DataFrame(
        {
            **fields,
            "epoch": float(epoch),
            **dict(zip(names, values, strict=True)),
            "diverged": diverged_from is not None and epoch >= diverged_from,
        }
        for epoch, values in enumerate(columns)
    )


@pytest.fixture
def gamma_history():
    """Two seeds at gamma 0.1, one of two diverged at gamma 10, and three rates of plain SGD."""
    columns = {"loss": [2.0, 0.5, 0.25], "distance": [0.0, 3.0, 4.0]}
    good = {"validation": [0.1, 0.8, 0.7], "test": [0.1, 0.75, 0.9], **columns}
    rows = [
        history_rows(**good, grid="gamma", gamma=0.1, seed=0),
        history_rows(
            [0.1, 0.6, 0.7], [0.1, 0.5, 0.65], [2.0, 0.6, 0.75], [0.0, 1.0, 5.0],
            grid="gamma", gamma=0.1, seed=1,
        ),
        history_rows(**good, grid="gamma", gamma=10.0, seed=0),
        history_rows(
            [0.1, np.nan, np.nan], [0.1, np.nan, np.nan], [2.0, np.nan, np.nan], [0.0, np.inf, np.nan],
            diverged_from=1, grid="gamma", gamma=10.0, seed=1,
        ),
        *(history_rows(**good, grid="sgd", learning_rate=rate) for rate in (0.005, 0.1, 0.0025)),
    ]  # fmt: skip
    return pd.concat(rows, ignore_index=True)


@pytest.fixture
def gamma_spectrum():
    ends = {
        (0.1, 0): ([3.0, 4.0], [6.0, 8.0]),  # norms 5 and 10
        (0.1, 1): ([5.0, 12.0], [8.0, 15.0]),  # norms 13 and 17
        (10.0, 0): ([0.6, 0.8], [3.0, 4.0]),
        (10.0, 1): ([30.0, 40.0], [60.0, 80.0]),  # before it diverged
    }
    rows = [
        eigenvalue_rows(values, checkpoint=checkpoint, step=step, epoch=step / 10, grid="gamma", gamma=gamma, seed=seed)
        for (gamma, seed), pair in ends.items()
        for checkpoint, step, values in zip(("best", "last"), (10, 20), pair, strict=True)
    ]
    return pd.concat(rows, ignore_index=True)


def test_a_spectrum_without_planned_checkpoints_is_refused():
    with pytest.raises(ValueError, match="planned checkpoint among 1 rows"):
        trajectory(eigenvalue_rows([1.0], checkpoint="best"))


def test_frobenius_is_the_root_of_the_sum_of_squares_of_the_largest_eigenvalues():
    spectrum = pd.concat(
        [eigenvalue_rows([12.0, -3.0, 4.0], checkpoint="best"), eigenvalue_rows([-50.0], which="smallest")]
    )

    norms = frobenius(spectrum)

    assert norms["frobenius"].tolist() == [13.0]
    assert norms["num_eigenvalues"].tolist() == [3]
    assert norms["checkpoint"].tolist() == ["best"]


def test_frobenius_of_a_diverged_checkpoint_is_unknown():
    lost = frobenius(eigenvalue_rows([3.0, np.nan]))
    assert lost[["frobenius", "num_eigenvalues"]].isna().all(axis=None)


def test_the_results_are_means_and_deviations_over_seeds(gamma_history, gamma_spectrum):
    row = results_table(gamma_history, gamma_spectrum, validation_epoch=1).set_index("label").loc["0.1"]

    # Seed 0 is best at epoch 1, seed 1 at epoch 2; a sample of two has the deviation |a - b| / sqrt 2.
    expected = {
        "frobenius_best": (9.0, 8 / 2**0.5),
        "frobenius_last": (13.5, 7 / 2**0.5),
        "test_accuracy": (0.70, 0.10 / 2**0.5),
        "validation_accuracy": (0.70, 0.20 / 2**0.5),
        "training_loss": (0.50, 0.50 / 2**0.5),
        "distance": (4.0, 2 / 2**0.5),
    }
    for quantity, (mean, deviation) in expected.items():
        assert row[f"{quantity}_mean"] == pytest.approx(mean)
        assert row[f"{quantity}_std"] == pytest.approx(deviation)
    assert (row["num_seeds"], row["num_diverged"], row["num_eigenvalues"]) == (2, 0, 2)


def test_a_diverged_seed_is_counted_but_in_no_mean(gamma_history, gamma_spectrum):
    row = results_table(gamma_history, gamma_spectrum, validation_epoch=1).set_index("label").loc["10"]

    assert (row["num_seeds"], row["num_diverged"]) == (2, 1)
    assert row["frobenius_best_mean"] == pytest.approx(1.0)
    assert row["distance_mean"] == 3.0
    assert np.isnan(row["distance_std"])


def test_rows_stand_as_on_the_poster(gamma_history, gamma_spectrum):
    table = results_table(gamma_history, gamma_spectrum, validation_epoch=1)

    assert table["label"].tolist() == ["0.1", "10", "SGD(0.1)", "SGD(0.0025)", "SGD(0.005)"]


def test_the_same_run_twice_counts_once(gamma_history, gamma_spectrum):
    twice = results_table(pd.concat([gamma_history] * 2), pd.concat([gamma_spectrum] * 2), validation_epoch=1)

    pd.testing.assert_frame_equal(twice, results_table(gamma_history, gamma_spectrum, validation_epoch=1))


def test_an_epoch_that_is_none_of_the_history_is_refused(gamma_history, gamma_spectrum):
    with pytest.raises(ValueError, match=r"got 0\.5; the history ends at 2"):
        results_table(gamma_history, gamma_spectrum, validation_epoch=0.5)


def test_an_epoch_that_no_run_reached_has_no_value(gamma_history, gamma_spectrum):
    table = results_table(gamma_history, gamma_spectrum, validation_epoch=50)
    assert table["validation_accuracy_mean"].isna().all()
    assert table["test_accuracy_mean"].notna().any()
    assert "Val. acc. (50)" in as_markdown(table, caption="")


def test_markdown_has_the_posters_columns_and_mean_with_spread(gamma_history, gamma_spectrum):
    table = results_table(gamma_history, gamma_spectrum, validation_epoch=1)

    lines = as_markdown(table, caption="What was measured").splitlines()

    assert lines[0].startswith("What was measured. ‖H‖_F: root of the sum of squares of the 2 largest eigenvalues, at")
    assert "Val. acc. (1): validation accuracy after epoch 1." in lines[0]
    heading = "SimpleCNN, digits, mean ± standard deviation over 1 to 2 seeds"
    assert lines[2] == f"**{heading}**"
    assert lines[4] == "| γ | ‖H‖_F best / last | Test acc. | Val. acc. (1) | Loss | Dist. |"
    assert lines[6] == ("| 0.1 | 9.0 ± 5.7 / 13.5 ± 4.9 | 70.0 ± 7.1 % | 70 ± 14 % | 0.50 ± 0.35 | 4.0 ± 1.4 |")
    assert lines[7].startswith("| 10 (1 of 2 diverged) | 1.00 / 5.00 | 75.0 % |")
    assert lines[8].startswith("| SGD(0.1) | – / – | 75.0 % |")
    assert lines[10].startswith("| SGD(0.005) |")
    assert lines[11] == ""


def test_markdown_carries_the_posters_numbers_for_comparison(gamma_history, gamma_spectrum):
    table = results_table(gamma_history, gamma_spectrum, validation_epoch=1)

    text = as_markdown(table, caption="")

    assert "For comparison, the poster: Resnet-32 on CIFAR-10" in text
    assert "Val. acc. (50)" in text
    assert "| SGD(0.0025) | 890 / 1,190 | 84.8 % | 30.9 % | 0.10304 | 18.65 |" in text


def test_a_wholly_diverged_row_shows_no_numbers(gamma_history, gamma_spectrum):
    history = gamma_history[(gamma_history["gamma"] == 10) & (gamma_history["seed"] == 1)]

    text = as_markdown(results_table(history, gamma_spectrum, validation_epoch=1), caption="")

    assert "| 10 (1 of 1 diverged) | – / – | – | – | – | – |" in text


def test_tex_has_as_many_cells_in_every_row_and_escapes_what_tex_would_read(gamma_history, gamma_spectrum):
    table = results_table(gamma_history, gamma_spectrum, validation_epoch=1)

    text = as_tex(table, caption="100 % of simple_cnn & more")

    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(rows) == 1 + 5 + 7
    assert all(row.count(" & ") == 5 for row in rows)
    assert r"\caption{100 \% of simple\_cnn \& more. $\|\mathbf{H}\|_F$: root of" in text
    assert r"$\gamma$ & $\|\mathbf{H}\|_F$ best\,/\,last & Test acc. & Val. acc. (1) & Loss & Dist. \\" in rows
    assert r" & 70.0$_{\pm 7.1}$ & " in text
    assert r"10$_{1/2}$ & 1.00\,/\,5.00" in text
    assert r"The fraction beside a $\gamma$: of its seeds, those that diverged and are left out.}" in text
    assert text.isascii()
    for part in ("table", "tabular"):
        assert text.count(rf"\begin{{{part}}}") == text.count(rf"\end{{{part}}}") == 1


def with_norms(spectrum, *norms):
    """The norm and its standard error at the best and at the last checkpoint of some runs on every row there."""
    spectrum = spectrum.copy()
    for (gamma, seed), ends in norms:
        of_run = (spectrum["gamma"] == gamma) & (spectrum["seed"] == seed)
        for end, (norm, error) in zip(("best", "last"), ends, strict=True):
            there = of_run & (spectrum["checkpoint"] == end)
            assert there.any()
            spectrum.loc[there, ["frobenius_norm", "frobenius_error"]] = norm, error
    return spectrum


def test_the_whole_norm_stands_beside_that_of_the_leading_eigenvalues(gamma_history, gamma_spectrum):
    spectrum = with_norms(
        gamma_spectrum,
        ((0.1, 0), ((6.0, 0.1), (12.0, 0.2))),
        ((0.1, 1), ((14.0, 0.3), (18.0, 0.1))),
        ((10.0, 0), ((1.5, 0.2), (6.0, 0.1))),
        ((10.0, 1), ((50.0, 5.0), (60.0, 7.0))),  # diverged, and so in no mean and of no error
    )

    table = results_table(gamma_history, spectrum, validation_epoch=1)

    row = table.set_index("label").loc["0.1"]
    assert row["whole_frobenius_best_mean"] == 10
    assert row["whole_frobenius_last_std"] == pytest.approx(6 / np.sqrt(2))
    assert (row["whole_frobenius_best_error"], row["whole_frobenius_last_error"]) == (0.3, 0.2)
    assert row["frobenius_best_mean"] <= row["whole_frobenius_best_mean"]
    diverged = table.set_index("label").loc["10"]
    assert (diverged["whole_frobenius_best_mean"], diverged["whole_frobenius_best_error"]) == (1.5, 0.2)
    text = as_markdown(table, caption="")
    assert "| 9.0 ± 5.7 / 13.5 ± 4.9 | 10.0 ± 5.7 / 15.0 ± 4.2 | 70.0" in text
    assert "with a standard error of at most 0.3." in text
    rows = [line for line in as_tex(table, caption="").splitlines() if line.endswith(r"\\") and "multi" not in line]
    assert all(row.count("&") == 6 for row in rows)
    assert r"0.1 & 672\,/\,1,559 &" not in "".join(rows)


@pytest.mark.slow
@pytest.mark.parametrize("with_whole_norms", [False, True])
def test_tex_compiles_with_booktabs_and_fits_the_page(gamma_history, gamma_spectrum, tmp_path, with_whole_norms):
    latex = shutil.which("pdflatex")
    if latex is None:
        pytest.skip("pdflatex is not installed")
    norms = [((0.1, seed), ((best, 0.1), (1234.0, 0.2))) for seed, best in enumerate((308.0, 611.0))]
    spectrum = gamma_spectrum.assign(eigenvalue=100 * gamma_spectrum["eigenvalue"])
    spectrum = with_norms(spectrum, *norms) if with_whole_norms else spectrum
    table = results_table(gamma_history, spectrum, validation_epoch=1)
    (tmp_path / "table.tex").write_text(as_tex(table, caption="100 % of simple_cnn & more"))
    page = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    (tmp_path / "page.tex").write_text(page)

    done = subprocess.run(
        [latex, "-halt-on-error", "-interaction=nonstopmode", "page.tex"], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


@pytest.mark.parametrize(("value", "expected"), [("", None), ("3", 3), ("7 2", 2), ("10 20", 10)])
def test_the_epoch_of_a_change_is_read_from_a_list_of_them(value, expected):
    found = first_change(value)
    assert np.isnan(found) if expected is None else found == expected
