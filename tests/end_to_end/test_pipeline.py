"""The small study from its config to figures, table and report."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import browser
import numpy as np
import pandas as pd
import pytest
import torch
from running import SMALL, contents, differing, environment, planned_jobs, run_study, snakemake

from benchmarks.project import ROOT
from sharpness.data import datasets
from sharpness.measurements.landscape import Landscape
from sharpness.runtime.device import fast_precision
from sharpness.training.checkpoints import load_checkpoints
from sharpness.training.initialisation import loss_of


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "results" / "small" / "tables" / f"{name}.csv")


def test_every_figure_is_there_as_pdf_and_png(finished):
    figures = finished / "results" / "small" / "figures"
    names = {
        "spectrum",
        "first_layer",
        "eigenvalues",
        "eigenvalues_peaks",
        "density",
        "slices",
        "slices_schematic",
        "widths",
        "schedules",
        "gradients",
        "gradient_step",
        "steps",
        "variants",
        "nudged",
        "agreement",
    }
    assert {path.stem for path in figures.glob("*.pdf")} == names
    assert {path.stem for path in figures.glob("*.png")} == names
    assert all(path.read_bytes().startswith(b"%PDF") for path in figures.glob("*.pdf"))


def by_double_backward(finished, run, chunk, step):
    """The weights of a checkpoint, and products with its Hessian that are independent of the engine."""
    folder, device = finished / "results" / "small", torch.device("cpu")
    path = folder / "runs" / run / "checkpoints" / f"{chunk}.safetensors"
    checkpoints = load_checkpoints(path, device=device, steps=[step])
    dataset = datasets.load(finished / "results" / "data" / "digits.safetensors", num_training=200, device=device)
    loss, _, _ = loss_of(checkpoints.run, dataset)
    inputs, targets = Landscape(checkpoints.run, loss, dataset).drawn_examples(16)
    snapshot = checkpoints.snapshots[0]
    leaf = snapshot.weights.clone().requires_grad_()
    value = torch.nn.functional.cross_entropy(loss.logits(leaf, snapshot.buffers, inputs), targets)
    (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
    return leaf, lambda vector: torch.autograd.grad(gradient, leaf, vector, retain_graph=True)[0]


def test_the_largest_eigenvalue_of_a_checkpoint_is_that_of_its_dense_hessian(finished):
    spectra = table(finished, "eigenvalues_spectrum")
    row = spectra[(spectra["which"] == "largest") & (spectra["rank"] == 0) & (spectra["step"] == 20)].iloc[0]
    leaf, times = by_double_backward(finished, row["run"], 1, 20)
    # Power iteration, shifted so that the largest eigenvalue dominates.
    vector = torch.randn(len(leaf), generator=torch.Generator().manual_seed(1))
    for _ in range(200):
        vector = vector / vector.norm()
        product = times(vector)
        estimate = float(vector @ product)
        vector = product + 0.5 * row["eigenvalue"] * vector
    assert estimate == pytest.approx(row["eigenvalue"], rel=1e-3)


def test_the_block_of_a_layer_is_no_sharper_than_the_whole_on_the_same_examples(finished):
    block, whole = table(finished, "first_layer_spectrum"), table(finished, "eigenvalues_spectrum")
    block = block[block["which"] == "largest"].set_index("rank")
    same = (whole["run"] == block.loc[0, "run"]) & (whole["step"] == block.loc[0, "step"])
    largest = whole.loc[same & (whole["which"] == "largest"), "eigenvalue"].max()
    # Cauchy's interlacing theorem.
    assert 0 < block.loc[0, "eigenvalue"] <= largest * (1 + 1e-2)
    # Two pairs: a product computes each anew, and up to ten more correct them to the tolerance.
    assert block["num_certifying"].between(2, 12).all()
    assert (block["residual"] <= 1e-2).all()


def test_the_agreement_is_that_of_the_collected_tables(finished):
    rows = table(finished, "agreement").set_index("quantity")
    assert (rows["way"] == "precision bfloat16").all()
    assert (rows["reference"] == "precision float32").all()
    history = table(finished, "agreement_history").merge(table(finished, "runs"), on="run")
    last = history[history["epoch"] == history["epoch"].max()].groupby("precision")["test_accuracy"]
    assert rows.loc["test accuracy", "difference"] == pytest.approx(
        last.mean()["bfloat16"] - last.mean()["float32"], abs=1e-12
    )
    assert (rows["seeds"] == 2).all()


def test_the_density_reaches_as_far_as_the_leading_eigenvalues(finished):
    rows = table(finished, "density_density").set_index("quantity")
    leading, nodes = rows.loc["eigenvalue", "value"], rows.loc["node"]
    assert nodes.groupby("probe")["weight"].sum().to_numpy() == pytest.approx(1)
    # A Ritz value is at most the largest eigenvalue; ten steps from a random start come near to it.
    assert 0.9 * leading.max() < nodes["value"].max() <= leading.max() * (1 + 1e-3)
    norm = rows.loc["frobenius_norm"]
    assert norm["value"] >= np.linalg.norm(leading)
    assert 0 < norm["standard_error"] < norm["value"]


def test_a_subspace_is_compared_with_the_one_before_it_across_parts(finished):
    rows = table(finished, "gradients_gradients")
    of_run = rows[rows["run"] == "digits-200-simple_cnn-lr0.1-bs20-e2-seed0"].sort_values("step")
    assert of_run["step"].tolist() == [0, 5, 10, 20]
    # Steps 0 and 5 are in one part, 10 and 20 in the other.
    assert of_run["overlap_with_step"].iloc[1:].tolist() == [0, 5, 10]
    assert np.isnan(of_run["overlap"].iloc[0])
    assert of_run["overlap"].iloc[1:].between(0, 1).all()
    assert of_run["fraction_inside"].between(0, 1).all()
    assert (of_run["noise_largest"] <= of_run["noise_trace"]).all()
    # The largest eigenvalue of the same examples, at the same weights.
    spectra = table(finished, "eigenvalues_spectrum")
    same = spectra[(spectra["run"] == of_run["run"].iloc[0]) & (spectra["which"] == "largest") & (spectra["rank"] == 0)]
    expected = same.drop_duplicates("step").set_index("step")["eigenvalue"]
    assert of_run.set_index("step")["eigenvalue"].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-3)
    assert of_run["rate_times_eigenvalue"].to_numpy() == pytest.approx(0.1 * of_run["eigenvalue"].to_numpy())


def test_a_step_is_that_from_the_checkpoint_before_across_parts(finished):
    run = "digits-200-simple_cnn-lr0.1-bs20-e2-seed0"
    rows = table(finished, "gradient_step_gradient_step")
    of_run = rows[rows["run"] == run].sort_values("step")
    assert of_run["since_step"].iloc[1:].tolist() == [0, 5, 10]
    files = [finished / "results/small/runs" / run / f"checkpoints/{part}.safetensors" for part in (0, 1)]
    states = [load_checkpoints(path, device=torch.device("cpu")).snapshots for path in files]
    weights = {state.step: state.weights for part in states for state in part}
    steps = [float((weights[end] - weights[begin]).double().norm()) for begin, end in ((0, 5), (5, 10), (10, 20))]
    assert of_run["step_norm"].iloc[1:].to_numpy() == pytest.approx(steps)
    assert of_run["angle"].iloc[1:].between(0, 180).all()


def test_a_run_that_diverges_is_a_result_and_the_others_go_on(finished):
    history = table(finished, "eigenvalues_history")
    diverged = history[history["run"].str.contains("lr1000-")]
    assert diverged["diverged"].iloc[-1]
    others = history[~history["run"].str.contains("lr1000-")]
    assert not others["diverged"].any()
    assert others.groupby("run")["epoch"].max().eq(2).all()
    spectra = table(finished, "eigenvalues_spectrum")
    assert spectra[spectra["run"].str.contains("lr1000-")]["eigenvalue"].isna().any()


def test_checkpoints_carry_the_planned_steps_and_spectra_are_measured_at_each(finished):
    spectra = table(finished, "eigenvalues_spectrum")
    of_run = spectra[spectra["run"] == "digits-200-simple_cnn-lr0.1-bs20-e2-seed0"]
    # 10 steps an epoch; every 100 images is every 5 steps in the first epoch, then once an epoch.
    assert sorted(of_run["step"].unique()) == [0, 5, 10, 20]
    assert (of_run["residual"][of_run["which"] == "largest"] <= 1e-2).all()


def test_the_norm_at_the_ends_is_that_of_the_whole_hessian(finished):
    rows = table(finished, "results_table_spectrum")
    row = rows[(rows["checkpoint"] == "last") & (rows["which"] == "largest")].iloc[0]
    leaf, times = by_double_backward(finished, row["run"], "last", row["step"])
    # The mean of |A z|^2 over many z.
    random = torch.Generator().manual_seed(1)
    squares = np.array([float(times(z).square().sum()) for z in torch.randn(200, len(leaf), generator=random)])
    expected, error = squares.mean(), squares.std() / np.sqrt(len(squares))
    own_error = 2 * row["frobenius_norm"] * row["frobenius_error"]
    assert abs(row["frobenius_norm"] ** 2 - expected) < 4 * np.hypot(error, own_error)
    assert rows["frobenius_norm"].notna().all()
    assert (rows["search_precision"] == fast_precision(torch.device("cpu"))).all()


def test_the_table_of_results_has_a_row_for_every_setting(finished):
    rows = table(finished, "results_table")
    assert len(rows) == 4
    assert rows["test_accuracy_mean"].notna().all()
    text = (finished / "results" / "small" / "tables" / "results_table.md").read_text()
    assert all(word in text for word in ("Test acc.", "Val. acc. (1)", "Loss", "Dist."))


def test_every_claim_that_the_study_is_about_has_a_verdict_and_one_seed_decides_none(finished):
    rows = table(finished, "claims")
    # It has no γ above 1 (l), no epoch in the first fifth (n), no widths by batch size (q), no two changes (r).
    assert sorted(rows["claim"].unique()) == list("abcdefghijkmopst")
    assert (rows["verdict"] == "undecided").all()
    assert rows["would_decide"].notna().all()
    assert (rows.loc[rows["claim"] == "b", "diverged"] == 1).all()
    text = (finished / "results" / "small" / "tables" / "claims.md").read_text()
    assert text.count("**undecided**") == len(rows)


def test_a_second_run_finds_nothing_to_do(finished):
    assert "Nothing to be done" in run_study(finished)


def test_jobs_find_their_packages_imported(finished):
    jobs = pd.concat([pd.read_csv(path) for path in (finished / "results").rglob("benchmarks/*.csv")])
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-c", "import torch"], check=True, env=environment())
    importing = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    # The first jobs start before the server does; beside other work all of this takes longer.
    assert jobs["starting_cpu_seconds"].median() < 0.25 * importing
    assert (jobs["cpu_seconds"] >= jobs["starting_cpu_seconds"]).all()


def test_one_figure_needs_no_more_than_its_own_runs(tmp_path):
    target = "results/small/figures/steps.pdf"
    # The run's checkpoints are kept in two chunks, each measured by a job of its own.
    expected = {"prepare_data": 1, "train": 1, "steps": 2, "collect": 1, "figure_steps": 1}
    assert planned_jobs(tmp_path, target) == expected


def test_the_report_has_every_figure_every_claim_and_every_table(finished):
    page = (finished / "results" / "small" / "report.html").read_text()
    names = {path.stem for path in (finished / "results" / "small" / "figures").glob("*.png")}
    assert set(re.findall(r'id="figure-(\w+)"', page)) == names
    assert set(re.findall(r'id="interactive-(\w+)"', page)) == {"spectrum", "first_layer", "slices"}
    assert set(re.findall(r'id="table-(\w+)"', page)) == {"agreement", "results_table"}
    assert len(re.findall(r'id="claim-\d+"', page)) == len(table(finished, "claims"))
    first = (ROOT / "workflow" / "report" / "agreement.md").read_text().split("\n\n")[1][:30]
    assert page.count(first) == 1  # by the figure, not again by its table
    for words in ("residuals at most", "Hessian on 16 training images", "threads 1", "CPU seconds"):
        assert words in page


@pytest.fixture
def opened(finished, tmp_path):
    """The report in a browser, opened from the disk."""
    if browser.PROGRAM is None and os.environ.get("CI") != "true":
        pytest.skip("no Chromium on this machine")
    with browser.browser(tmp_path / "profile") as page:
        page.open((finished / "results" / "small" / "report.html").as_uri())
        yield page


@pytest.mark.slow
def test_the_report_shows_every_figure_in_a_browser_and_asks_for_nothing(opened):
    widths = opened.evaluate("[...document.images].map(image => image.naturalWidth)")
    # Each is drawn when it comes into sight.
    drawn = """(async () => {
        const found = [];
        for (const plot of document.querySelectorAll(".interactive")) {
            plot.scrollIntoView();
            for (let tries = 0; tries < 400 && !plot.querySelector(".main-svg, canvas"); tries++)
                await new Promise(done => setTimeout(done, 50));
            found.push(plot.querySelectorAll(".main-svg, canvas").length);
        }
        return found;
    })()"""
    plots = opened.evaluate(drawn)

    assert len(widths) == len(opened.evaluate("[...document.querySelectorAll('figure')].map(figure => figure.id)"))
    assert min(widths) > 100
    assert len(plots) == 3
    assert min(plots) > 0
    assert opened.complaints == []
    (page,) = [request for request in opened.requests if not request.startswith(("data:", "blob:"))]
    assert page.startswith("file://")


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1400], ids=["phone", "desk"])
def test_the_report_never_scrolls_sideways_as_a_whole(opened, width):
    opened.resize(width, 800)

    assert opened.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_a_study_killed_at_any_moment_ends_with_the_same_bits(finished, tmp_path, sign):
    table = "results/small/tables/results_table.md"
    words = ("--cores", "2", "--configfile", str(SMALL), "--rerun-incomplete", "--", table)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(ROOT / "Snakefile"),
            "--directory",
            str(tmp_path),
            *words,
        ],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A shell that starts these tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # Of the twelve jobs some have ended and some have not, however fast the machine is.
    ended = random.randint(1, 9)
    while process.poll() is None and len(list(tmp_path.glob("results/**/benchmarks/*.csv"))) < ended:
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.5))
    assert process.poll() is None
    # Ctrl-C reaches the whole group; SIGKILL hits Snakemake alone and leaves its jobs at work.
    if sign == signal.SIGINT:
        os.killpg(process.pid, sign)
    else:
        process.send_signal(sign)
    assert process.wait(timeout=60) != 0
    snakemake(tmp_path, "--unlock", "--configfile", str(SMALL))
    # Without hooks no job is a fork, as those were that were killed.
    done = snakemake(tmp_path, "--no-hooks", *words)
    assert done.returncode == 0, done.stderr[-5000:]
    again, undisturbed = contents(tmp_path), contents(finished)
    assert "tables/results_table.csv" in again
    assert differing(again, undisturbed) == []


@pytest.mark.slow
def test_a_study_is_published_run_by_run_and_from_several_machines(finished, tmp_path):
    results = finished / "results" / "small"
    published = tmp_path / "small" / "published"
    runs = sorted(path.name for path in (results / "runs").iterdir())
    # The runs of one machine, and those of another: a run is published by its tables alone.
    for name in runs[::2]:
        shutil.copytree(results / "runs" / name, tmp_path / "small" / "runs" / name)

    said = publish(tmp_path / "small")

    assert re.search(r"^eigenvalues: \d of \d runs are kept, \S+ comes next$", said, re.MULTILINE)
    assert "The claims are decided once these are published too:" in said
    assert list(published.glob("runs/eigenvalues/*/history.csv"))
    assert not list(published.glob("tables/eigenvalues*"))
    assert not list(published.glob("tables/claims*"))

    shutil.rmtree(tmp_path / "small" / "runs")
    for name in runs[1::2]:
        shutil.copytree(results / "runs" / name, tmp_path / "small" / "runs" / name)
    said = publish(tmp_path / "small")

    assert "The claims were decided by the published tables" in said
    assert not (published / "runs").exists()
    # Of what is published nobody asks whether it is due: it says no digest.
    verdicts = pd.read_csv(results / "tables" / "claims.csv", dtype=str, keep_default_na=False)
    assert verdicts["study_digest"].nunique() == 1
    decided = verdicts.drop(columns="study_digest").to_csv(index=False).encode()
    for kind in ("tables", "figures"):
        expected = {path.name: path.read_bytes() for path in (results / kind).iterdir()}
        expected |= {"claims.csv": decided} if kind == "tables" else {}
        assert {path.name: path.read_bytes() for path in (published / kind).iterdir()} == expected
    page, whole = ((folder / "report.html").read_text() for folder in (published, results))
    for part in (r'id="figure-\w+"', r'id="interactive-\w+"', r'id="table-\w+"', r'id="claim-\d+"'):
        assert re.findall(part, page) == re.findall(part, whole) != []

    # What was published stays, where the working results are lost.
    shutil.rmtree(tmp_path / "small" / "runs")
    (published / "tables" / "claims.csv").unlink()
    said = publish(tmp_path / "small")
    assert re.search(r"^steps: published before, and stays \(0 of \d runs are finished here\)$", said, re.MULTILINE)
    assert (published / "tables" / "claims.csv").read_bytes() == decided


def publish(results: Path) -> str:
    stage = [sys.executable, "-m", "sharpness.stages.publish"]
    words = ["--config", str(SMALL), "--results", str(results)]
    words += ["--snakefile", str(ROOT / "Snakefile")]
    done = subprocess.run(
        [*stage, *words],
        env=environment() | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
