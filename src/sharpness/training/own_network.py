"""Build a user's own network: initialised by the user's code, by the run's seed, and refused where memory was left."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sharpness.hessian.skeleton import check_model
from sharpness.runtime import own
from sharpness.runtime.definitions import OwnError
from sharpness.runtime.streams import stream


def build(
    reference: str, arguments: Mapping[str, Any], *, input_shape: tuple[int, ...], num_classes: int, seed: int
) -> nn.Module:
    """Build a user's network on the CPU, in float32.

    Args:
        reference: the function, or a class of networks.
        arguments: what the study gives it.
        input_shape: of an example, and
        num_classes: the number of classes: for arguments of these names, where it has them and the study does not.
        seed: of all random numbers that it draws from the generators of torch, numpy and Python.

    Raises:
        OwnError: it failed, returned no network, or left memory of a parameter or buffer uninitialised.
    """
    function = own.load(reference)
    place = own.place_of_definition(reference)
    if not callable(function):
        raise OwnError(f"{place}: must be a function that returns a torch.nn.Module, got {type(function).__name__}")
    given = {"input_shape": input_shape, "num_classes": num_classes}
    taken = {name: value for name, value in given.items() if name in _parameters(function) and name not in arguments}
    model, again = (_built(reference, function, {**taken, **arguments}, place, seed) for _ in range(2))
    _check_repeated(model, again, place)
    return model


def _built(
    reference: str, function: Callable[..., Any], arguments: Mapping[str, Any], place: str, seed: int
) -> nn.Module:
    with _seeded(seed), _poisoned():
        model = own.call(reference, function, **arguments)
    if not isinstance(model, nn.Module):
        raise OwnError(f"{place}: must return a torch.nn.Module, got {type(model).__name__}")
    try:
        check_model(model)
    except (TypeError, ValueError) as error:
        raise OwnError(f"{place}: {error}") from None
    for name, tensor in _tensors(model):
        if tensor.is_meta:
            raise OwnError(f"{place}: {name} is on the meta device and has no values; initialise it")
        if _is_left(tensor):
            raise OwnError(
                f"{place}: {name} has memory that no initialiser filled (or is not finite); a network brings its own "
                "initialisation: fill it, as by torch.nn.init"
            )
    if frozen := [name for name, parameter in model.named_parameters() if not parameter.requires_grad]:
        raise OwnError(
            f"{place}: {frozen[0]} requires no gradient, but a run trains all parameters: make it a buffer "
            "(register_buffer), or let it be trained"
        )
    return model.to("cpu", torch.float32)


def _parameters(function: Callable[..., Any]) -> Mapping[str, object]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _is_left(tensor: Tensor) -> bool:
    """Whether a tensor has values with which ``_poisoned`` fills memory."""
    if tensor.is_floating_point() or tensor.is_complex():
        return not bool(torch.isfinite(tensor.detach()).all())
    return tensor.dtype != torch.bool and bool((tensor == torch.iinfo(tensor.dtype).max).any())


def _check_repeated(first: nn.Module, second: nn.Module, place: str) -> None:
    others = dict(_tensors(second))
    for name, tensor in _tensors(first):
        if name not in others or not torch.equal(tensor, others[name]):
            raise OwnError(
                f"{place}: {name} differs between two calls with one seed: uninitialised memory, or random numbers "
                "that are from no generator of torch, numpy or Python, or from one with a seed of its own"
            )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, and put them back."""
    number = stream(seed, "weights").initial_seed()
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            random.seed(number)
            np.random.seed(number % 2**32)
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


@contextmanager
def _poisoned() -> Iterator[None]:
    """Fill memory that torch or numpy would leave as it is: with NaN, or the largest whole number."""
    deterministic: Any = torch.utils.deterministic
    before = deterministic.fill_uninitialized_memory, torch.get_deterministic_debug_mode()
    of_numpy: Any = np
    empty, empty_like = of_numpy.empty, of_numpy.empty_like

    def filled(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*words: Any, **arguments: Any) -> Any:
            array = make(*words, **arguments)
            if array.dtype.kind in "fc":
                array.fill(np.nan)
            return array

        return made

    try:
        torch.set_deterministic_debug_mode("warn")
        deterministic.fill_uninitialized_memory = True
        of_numpy.empty, of_numpy.empty_like = filled(empty), filled(empty_like)
        yield
    finally:
        of_numpy.empty, of_numpy.empty_like = empty, empty_like
        deterministic.fill_uninitialized_memory = before[0]
        torch.set_deterministic_debug_mode(before[1])
