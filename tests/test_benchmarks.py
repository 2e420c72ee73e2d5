"""The benchmark: its own products, its accounting, and what it installs. No other library is needed."""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import torch
from packaging.requirements import Requirement
from torch import nn
from torch.nn import functional

from benchmarks import measure, plan, spectrum, training_report
from benchmarks.accuracy import with_errors
from benchmarks.cost import product_operations
from benchmarks.figure import cost_growth
from benchmarks.jobs import NETWORKS, Job
from benchmarks.left_out import Reason, by_place
from benchmarks.problem import Problem, build, weights_file
from benchmarks.products import double_backward, gradient, retained_double_backward
from benchmarks.report import report
from benchmarks.summary import by_setting
from benchmarks.targets import verdicts
from sharpness.training import models

ROOT = Path(__file__).parent.parent


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5, generator=generator)
    inputs = torch.randn(300, 1, 4, 4, generator=generator)
    return Problem(model.eval(), inputs, (inputs[:, 0, 0, 0] > 0).long())


def dense_derivatives(problem):
    """The gradient and the Hessian by torch.func, in the order of the parameters."""
    shapes = [weight.shape for weight in problem.model.parameters()]
    names = [name for name, _ in problem.model.named_parameters()]
    flat = torch.cat([weight.detach().reshape(-1) for weight in problem.model.parameters()])

    def loss(weights):
        pieces = torch.split(weights, [shape.numel() for shape in shapes])
        state = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        return functional.cross_entropy(
            torch.func.functional_call(problem.model, state, problem.inputs), problem.targets
        )

    return torch.func.grad(loss)(flat), torch.autograd.functional.hessian(loss, flat)


@pytest.mark.parametrize("kind", [double_backward, retained_double_backward])
def test_products_of_a_ragged_last_chunk_are_those_of_the_dense_hessian(problem, kind):
    vector = torch.randn(problem.num_weights, generator=torch.Generator().manual_seed(1))

    torch.testing.assert_close(kind(problem)(vector), dense_derivatives(problem)[1] @ vector, rtol=1e-4, atol=1e-5)


def test_gradient_is_that_of_the_mean_loss(problem):
    torch.testing.assert_close(gradient(problem), dense_derivatives(problem)[0], rtol=1e-4, atol=1e-5)


def test_a_wider_network_of_width_one_would_be_the_projects_own():
    shapes = [weight.shape for weight in models.build("simple_cnn").parameters()]

    wider = [weight.shape for weight in build("simple_cnn", 2).parameters()]

    assert sum(shape.numel() for shape in shapes) == 361_898
    # Hidden sizes double; the images' three channels and the ten classes stay.
    assert [shape[0] for shape in wider[:-2]] == [2 * shape[0] for shape in shapes[:-2]]
    assert wider[0][1:] == shapes[0][1:]
    assert wider[-1] == shapes[-1]


def test_operations_of_a_product_are_six_times_those_of_a_layer_and_twice_for_the_first(problem):
    # 2x2 outputs of 2 channels from 3x3 pixels; 3 outputs from 8; two operations each.
    assert product_operations(problem) == 2 * (2 * 4 * 2 * 9) + 6 * (2 * 3 * 8)


def spectrum_row(tool, *, seconds=1.0, foreign=0.0, eigenvalues="3 1", number=0, products=40):
    job = Job("spectrum", "simple_cnn", tool, num_pairs=len(eigenvalues.split()), round=number)
    return asdict(job) | found_spectrum(eigenvalues, seconds=seconds, foreign=foreign, products=products)


def found_spectrum(eigenvalues, *, seconds=1.0, foreign=0.0, products=40):
    return {
        "seconds": seconds,
        "cpu_seconds": 2 * seconds,
        "foreign_cpu_seconds": foreign,
        "products": products,
        "probing": 0,
        "certifying": 0,
        "peak_mib": 1.0,
        "residual": 5e-4,
        "eigenvalues": eigenvalues,
    }


def test_errors_are_of_the_end_that_a_tool_looks_for():
    reference = asdict(Job("reference", "simple_cnn", num_pairs=2)) | {"eigenvalues": "4 2 1 -3"}
    rows = [reference, spectrum_row("ours float32", eigenvalues="4 1"), spectrum_row("scipy LM", eigenvalues="4 -3")]

    errors = [row.get("eigenvalue_error") for row in with_errors(rows)]

    assert errors == [None, pytest.approx(1 / 4), 0]


def test_rounds_beside_other_work_count_only_where_there_are_no_others():
    rows = [
        spectrum_row("ours float32", seconds=9.0, foreign=5.0),
        spectrum_row("ours float32", seconds=2.0, number=1),
        spectrum_row("scipy LM", seconds=8.0, foreign=5.0),
    ]

    (tools,) = by_setting(pd.DataFrame(rows).pipe(with_rates)).values()

    assert (tools["ours float32"].seconds, tools["ours float32"].disturbed) == (2.0, False)
    assert (tools["scipy LM"].seconds, tools["scipy LM"].disturbed) == (8.0, True)


def with_rates(table):
    """The table with the rate of a convolution, one product a second, and with what a run adds to every row."""
    rate = asdict(Job("rate", "simple_cnn", "ours float32")) | {
        "operations_per_second": 512.0,
        "operations_per_product": 1.0,
    }
    product = asdict(Job("product", "simple_cnn", "gradient")) | {"seconds": 0.25}
    table = pd.concat([table, pd.DataFrame([rate, product])], ignore_index=True)
    return table.assign(cpu="a processor", threads=2, versions="torch 0", sitting=1)


def test_a_target_that_is_not_met_says_why():
    rows = [
        spectrum_row("scipy LM", seconds=80.0, eigenvalues="9 8 7 6 5 4 3 2 1 1", products=40),
        spectrum_row("ours float32", seconds=40.0, eigenvalues="9 8 7 6 5 4 3 2 1 1", products=20),
    ]

    found = [str(verdict) for verdict in verdicts(with_rates(pd.DataFrame(rows)))]

    assert "2.00 times faster (2.00 in CPU time), wanted 4: not met; scipy LM took 40 products of 2.00 s" in found[0]
    assert found[0].endswith("or 20.0 s in all; the floor is 20.0 s, just that.")
    assert any("0.50 (20 against 40), at most 0.65 wanted: met" in verdict for verdict in found)


def test_a_product_is_told_in_gradients_beside_its_operations():
    table = with_rates(pd.DataFrame([spectrum_row("ours float32")]))
    product = asdict(Job("product", "simple_cnn", "ours float32")) | {"seconds": 0.46, "sitting": 1}
    found = [str(verdict) for verdict in verdicts(pd.concat([table, pd.DataFrame([product])], ignore_index=True))]
    # Multiplications of a forward pass, by layer; the first layer has no adjoint of its inputs.
    first = 27 * 32 * 32**2
    others = 288 * 32 * 30**2 + 288 * 64 * 15**2 + 576 * 64 * 13**2 + 2304 * 128 + 128 * 10
    operations = (2 * first + 6 * others) / (2 * first + 3 * others)
    (line,) = (line for line in found if "one product" in line)
    assert line.startswith("SimpleCNN, one product of ours float32: 1.84 gradients, at most 1.5 wanted: not met; ")
    assert f"it has {operations:.2f} times the operations of a gradient" in line


def test_the_page_and_the_figure_are_made_of_a_table_with_gaps():
    table = with_rates(pd.DataFrame(with_errors([spectrum_row("ours float32")])))
    failed = {Job("train", "resnet32"): "no memory"}

    page = report(table, failed, {Reason.TOO_LONG: [Job("spectrum", "resnet32", "scipy LM")]})

    assert "| ours float32 | 1 | 1 | 1.0 | 2.0 | 1.00 | 40 |" in page
    assert "Failed:\n\n- train resnet32 N=512 k=10 round 0: no memory" in page
    assert f"{Reason.TOO_LONG}:\n\n- ResNet-32, 512 examples, k=10: scipy LM\n" in page
    assert len(cost_growth(table).axes) == 3


def test_what_was_measured_in_a_later_sitting_is_told():
    table = with_rates(pd.DataFrame([spectrum_row("ours float32"), spectrum_row("scipy LM", seconds=4.0)]))
    table.loc[table["tool"] == "scipy LM", "sitting"] = 2

    page = report(table, {}, {})

    assert "2 sittings" in page
    assert "are of SimpleCNN in sitting 1" in page
    assert "| ours float32 | 1 | 1 | 1.0 |" in page
    assert "| scipy LM | 2 | 1 | 4.0 | 8.0 |  |" in page  # no ratio of times of two sittings


def test_what_was_left_out_is_one_line_for_each_setting():
    jobs = [Job("spectrum", "simple_cnn", tool, round=number) for number in (1, 2) for tool in ("scipy LM", "scipy LA")]
    jobs += [Job("train", "simple_cnn", width=2), Job("rate", "simple_cnn", "ours float32", width=2)]
    jobs += [Job("spectrum", "simple_cnn", "scipy LM", num_examples=1024), Job("reference", "simple_cnn")]

    assert by_place(jobs) == [
        "SimpleCNN, 512 examples, k=10: scipy LM (2 rounds), scipy LA (2 rounds), reference",
        "SimpleCNN of width x2: training, convolution rate (ours float32)",
        "SimpleCNN, 1024 examples, k=10: scipy LM",
    ]


@pytest.fixture
def bench(tmp_path):
    """The benchmark's Snakefile, in a folder where a program that measures nothing takes the place of Python."""
    cache, programs = tmp_path / "cache", tmp_path / "programs"
    programs.mkdir()
    cache.mkdir()
    (programs / "python").write_text(f"#!{sys.executable} -S\n{PRETENDS}")
    (programs / "python").chmod(0o755)
    whole = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "benchmarks/Snakefile")]
    whole += ["--directory", str(cache), "--cores", "1", "--keep-going", "--rerun-incomplete"]
    whole += ["--rerun-triggers", "mtime", "--quiet", "all", "--"]

    def run(jobs, **wishes):
        environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "WISHES": json.dumps(wishes)}
        subprocess.run([*whole, *(job.row for job in jobs)], env=environment, capture_output=True, check=False)
        started = (cache / "started").read_text().splitlines() if (cache / "started").exists() else []
        (cache / "started").unlink(missing_ok=True)
        return started, cache

    return run


PRETENDS = """
import json, os, pathlib, signal, sys
*_, sitting, row = sys.argv
wishes = json.loads(os.environ["WISHES"])
with open("started", "a") as file:
    print(row, file=file)
if row == wishes.get("failing"):
    sys.exit("no memory")
if row == wishes.get("killed"):
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path(row).write_text(json.dumps({"sitting": int(sitting)}))
if "/train-" in row:
    width = row.partition("-x")[2][:1] or "1"
    network = row.partition("/train-")[2].partition("-")[0]
    pathlib.Path(wishes["weights"][f"{network} {width}"]).write_text("weights")
"""
WEIGHTS = {
    f"{job.network} {job.width}": str(weights_file(job.network, job.width, Path()))
    for job in plan.full()
    if job.part == "train"
}


def test_the_most_important_is_measured_first_and_nothing_twice(bench):
    first, all_of_it = plan.short()[:3], plan.short()[:4]

    started, cache = bench(reversed(first), weights=WEIGHTS)
    later, _ = bench(all_of_it, weights=WEIGHTS)

    assert started == [job.row for job in first]
    assert later == [job.row for job in all_of_it[3:]]
    assert [row["sitting"] for row in spectrum.rows(cache)] == [1] * 3 + [2]


@pytest.mark.parametrize("how", ["failing", pytest.param("killed", marks=pytest.mark.slow)])
def test_nothing_is_measured_at_weights_that_were_not_trained_and_what_failed_is_tried_again(bench, how):
    wider = [job for job in plan.short() if job.width > 1]
    others = plan.short()[:2]

    started, cache = bench([*wider, *others], weights=WEIGHTS, **{how: wider[0].row})

    assert sorted(started) == sorted([wider[0].row, *(job.row for job in others)])
    assert spectrum.failures(cache) == {wider[0]: "no memory" if how == "failing" else "exit status 137"}
    assert set(wider[1:]) <= set(spectrum.not_measured(cache, full=False)[Reason.UNTRAINED])
    again, _ = bench([*wider, *others], weights=WEIGHTS)
    assert again == [job.row for job in wider]


def test_what_was_stopped_or_not_begun_is_left_out_for_want_of_time(tmp_path):
    trained, stopped, *others = plan.short()
    for place, text in ((trained.row, "{}"), (stopped.log, "Traceback:\nKeyboardInterrupt\n")):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(text)

    left_out = spectrum.not_measured(tmp_path, full=False)

    assert spectrum.failures(tmp_path) == {}
    assert left_out[Reason.TOO_LONG][0] == stopped
    assert {job for jobs in left_out.values() for job in jobs} == set(plan.full()) - {trained}
    assert set(left_out[Reason.NOT_SHORT]) == set(plan.full()) - {trained, stopped, *others}
    assert not spectrum.not_measured(tmp_path, full=True)[Reason.NOT_SHORT]


def test_a_row_is_what_its_job_measured_here(monkeypatch, tmp_path):
    job = plan.short()[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "measure", lambda job, _: measurements(job))
    monkeypatch.setattr(measure, "wait_for_quiet", lambda **_: None)
    monkeypatch.setattr(sys, "argv", ["measure", str(torch.get_num_threads()), "3", job.row])

    measure.main()

    (row,) = spectrum.rows(tmp_path)
    assert {name: row[name] for name in asdict(job)} == asdict(job)
    assert (row["training_loss"], row["sitting"], row["threads"]) == (0.1, 3, torch.get_num_threads())


def test_the_table_the_page_and_the_figure_are_of_the_rows_that_there_are(monkeypatch, tmp_path):
    here = {"cpu": "a processor", "threads": 2, "versions": "torch 0", "sitting": 1}
    done = [job for job in plan.short() if job.network == "simple_cnn" and job.width == 1]
    for job in done:
        path = tmp_path / "cache" / job.row
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(job) | measurements(job) | here))
    monkeypatch.setattr(sys, "argv", ["spectrum", "--folder", str(tmp_path)])

    spectrum.main()

    assert len(pd.read_csv(tmp_path / "spectrum.csv")) == len(done)
    page = (tmp_path / "spectrum.md").read_text()
    assert all(line in page for line in by_place(job for job in plan.short() if job.width > 1 and job.part != "train"))
    too_long = page.partition(f"{Reason.TOO_LONG}:")[2].partition(f"{Reason.UNTRAINED}:")[0]
    assert "\n- SimpleCNN of width x2: training\n" in too_long
    assert (tmp_path / "spectrum.png").read_bytes().startswith(b"\x89PNG")


def measurements(job):
    """What a job could have found, as far as the page needs it."""
    return {
        "train": {"training_loss": 0.1},
        "product": {"seconds": 0.25},
        "rate": {"operations_per_second": 512.0, "operations_per_product": 1.0},
        "reference": {"eigenvalues": " ".join(map(str, range(20, 0, -1)))},
        "spectrum": found_spectrum(" ".join(map(str, range(job.num_pairs, 0, -1)))),
    }[job.part]


def test_the_full_plan_contains_the_short_one_and_repeats_nothing():
    short, full = plan.short(), plan.full()

    assert set(short) <= set(full)
    assert len({job.row for job in full}) == len(full)
    assert len(set(short)) == len(short)


def test_what_is_installed_has_the_versions_of_the_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {Requirement(line).name: Requirement(line) for line in project["optional-dependencies"]["bench"]}
    pinned = dict(
        re.findall(r"^([a-z0-9-]+)==(\S+) ", (ROOT / "benchmarks/requirements.txt").read_text(), re.MULTILINE)
    )
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+) ", (ROOT / "requirements.lock").read_text(), re.MULTILINE))

    assert all(requirement.specifier.contains((pinned | locked)[name]) for name, requirement in extra.items())
    assert not set(pinned) & set(locked)


def training_rows(cpu, *, ours, theirs, networks=("simple_cnn",)):
    speeds = {("ours", 1): ours, ("ours, nudged", 1): ours, ("ours", 2): ours, ("tensors", 1): theirs}
    speeds |= {("floor", 1): 1.4 * theirs, ("peak", 1): 1.6 * theirs}
    return pd.DataFrame(
        {
            "network": network,
            "batch_size": batch,
            "loop": loop,
            "processes": processes,
            "round": number,
            "images_per_second": speed + number,
            "cpu": cpu,
            "threads": 2,
            "versions": "torch 0",
        }
        for network in networks
        for batch in training_report.BATCHES
        for (loop, processes), speed in speeds.items()
        for number in (-1, 0, 5)
    )


def nudging_rows(*cpus):
    way = {"precision": "float32", "tolerance": 0.1, "most_products": 9, "epoch": 1, "products": 3, "residual": 0.1}
    seconds = {"search_seconds": 0.5, "nudged_seconds": 1.0, "plain_seconds": 1.0}
    return pd.DataFrame({**way, **seconds, "cpu": cpu} for cpu in cpus)


def test_a_ratio_of_training_speeds_is_of_medians_on_one_processor():
    table = pd.concat(
        [
            training_rows("first", ours=130.0, theirs=100.0),
            training_rows("second", ours=1100.0, theirs=1000.0, networks=NETWORKS),
        ]
    )

    page = training_report.report(table, nudging_rows("first", "second"))

    _, first, second = re.split(r"^## ", page, flags=re.MULTILINE)

    assert first.startswith("first, 2 threads, torch 0")
    assert "SimpleCNN, batch 128: ours / tensors = 1.30 [1.2: met]" in first
    assert "ResNet-32, batch 8: no time" in first
    assert "SimpleCNN, batch 128: ours / tensors = 1.10 [1.2: not met]" in second
    assert "Left out" not in second
    assert "the floor is 1400 images/s, 1.40 times tensors; the peak is 1600 images/s, 1.60 times tensors" in second
    assert first.count("1.50") == second.count("1.50") == 1  # what Nudged SGD costs


@pytest.mark.parametrize("of_floor", [1, 2])
def test_runs_side_by_side_are_told_beside_a_floor_of_as_many(of_floor):
    rows = training_rows("only", ours=130.0, theirs=100.0)
    loops = {"tensors": "DataLoader", "ours": "ours, augmented"}
    augmented = rows[rows["loop"].isin(loops)].replace({"loop": loops})
    rows.loc[rows["loop"] == "floor", "processes"] = of_floor

    page = training_report.report(pd.concat([rows, augmented]), nudging_rows("only"))

    (line,) = (line for line in page.splitlines() if "batch 128: ours, augmented, side by side" in line)
    assert ("the floor is 140 images/s" in line) == (of_floor == 2)
