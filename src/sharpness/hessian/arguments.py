"""Check and convert the arguments of a Hessian: settings, examples and vectors."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sharpness.hessian.cross_entropy import IGNORED, num_terms
from sharpness.hessian.loss import as_precise

# Other names of precisions.
_OTHER_NAMES = {"bf16": "bfloat16", "fp32": "float32", "single": "float32", "fp64": "float64", "double": "float64"}


def one_of(name: str, word: object, known: Sequence[str | None]) -> None:
    """Check that ``word`` is one of ``known``; the error suggests the nearest.

    Raises:
        ValueError: it is not.
    """
    if word in known and type(word) in (str, type(None)):
        return
    words = [str(other) for other in known if other is not None]
    said = str(word).removeprefix("torch.").lower()
    near = difflib.get_close_matches(_OTHER_NAMES.get(said, said), words, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{name} {word!r} is unknown: {meant}there are {', '.join(map(repr, words))}")


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters and buffers.

    Raises:
        ValueError: they are on several devices, or on the meta device.
    """
    devices = {tensor.device: name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    if len(devices) > 1:
        raise ValueError(f"the model must be on one device, got {', '.join(f'{n} on {d}' for d, n in devices.items())}")
    (device,) = devices or {torch.device("cpu")}
    if device.type == "meta":
        raise ValueError("the model's weights are on the meta device, where they have no values")
    return device


def examples(inputs: object, targets: object, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Copy and convert examples: inputs to the precision of ``dtype``, unless integers, and targets to int64.

    Args:
        inputs: [N, ...], a tensor or a numpy array.
        targets: [N, ...], a tensor or a numpy array of integers.
        dtype: of the operator's vectors.
        device: of the model.

    Raises:
        TypeError: one of them is neither a tensor nor an array.
        ValueError: they are on another device or empty, their numbers differ, or the targets are not integers.
    """
    values, labels = _tensor("inputs", inputs, device), _tensor("targets", targets, device)
    check_numbers(values, labels)
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"targets must be classes, whole numbers, got {labels.dtype}: probabilities of classes are not supported, "
            "and classes in floating point are converted by targets.long()"
        )
    # Converted once to the memory format in which convolutions are fastest.
    kept_as = torch.channels_last if values.dim() == 4 else torch.contiguous_format
    values = as_precise(values, dtype).clone(memory_format=kept_as)
    return values, labels.to(torch.int64, copy=True)


def check_numbers(inputs: Tensor, targets: Tensor) -> None:
    """Check that there are as many targets as inputs, and at least one.

    Raises:
        ValueError: there are not.
    """
    numbers = [len(tensor) if tensor.dim() else "a single number" for tensor in (targets, inputs)]
    if numbers[0] != numbers[1] or numbers[0] in (0, "a single number"):
        raise ValueError(f"need as many targets as inputs and at least one, got {numbers[0]} and {numbers[1]}")


def check_inputs(inputs: Tensor) -> None:
    """Check that inputs [N, ...] are finite.

    Raises:
        ValueError: some are not; the message names the first such example.
    """
    if not (inputs.is_floating_point() or inputs.is_complex()) or torch.isfinite(inputs).all():
        return
    bad = ~torch.isfinite(inputs).flatten(1 if inputs.dim() > 1 else 0).view(len(inputs), -1)
    number = int(bad.any(dim=1).nonzero()[0])
    value = inputs[number].flatten()[bad[number]][0].item()
    others = int(bad.any(dim=1).sum()) - 1
    also = f", and {others} more" if others else ""
    raise ValueError(f"the inputs are not finite: inputs[{number}] has {value}{also}")


def check_taken(inputs: Tensor, error: RuntimeError) -> None:
    """Explain a network's ``error`` if the dtype of the inputs caused it.

    Raises:
        TypeError: it did.
    """
    said = str(error).splitlines()[0]
    if not inputs.is_floating_point() and any(word in said for word in ("dtype", "scalar type", "Input type")):
        kind = "complex numbers" if inputs.is_complex() else "whole numbers, which are passed on unchanged"
        raise TypeError(f"the network does not take inputs of {inputs.dtype} ({kind}): {said}") from error


def check_labels(targets: Tensor, logits: torch.Size) -> None:
    """Check that the targets match the logits in shape and are classes.

    Args:
        targets: [N, ...], int64.
        logits: shape of the logits, [N, classes, ...].

    Raises:
        ValueError: the shapes do not match; a target is not a class (the message names the first); or all are
            ``IGNORED``.
    """
    num_classes, expected = logits[1], logits[:1] + logits[2:]
    if targets.shape != expected:
        cure = ""
        if targets.shape in ((*expected, 1), (expected[0], 1, *expected[1:])):
            cure = f": give targets.squeeze({targets.dim() - 1 if targets.shape[-1] == 1 else 1})"
        elif targets.shape == logits:
            cure = ": give targets.argmax(1) where they are one-hot"
        elif targets.shape == logits[:-1]:
            cure = ": the classes are the second axis, as in logits.movedim(-1, 1)"
        raise ValueError(
            f"targets have shape {list(targets.shape)}, one label for each position of logits {list(logits)} is "
            f"{list(expected)}{cure}"
        )
    wrong = ((targets < 0) | (targets >= num_classes)) & (targets != IGNORED)
    if wrong.any():
        position = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"targets{position} is {int(targets[tuple(position)])}, but the network has {num_classes} "
            f"{'class' if num_classes == 1 else 'classes'}: labels are 0 to {num_classes - 1}, or {IGNORED} to "
            "ignore a position"
        )
    if not num_terms(targets):
        raise ValueError(f"all targets are {IGNORED}, which is ignored: there is nothing to average over")


def vector(given: object, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Check and convert a vector [size] or a block of vectors [size, b].

    Args:
        given: a tensor on ``device`` or a numpy array, of real numbers of any type.
        size: of the operator.
        dtype: of the result.
        device: of the operator.

    Raises:
        TypeError: it is neither a tensor nor an array, or it is complex.
        ValueError: it has the wrong shape or device.
    """
    tensor = _tensor("the vector", given, device)
    if tensor.is_complex():
        raise TypeError(f"the vector is of {tensor.dtype}: multiply its real and imaginary parts separately")
    if tensor.dim() not in (1, 2):
        raise ValueError(f"need a vector [{size}] or a block of them [{size}, b], got shape {list(tensor.shape)}")
    if len(tensor) != size:
        rows = "; vectors in rows are multiplied as operator @ rows.T" if tensor.shape[-1] == size else ""
        raise ValueError(f"the Hessian is {size} x {size}, the vector has {len(tensor)} entries{rows}")
    return tensor.to(dtype)


def _tensor(name: str, given: object, device: torch.device) -> Tensor:
    """Convert to a tensor without a graph."""
    be = "are" if name.endswith("s") else "is"
    if isinstance(given, np.ndarray):
        return _of_numpy(name, given, device)
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be a tensor or a numpy array, got {type(given).__name__}")
    if given.device != device:
        raise ValueError(f"{name} {be} on {given.device}, but the network on {device}")
    if given.layout != torch.strided or given.is_nested:
        raise TypeError(f"{name} must be dense, got {'a nested tensor' if given.is_nested else given.layout}")
    # Copy tensors made in inference mode, which autograd refuses.
    return given.clone() if given.is_inference() else given.detach()


def _of_numpy(name: str, given: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    try:
        # Copied, since an array may be read-only or have negative strides.
        return torch.from_numpy(given.copy(order="C").astype(given.dtype.newbyteorder("="))).to(device)
    except TypeError:
        raise TypeError(f"{name} must be numbers, got an array of {given.dtype}") from None
