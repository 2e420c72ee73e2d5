"""What Nudged SGD costs beside plain SGD: an epoch of each in turns, with the search for directions timed apart."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.problem import examples
from sharpness.data.datasets import Dataset, Split, epoch_order
from sharpness.runtime.streams import stream
from sharpness.stages.train_nudged import finder
from sharpness.study.plan import study_in
from sharpness.study.run import Run
from sharpness.training.descent import Descent
from sharpness.training.initialisation import loss_of

_DEFAULTS = Path(__file__).parent.parent / "workflow" / "studies" / "digits.yaml"
_NUM_TRAINING, _EPOCHS = 1536, 7
# Five directions from 5 % of the training set, renewed every epoch.
_RUN: dict[str, Any] = {
    "num_training": _NUM_TRAINING,
    "batch_size": 128,
    "learning_rate": 0.05,
    "gamma": 0.1,
    "num_directions": 5,
    "direction_examples": _NUM_TRAINING // 20,
}
_SEARCHES = [(20, 0.1), (10, 0.1), (10, 0.3)]
# Most products of a search, the residual that ends it, and the precision.
WAYS = [(products, tolerance, precision) for precision in ("float32", "bfloat16") for products, tolerance in _SEARCHES]


def measure() -> Iterator[dict[str, Any]]:
    """Give a row for each way and epoch: seconds of the search and of both kinds of updates; products, residual.

    The first epoch of a way also traces and compiles the product, which is kept from job to job.
    """
    inputs, targets = examples(1_797)
    rest = Split(inputs[_NUM_TRAINING:], targets[_NUM_TRAINING:])
    dataset = Dataset(Split(inputs[:_NUM_TRAINING], targets[:_NUM_TRAINING]), rest, rest, num_classes=10)
    defaults = study_in(_DEFAULTS).config["defaults"]
    for products, tolerance, precision in WAYS:
        way = {"direction_products": products, "direction_tolerance": tolerance, "direction_precision": precision}
        run = Run(**{**defaults, **_RUN, **way})
        loss, weights, buffers = loss_of(run, dataset)
        find = finder(run, dataset, loss)
        nudged, plain = (
            Descent(loss, weights, buffers, learning_rate=run.learning_rate, momentum=0.0) for _ in range(2)
        )
        for epoch in range(_EPOCHS):
            begin = time.perf_counter()
            directions = find(nudged.weights, nudged.buffers)
            search = time.perf_counter() - begin
            yield {
                "most_products": products,
                "tolerance": tolerance,
                "precision": precision,
                "epoch": epoch,
                "search_seconds": search,
                "nudged_seconds": _epoch(nudged, run, dataset, epoch, directions.rows),
                "plain_seconds": _epoch(plain, run, dataset, epoch, None),
                "products": directions.num_products,
                "residual": directions.residual,
            }


def _epoch(descent: Descent, run: Run, dataset: Dataset, epoch: int, rows: torch.Tensor | None) -> float:
    training = dataset.training
    order = epoch_order(_NUM_TRAINING, run.examples_per_step, generator=stream(0, f"order of epoch {epoch}"))
    begin = time.perf_counter()
    for batch in order:
        descent.step(
            training.inputs[batch], training.targets[batch], rows, gamma=run.gamma, gamma_outside=run.gamma_outside
        )
    return time.perf_counter() - begin


if __name__ == "__main__":
    for row in measure():
        print(json.dumps(row), flush=True)
