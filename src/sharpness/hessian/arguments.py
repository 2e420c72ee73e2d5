"""Check and convert the arguments of an operator: settings, examples and vectors."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sharpness.hessian.inputs import Inputs, tensors_of

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


def check_module(model: object) -> None:
    """Raise TypeError unless the model is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, got {type(model).__name__}")


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters and buffers.

    Raises:
        TypeError: the model is no module.
        ValueError: they are on several devices, or on the meta device.
    """
    check_module(model)
    devices = {tensor.device: name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    if len(devices) > 1:
        raise ValueError(f"the model must be on one device, got {', '.join(f'{n} on {d}' for d, n in devices.items())}")
    (device,) = devices or {torch.device("cpu")}
    if device.type == "meta":
        raise ValueError("the model's weights are on the meta device, where they have no values")
    return device


def check_numbers(inputs: Inputs, targets: Tensor) -> None:
    """Check that there are as many targets as inputs of each kind, and at least one.

    Raises:
        ValueError: there are not.
    """
    if not isinstance(inputs, Tensor):
        for values in tensors_of(inputs):
            if values.dim():  # a single number belongs to all examples
                check_numbers(values, targets)
        return
    numbers = [len(values) if values.dim() else "a single number" for values in (targets, inputs)]
    if numbers[0] != numbers[1] or numbers[0] in (0, "a single number"):
        raise ValueError(f"need as many targets as inputs and at least one, got {numbers[0]} and {numbers[1]}")


def check_inputs(inputs: Inputs) -> None:
    """Check that inputs [N, ...] are finite; among several, masks of attention may be minus infinity.

    Raises:
        ValueError: some are not; the message names the first such example.
    """
    if not isinstance(inputs, Tensor):
        for values in tensors_of(inputs):
            masked = values.masked_fill(values == -inf, 0) if values.is_floating_point() else values
            check_inputs(masked if values.dim() else masked[None])
        return
    if not (inputs.is_floating_point() or inputs.is_complex()) or torch.isfinite(inputs).all():
        return
    bad = ~torch.isfinite(inputs).flatten(1 if inputs.dim() > 1 else 0).view(len(inputs), -1)
    number = int(bad.any(dim=1).nonzero()[0])
    value = inputs[number].flatten()[bad[number]][0].item()
    others = int(bad.any(dim=1).sum()) - 1
    also = f", and {others} more" if others else ""
    raise ValueError(f"the inputs are not finite: inputs[{number}] has {value}{also}")


def check_taken(inputs: Inputs, error: RuntimeError) -> None:
    """Explain a network's ``error`` if the dtype of the inputs caused it.

    Raises:
        TypeError: it did.
    """
    said = str(error).splitlines()[0]
    if (
        isinstance(inputs, Tensor)
        and not inputs.is_floating_point()
        and any(word in said for word in ("dtype", "scalar type", "Input type"))
    ):
        kind = "complex numbers" if inputs.is_complex() else "whole numbers, which are passed on unchanged"
        raise TypeError(f"the network does not take inputs of {inputs.dtype} ({kind}): {said}") from error


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
    values = tensor("the vector", given, device)
    if values.is_complex():
        raise TypeError(f"the vector is of {values.dtype}: multiply its real and imaginary parts separately")
    if values.dim() not in (1, 2):
        raise ValueError(f"need a vector [{size}] or a block of them [{size}, b], got shape {list(values.shape)}")
    if len(values) != size:
        rows = "; vectors in rows are multiplied as operator @ rows.T" if values.shape[-1] == size else ""
        raise ValueError(f"the Hessian is {size} x {size}, the vector has {len(values)} entries{rows}")
    return values.to(dtype)


def tensor(name: str, given: object, device: torch.device) -> Tensor:
    """Convert to a tensor without a graph.

    Raises:
        TypeError: it is neither a dense tensor nor an array of numbers.
        ValueError: it is on another device.
    """
    be = "are" if name.endswith("s") else "is"
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must be a plain array, got a masked one: give .filled(value), or leave out what is masked"
        )
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
