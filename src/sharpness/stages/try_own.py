"""Try a user's own network on its data, before anything trains: what cannot be trained ends here with one sentence."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from torch import Tensor

from sharpness.data.datasets import Dataset
from sharpness.hessian.loss import Loss
from sharpness.runtime import own
from sharpness.runtime.definitions import OwnError
from sharpness.runtime.device import choose_device
from sharpness.runtime.files import write_text
from sharpness.runtime.stage import run_stage
from sharpness.study import nested
from sharpness.study.run import Run
from sharpness.training.criteria import OfFunction
from sharpness.training.initialisation import dataset_of, loss_of

# Examples on which the loss before training is computed, and how many of them are given alone too.
_EXAMPLES, _SOME = 256, 2


def try_own(run: Run, data: Path, output: Path) -> None:
    """Build a run's network, compute its loss and gradient on a few examples, and write down what it is.

    Args:
        run: that ``trial_of`` gives for those with this network and these data.
        data: the prepared data set.
        output: parameters, shapes and the loss before training, as YAML.

    Raises:
        OwnError, ValueError: the network cannot be built, does not take the data, is random in training, changes its
            buffers in evaluation, or its loss is not finite, or not one of each example.
    """
    device = choose_device(threads=1)
    dataset = dataset_of(run, data, device)
    loss, weights, buffers = loss_of(run, dataset)
    inputs, targets = (tensor[:_EXAMPLES] for tensor in _first(dataset))
    if run.augment and inputs.dim() != 4:
        raise OwnError(f"augment must be false: {run.data} has examples of {list(inputs.shape[1:])}, and no images")
    code = run.own_code[0] if run.own_code else run.model
    given = f"{run.model} was given inputs of {list(inputs.shape)} and {str(inputs.dtype)[6:]}"
    with own.blamed(code, given):
        kept = buffers.clone()
        outputs = loss.logits(weights, kept, inputs)
        some = loss.logits(weights, buffers.clone(), inputs[:_SOME])
    _check_outputs(loss, outputs, targets, run)
    _check_unchanged(loss, buffers, kept, run)
    with own.blamed(code, given):
        values = [_in_training(loss, weights, buffers, inputs, targets, seed) for seed in (0, 1)]
    value, gradient = values[0]
    if not bool(torch.isfinite(value + gradient.sum())):
        raise OwnError(f"{_told(run)}: the loss before training is {float(value):g}, or its gradient is not finite")
    if not torch.equal(*(gradient for _, gradient in values)):
        raise OwnError(
            f"{_told(run)}{f' with {run.loss}' if own.is_reference(run.loss) else ''} is random in training, as by "
            "dropout: set its probability to 0, since one function of the weights is trained and measured"
        )
    _check_each_alone(loss, outputs, some, targets, run)
    names = zip(loss.layout.names, loss.layout.shapes, strict=True)
    told = {
        "model": run.model,
        "model_args": nested.as_mapping(run.model_args),
        "data": run.data,
        "loss": run.loss,
        "num_parameters": loss.num_weights,
        "parameters": {name: list(shape) for name, shape in names},
        "buffers": {
            name: list(shape) for name, shape in zip(loss.buffer_layout.names, loss.buffer_layout.shapes, strict=True)
        },
        "examples": {
            name: {"inputs": list(split.inputs.shape), "targets": list(split.targets.shape)}
            for name, split in vars(dataset).items()
            if name in ("training", "validation", "test")
        },
        "num_classes": dataset.num_classes,
        "outputs": list(outputs.shape[1:]),
        "initial_loss": float(value),
    }
    write_text(yaml.safe_dump(told, sort_keys=False), output)


def _told(run: Run) -> str:
    """The network, with the line of the user's file where it is one of theirs."""
    return f"{own.place_of_definition(run.model)}: {run.model}" if own.is_reference(run.model) else run.model


def _first(dataset: Dataset) -> tuple[Tensor, Tensor]:
    return dataset.training.inputs, dataset.training.targets


def _in_training(
    loss: Loss, weights: Tensor, buffers: Tensor, inputs: Tensor, targets: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient as a training step computes them, with the global generator seeded."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return loss.value_and_gradient(weights, buffers.clone(), inputs, targets, training=True)


def _check_outputs(loss: Loss, outputs: object, targets: Tensor, run: Run) -> None:
    """Check that a network's outputs and the targets fit to the loss."""
    if not isinstance(outputs, Tensor):
        raise OwnError(f"{_told(run)} must return a tensor, got {type(outputs).__name__}")
    criterion = loss.criterion
    if needed := criterion.check_outputs(outputs, len(targets)):
        raise OwnError(f"{_told(run)} must return {needed}, got {list(outputs.shape)}")
    if run.loss == "cross_entropy" and targets.is_floating_point():
        raise OwnError(f"{run.data} has targets that are numbers and no classes; is the loss mse?")
    try:
        criterion.check(criterion.converted(targets, outputs.dtype), outputs.shape)
    except ValueError as error:
        raise OwnError(f"{run.model} with {run.data} and {run.loss}: {error}") from None


def _check_each_alone(loss: Loss, outputs: Tensor, some: Tensor, targets: Tensor, run: Run) -> None:
    """Check that an example's output and loss do not depend on the examples beside it.

    Args:
        loss: of the run.
        outputs: of all examples, in evaluation.
        some: the same of the first of them, computed without the others.
        targets: of all.
        run: that is tried.
    """
    if not _is_close(some, outputs[:_SOME]):
        raise OwnError(
            f"{_told(run)}: in evaluation the output of an example depends on the other examples of its batch, must not"
        )
    if isinstance(criterion := loss.criterion, OfFunction):
        terms = (criterion.terms(outputs[:count], targets[:count]) for count in (len(targets), _SOME))
        if not _is_close(*(each[:_SOME] for each in terms)):
            raise OwnError(
                f"{own.place_of_definition(run.loss)}: the loss of an example depends on the other examples of its "
                "batch, must not: return that of each, as by reduction='none'"
            )


def _is_close(one: Tensor, other: Tensor) -> bool:
    """Whether two finite results are equal, but for rounding."""
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def _check_unchanged(loss: Loss, before: Tensor, after: Tensor, run: Run) -> None:
    """Check that an evaluation left the buffers as they were."""
    others = loss.buffer_layout.named(after)
    changed = [name for name, buffer in loss.buffer_layout.named(before).items() if not buffer.equal(others[name])]
    if changed:
        raise OwnError(
            f"{_told(run)}: an evaluation changes the buffer {changed[0]}, so that the loss is no function of the "
            "weights; change it in training only"
        )


if __name__ == "__main__":
    run_stage(try_own)
