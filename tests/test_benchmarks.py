"""The benchmark: its own products, its accounting, and what it installs. No other library is needed."""

import re
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

from benchmarks import plan, spectrum, training_report
from benchmarks.accuracy import with_errors
from benchmarks.cost import product_operations
from benchmarks.figure import cost_growth
from benchmarks.jobs import NETWORKS, Job
from benchmarks.left_out import Reason, by_place
from benchmarks.problem import Problem, build
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
    failure = asdict(Job("train", "resnet32")) | {"failure": "no memory"}
    table = with_rates(pd.DataFrame(with_errors([spectrum_row("ours float32"), failure])))

    page = report(table, {Reason.TOO_LONG: [Job("spectrum", "resnet32", "scipy LM")]}, minutes=1.0)

    assert "| ours float32 | 1 | 1 | 1.0 | 2.0 | 1.00 | 40 |" in page
    assert "Failed:\n\n- train resnet32 N=512 k=10 round 0: no memory" in page
    assert f"{Reason.TOO_LONG}:\n\n- ResNet-32, 512 examples, k=10: scipy LM\n" in page
    assert len(cost_growth(table).axes) == 3


def test_what_was_measured_in_a_later_sitting_is_told():
    table = with_rates(pd.DataFrame([spectrum_row("ours float32"), spectrum_row("scipy LM", seconds=4.0)]))
    table.loc[table["tool"] == "scipy LM", "sitting"] = 2

    page = report(table, {}, minutes=None)

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


def test_the_page_names_no_job_twice_and_no_reason_without_jobs():
    failed, other = (Job("spectrum", "resnet32", tool) for tool in ("scipy LM", "curvlinops"))
    rows = [spectrum_row("ours float32"), asdict(failed) | {"failure": "no memory"}]
    left_out = {Reason.TOO_LONG: [failed], Reason.NOT_SHORT: [other]}

    page = report(with_rates(pd.DataFrame(rows)), left_out, minutes=None)

    section = page.partition("## Left out")[2]
    assert [line for line in section.splitlines() if line.endswith(":")] == ["Failed:", f"{Reason.NOT_SHORT}:"]
    assert section.count("scipy LM") == section.count("curvlinops") == 1


@pytest.mark.parametrize("training", ["fails", "takes too long"])
def test_nothing_is_measured_at_weights_that_were_not_trained(monkeypatch, tmp_path, training):
    started = []

    def pretend(job, *_, **__):
        started.append(job)
        return {"failure": "no memory"} if job.part == "train" and job.width > 1 else measurements(job)

    monkeypatch.setattr(spectrum, "_run", pretend)
    monkeypatch.setattr(spectrum, "wait_for_quiet", lambda **_: None)
    too_long = Job("train", "simple_cnn", width=2) if training == "takes too long" else None
    monkeypatch.setattr(plan, "expected_seconds", lambda job, _: 1e9 if job == too_long else 0.0)
    monkeypatch.setattr(sys, "argv", ["spectrum", "--folder", str(tmp_path)])

    spectrum.main()

    wider = [job for job in plan.short() if job.width > 1]
    assert len(wider) > 1
    assert [job for job in started if job.width > 1] == ([] if too_long else wider[:1])
    assert [job for job in started if job.width == 1] == [job for job in plan.short() if job.width == 1]
    section = (tmp_path / "spectrum.md").read_text().partition("## Left out")[2]
    assert ("Failed" in section, str(Reason.TOO_LONG) in section) == (not too_long, bool(too_long))
    assert all(line in section for line in by_place(wider[1:]))
    assert section.count(Reason.UNTRAINED) == 1


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
    assert len(set(full)) == len(full)
    assert len(set(short)) == len(short)
    assert all(plan.expected_seconds(job, {}) > 0 for job in full)


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
