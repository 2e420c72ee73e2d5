"""Train one run of Nudged SGD: as ``train``, with the sharpest directions found anew at the start of every epoch."""

from __future__ import annotations

from torch import Tensor

from sharpness.data.datasets import Dataset
from sharpness.hessian.loss import Loss
from sharpness.measurements.landscape import Landscape
from sharpness.runtime.stage import run_stage
from sharpness.stages.train import FindDirections, Job, execute
from sharpness.study.run import Run
from sharpness.training.checkpoints import Snapshot
from sharpness.training.progress import Directions

# Of other examples, over which the error of the directions' curvature there is computed.
_CHUNKS = 4


def train_nudged(run: Run, job: Job) -> None:
    """Train a run of Nudged SGD."""
    execute(
        run,
        job,
        directions_for=lambda dataset, loss: finder(run, dataset, loss),
        stage="sharpness.stages.train_nudged",
    )


def finder(run: Run, dataset: Dataset, loss: Loss) -> FindDirections:
    """What finds the directions of a run, at the start of every epoch."""
    landscape = Landscape(run=run, loss=loss, dataset=dataset)
    examples = landscape.drawn_examples(run.direction_examples)
    # A quarter as many: a product each, which training pays in every epoch.
    others = landscape.drawn_examples(max(1, run.direction_examples // 4), after=run.direction_examples)

    def find(weights: Tensor, buffers: Tensor) -> Directions:
        state = Snapshot(0, weights, buffers, run.learning_rate)
        pairs = landscape.eigenpairs(
            state,
            landscape.hessian(state, examples, precision=run.direction_precision),
            num_pairs=run.num_directions,
            tolerance=run.direction_tolerance,
            max_products=run.direction_products,
            certify=False,  # no eigenvalue is published here
        )
        outside = landscape.elsewhere(
            state, pairs.eigenvectors, found_on=run.direction_examples, others=others, num_chunks=_CHUNKS
        )
        return Directions(
            pairs.eigenvectors,
            pairs.num_products,
            float(pairs.residuals.max()),
            trace=float(pairs.eigenvalues.sum()),
            **({} if outside is None else {"trace_elsewhere": outside.trace, "trace_error": outside.trace_error}),
        )

    return find


if __name__ == "__main__":
    run_stage(train_nudged)
