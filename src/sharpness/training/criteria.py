"""The loss of outputs and targets that a run trains on: one of torch's, or a user's own function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpness.hessian.losses.criterion import Criterion, OutputCurvature, precise
from sharpness.hessian.losses.numbers import BinaryCrossEntropy, SquaredError
from sharpness.runtime import own
from sharpness.runtime.definitions import OwnError


def criterion_of(loss: str, num_classes: int) -> Criterion | None:
    """Return the criterion of a run's ``loss``; None is the cross-entropy of classes.

    Args:
        loss: as a study names it.
        num_classes: of the data; 0 where the targets are numbers.

    Raises:
        OwnError: a user's function cannot be imported.
    """
    if loss == "mse":
        return _SquaresOfClasses() if num_classes else SquaredError()
    if loss == "bce_with_logits":
        return _LogitsOfClasses() if num_classes else BinaryCrossEntropy()
    if own.is_reference(loss):
        return OfFunction(loss, own.load(loss))
    return None


class _SquaresOfClasses(SquaredError):  # noqa: N818 (it is no exception)
    """Of targets that are one for the class of an example, and zero elsewhere."""

    def num_labels(self, targets: Tensor) -> int:
        return len(targets)

    def num_correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(dim=1) == targets.argmax(dim=1)).sum()


class _LogitsOfClasses(BinaryCrossEntropy):
    """Likewise."""

    def num_labels(self, targets: Tensor) -> int:
        return len(targets)

    def num_correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(dim=1) == targets.argmax(dim=1)).sum()


@dataclass(frozen=True)
class _OfFunction:
    """The Hessian of a user's loss at the outputs, by differentiating its gradient."""

    outputs: Tensor  # a leaf
    gradient: Tensor  # with its graph

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors held."""
        return [self.outputs, self.gradient]

    def times(self, tangent: Tensor) -> Tensor:
        """Multiply a tangent of the outputs, of their shape."""
        tangent = tangent.to(self.gradient.dtype)
        if not self.gradient.requires_grad:
            return torch.zeros_like(tangent)
        with torch.enable_grad():
            (product,) = torch.autograd.grad(
                self.gradient, self.outputs, tangent, retain_graph=True, materialize_grads=True
            )
        return product


@dataclass(frozen=True)
class OfFunction(Criterion):
    """A user's ``function(outputs, targets)``, which returns the loss of each example, [n]; the mean is over these."""

    reference: str
    function: Callable[[Tensor, Tensor], Tensor]

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Call the function, and check what it returns.

        Raises:
            OwnError: it failed, or did not return a loss for each example that can be differentiated.
        """
        terms = own.call(self.reference, self.function, outputs, targets)
        if not isinstance(terms, Tensor) or terms.shape != outputs.shape[:1] or not terms.is_floating_point():
            got = f"a tensor of {list(terms.shape)}" if isinstance(terms, Tensor) else type(terms).__name__
            raise OwnError(
                f"{own.place_of_definition(self.reference)}: must return the loss of each example, a tensor of "
                f"[{len(outputs)}], as by reduction='none', got {got}"
            )
        if outputs.requires_grad and not terms.requires_grad:
            raise OwnError(
                f"{own.place_of_definition(self.reference)}: must compute the loss from the outputs by torch, got a "
                "tensor that cannot be differentiated"
            )
        return terms

    def converted(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        return targets.to(dtype, copy=True) if targets.is_floating_point() else targets

    def check(self, targets: Tensor, outputs: torch.Size) -> None:
        pass  # the function does

    def weight(self, targets: Tensor) -> float | Tensor:
        return len(targets)

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.terms(outputs, targets).mean()

    def plain_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.terms(outputs, targets).sum()

    def summed(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.terms(precise(outputs), targets).sum()

    def gradient_and_curvature(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, OutputCurvature]:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = precise(outputs).detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(
                self.summed(leaf, targets), leaf, create_graph=True, materialize_grads=True
            )
        return gradient.detach(), _OfFunction(leaf, gradient)

    def trial(self, outputs: Tensor) -> tuple[Criterion, Tensor]:
        """A loss that any network's outputs have: of the user's, the targets are not known."""
        return SquaredError().trial(outputs)
