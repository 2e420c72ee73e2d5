"""Choose how products with a network's curvature are computed (R-operator or double backward), and check it."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sharpness.hessian.absent import FrozenUses
from sharpness.hessian.culprit import reason_of
from sharpness.hessian.curvature import CurvatureKind
from sharpness.hessian.differences import TOLERANCE, fault_of, off_difference, relative_difference
from sharpness.hessian.double_backward.product import DoubleBackward
from sharpness.hessian.inputs import Inputs, arguments_of, num_examples, part
from sharpness.hessian.layout import Layout
from sharpness.hessian.loss import Loss
from sharpness.hessian.losses.criterion import Criterion, precise
from sharpness.hessian.losses.own import OwnLoss
from sharpness.hessian.r_operator.product import ROperator
from sharpness.hessian.skeleton import inside, leaves_of

Form = ROperator | DoubleBackward

_log = logging.getLogger(__name__)

# Largest difference between a product and one by double backward, relative to its norm. Float64 decides whether the
# derivatives are correct; in the other precisions rounding can be large on few examples.
_AGREEMENT = {torch.float64: 1e-10, torch.float32: 0.05, torch.bfloat16: 0.5}
# Examples in the comparison: few suffice to tell whether operations are differentiated correctly.
_EXAMPLES = 4
# Of a slope of the loss and a central difference, relative to the larger.
_OFF_SLOPE = 1e-3
# Relative to the norm of the weights; from short ones on few kinks of ReLUs are crossed.
_STEPS = (1e-5, 1e-6, 1e-4, 1e-7, 1e-3)
# Calls of the network on them: state may take effect one call later.
_CALLS = 3


def by_parameter(layout: Layout, chosen: Sequence[bool], vector: Tensor) -> list[Tensor | None]:
    """Split ``vector`` into views in the order of a network's parameters, with None for those without rows."""
    views = iter(layout.views(vector))
    return [next(views) if has_rows else None for has_rows in chosen]


def checked_form(
    loss: Loss,
    layout: Layout,
    chosen: Sequence[bool],
    weights: list[Tensor],
    buffers: list[Tensor],
    inputs: Inputs,
    kind: CurvatureKind = "hessian",
) -> Form:
    """Return the R-operator if it is correct for this network, else double backward.

    The check uses float64, a few examples and labels that the network does not predict; the form returned is for the
    criterion of ``loss`` and the given kind of curvature. Double backward must be symmetric and agree with a central
    difference of gradients, and the R-operator must agree with double backward. If torch's double backward is wrong or
    missing, the R-operator itself must be symmetric and agree with differences.

    Raises:
        ValueError: the network needs other arguments than the examples, does not return logits, returns others when
            called again, or overwrites its weights.
        FloatingPointError: the curvature overflows at these weights.
        RuntimeError: neither way differentiates the network correctly; the message names the layer.
    """
    network = inside(loss.evaluating)
    _check_arguments(network, inputs, loss.criterion)
    _check_tables(network)
    # A network that draws random numbers is refused later on; until then, protect the global generator.
    with torch.random.fork_rng(devices=[]):
        check = _Check(loss, layout, chosen, weights, buffers, part(inputs, 0, _EXAMPLES))
        form = check.form()
        return form if kind == "hessian" else check.of_kind(form, kind)


class _Check:
    """Products of both ways on a few examples, compared at given weights."""

    def __init__(
        self,
        loss: Loss,
        layout: Layout,
        chosen: Sequence[bool],
        weights: list[Tensor],
        buffers: list[Tensor],
        inputs: Inputs,
    ) -> None:
        self._loss, self._layout, self._chosen, self._inputs = loss, layout, chosen, inputs
        self._own, full = weights[0].dtype, torch.float64
        self._states = {
            dtype: ([w.to(dtype) for w in weights], [b.to(dtype) for b in buffers]) for dtype in (full, self._own)
        }
        self._full = self._states[full]
        self._vectors = _random(torch.Size([2, layout.size]), 0).to(weights[0].device, full)
        self._double_backward = DoubleBackward(loss, chosen)
        self._trial, self._targets = loss.criterion.trial(self._logits())
        self._double_backward.criterion = self._trial

    def form(self) -> Form:
        """Return a checked form of the Hessian, for the criterion of the loss."""
        if all(self._chosen) and self._double_backward.is_apart(*self._full, self._inputs):
            raise ValueError(
                f"what {self._described()} does not depend on the weights of the model: it must come from the model "
                "that is given, with its graph"
            )
        form = self._checked()
        self._check_slope()
        return self._for_loss(form)

    def of_kind(self, form: Form, kind: CurvatureKind) -> Form:
        """Return a form of another kind of curvature, given that of the Hessian.

        The R-operator must agree with double backward in this kind, too.
        """
        by_graph = DoubleBackward(self._loss, self._chosen, self._trial, kind)
        truth = self._product(by_graph, self._vectors[0])
        _check_finite(truth)
        if isinstance(form, ROperator):
            form = copy.copy(form)
            form.kind, form.criterion = kind, self._trial
            _compare(self._product(form, self._vectors[0]), truth)
        else:
            form = by_graph
        _compare(self._product(form, self._vectors[0], self._own), truth, self._own)
        return self._for_loss(form)

    def _for_loss(self, form: Form) -> Form:
        form.criterion = self._loss.criterion
        return form

    def _checked(self) -> Form:
        form: Form = self._double_backward
        truth, fault = self._judged(form)
        try:
            form = ROperator(self._loss.traceable(self._inputs), self._chosen, self._trial)
            if truth is None or fault:
                truth, own_fault = self._judged(form)
                if truth is None or own_fault:
                    raise RuntimeError(own_fault)
            else:
                _compare(self._product(form, self._vectors[0]), truth[0])
            in_own = self._product(form, self._vectors[0], self._own)
        except Exception as error:  # whatever a user's network raises in forward mode; double backward has just worked
            if truth is None or fault:
                state = self._double_backward.named(*self._full)
                raise RuntimeError(reason_of(self._loss, state, self._inputs, str(fault))) from error
            _warn_slow(
                type(inside(self._loss.evaluating)).__name__, (str(error).splitlines() or [type(error).__name__])[0]
            )
            form = self._double_backward
            in_own = self._product(form, self._vectors[0], self._own)
        _check_finite(in_own)
        _compare(in_own, truth[0], self._own)
        return form

    def _judged(self, form: Form) -> tuple[Tensor | None, str | None]:
        """Return the products with two vectors, [2, p], and what is wrong with them, if anything."""
        try:
            images = torch.stack([self._product(form, vector) for vector in self._vectors])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            return None, f"does not exist: {str(error).splitlines()[0]}"
        _check_finite(images)
        return images, fault_of(self._vectors, images, lambda: self._off(form, images[0]))

    def _off(self, form: Form, image: Tensor) -> float:
        """Relative deviation from a difference of gradients, at these weights or, near a kink, at perturbed ones."""
        weights, buffers = self._full
        vector = self._vectors[0]
        if (off := self._off_at(weights, vector, image)) <= TOLERANCE:
            return off
        # A ReLU may be at its kink, as with a zero bias and a black image.
        weights = self._perturbed()
        if (off := self._off_at(weights, vector, self._product(form, vector, state=(weights, buffers)))) <= TOLERANCE:
            return off
        # An embedding's padding row has no gradient in torch, although it influences the other gradients.
        vector = vector.masked_fill(self._gradient(weights) == 0, 0)
        return self._off_at(weights, vector, self._product(form, vector, state=(weights, buffers)))

    def _check_slope(self) -> None:
        """Refuse a gradient that is not that of the loss, as where a path from the weights is cut off."""
        vector, weights = self._vectors[0], self._full[0]
        # As for ``_off``: no ReLU is at its kink at perturbed weights, and an embedding's padding row has no gradient.
        if self._slope_is_off(weights, vector) and self._slope_is_off(perturbed := self._perturbed(), vector):
            gradient = self._gradient(perturbed)
            if self._slope_is_off(perturbed, vector.masked_fill(self._in_empty_rows(gradient), 0)):
                raise RuntimeError(
                    f"the gradient of {type(inside(self._loss.evaluating)).__name__} by torch is not that of its loss"
                    f"{self._cut_off(perturbed, gradient)}: something is detached from the graph, as by no_grad, "
                    "detach, item or .data, or by a function without a derivative"
                )

    def _described(self) -> str:
        is_own = isinstance(self._loss.criterion, OwnLoss)
        return "loss(model, batch) returns" if is_own else f"{type(inside(self._loss.evaluating)).__name__} returns"

    def _slope_is_off(self, weights: list[Tensor], vector: Tensor) -> bool:
        """Whether the gradient along a vector differs from central differences of the loss at every step size."""
        gradient = self._gradient(weights)
        slope, length = float(gradient @ vector), float(self._flat(weights).norm() / vector.norm()) or 1.0
        # The slope may vanish by chance.
        least = 0.01 * float(gradient.norm() * vector.norm()) / len(vector) ** 0.5
        for step in (length * relative for relative in _STEPS):
            forth, back = (self._value(self._moved(weights, vector, way * step)) for way in (1, -1))
            difference, rounding = (forth - back) / (2 * step), 1e-14 * (abs(forth) + abs(back)) / step
            size = max(abs(difference), abs(slope), least)
            if not abs(difference - slope) > _OFF_SLOPE * size + rounding:
                return False
        return True

    def _value(self, weights: list[Tensor]) -> float:
        with torch.no_grad():
            outputs = self._double_backward.logits(weights, self._full[1], self._inputs, once=True)
            return float(self._trial.summed(precise(outputs), self._targets))

    def _in_empty_rows(self, gradient: Tensor) -> Tensor:
        """Where a row of a matrix has no gradient, and another has."""
        masks = [
            ((part == 0).flatten(1).all(dim=1) & part.any()).reshape(-1, *[1] * (part.dim() - 1)).expand(part.shape)
            if part.dim() > 1
            else torch.zeros_like(part, dtype=torch.bool)
            for part in self._by_parameter(gradient)
            if part is not None
        ]
        return self._layout.flat([mask.to(gradient) for mask in masks]) > 0

    def _cut_off(self, weights: list[Tensor], gradient: Tensor) -> str:
        """Name a weight without a gradient that the loss depends on; "" where there is none."""
        for name, slope in zip(self._layout.names, self._layout.views(gradient), strict=True):
            if not slope.any():
                along = torch.zeros_like(gradient)
                self._layout.named(along)[name].copy_(self._layout.named(self._vectors[0])[name])
                if self._slope_is_off(weights, along):
                    return f", which does not reach {name}"
        return ""

    def _off_at(self, weights: list[Tensor], vector: Tensor, image: Tensor) -> float:
        length = float(self._flat(weights).norm() / vector.norm()) or 1.0
        return off_difference(lambda step: self._gradient(self._moved(weights, vector, step)), image, length)

    def _gradient(self, weights: list[Tensor]) -> Tensor:
        total = torch.zeros_like(self._vectors[0])
        state = self._double_backward.linearise(weights, self._full[1], self._inputs, self._targets)
        self._double_backward.add_gradient(state, self._by_parameter(total))
        return total

    def _perturbed(self) -> list[Tensor]:
        """The weights, moved by a thousandth of their length."""
        weights = self._full[0]
        chosen = self._flat(weights)
        noise = _random(chosen.shape, 1).to(chosen)
        return self._moved(weights, noise, 1e-3 * float(chosen.norm() / noise.norm()))

    def _moved(self, weights: list[Tensor], vector: Tensor, step: float) -> list[Tensor]:
        parts = self._by_parameter(vector)
        return [w if part is None else w + step * part for w, part in zip(weights, parts, strict=True)]

    def _flat(self, weights: list[Tensor]) -> Tensor:
        return self._layout.flat([w for w, has_rows in zip(weights, self._chosen, strict=True) if has_rows])

    def _product(
        self,
        form: Form,
        vector: Tensor,
        dtype: torch.dtype = torch.float64,
        state: tuple[list[Tensor], list[Tensor]] | None = None,
    ) -> Tensor:
        total = torch.zeros_like(vector)
        linearised = form.linearise(*(state or self._states[dtype]), self._inputs, self._targets)
        form.add_product(linearised, self._by_parameter(vector.to(dtype)), self._by_parameter(total))  # type: ignore[arg-type]
        return total

    def _by_parameter(self, vector: Tensor) -> list[Tensor | None]:
        return by_parameter(self._layout, self._chosen, vector)

    def _logits(self) -> Tensor:
        network, (weights, buffers) = inside(self._loss.evaluating), self._full
        # The network may change or replace its buffers, so each call sees the state that the last one left.
        state = self._double_backward.named(weights, [buffer.clone() for buffer in buffers])
        with torch.enable_grad():  # detects what else the logits depend on
            computed = {name: state[name].requires_grad_() for name in self._loss.computed_buffers}
            state |= {name: buffer.clone() for name, buffer in computed.items()}
            with FrozenUses(self._loss.given, self._loss.layout.names) as uses:
                one, *others = (
                    self._double_backward.logits_of(state, torch.float64, self._inputs) for _ in range(_CALLS)
                )
        _check_outputs(network, one, num_examples(self._inputs) or 1, self._loss.criterion)
        # A mean over no terms, as where all labels are ignored, is no fault of a loss of one's own.
        if not (isinstance(self._loss.criterion, OwnLoss) or torch.isfinite(one).all()):
            raise FloatingPointError(f"what {self._described()} is not finite for the first examples")
        self._check_leaves(network, list(leaves_of(one)), uses, computed)
        one = one.detach()
        if not all(_same(one, other.detach()) for other in others):
            named = zip(self._loss.buffer_layout.names, buffers, strict=True)
            changed = [name for name, buffer in named if not _same(buffer, state[name].to(buffer))]
            raise ValueError(
                f"{type(network).__name__} gives other logits when it is called again on the same examples"
                f"{f', and changes {changed[0]}' if changed else ''}: "
                "a network that is random in evaluation mode, or keeps state, has no Hessian"
            )
        return one

    def _check_leaves(
        self, network: nn.Module, leaves: list[Tensor], uses: FrozenUses, computed: dict[str, Tensor]
    ) -> None:
        """Refuse logits that depend on weights other than through the given ones."""
        given = zip(self._loss.layout.names, self._loss.given, strict=True)
        own = [name for name, weight in given if any(weight() is leaf for leaf in leaves)]
        if own := own + uses.names:
            raise ValueError(
                f"{type(network).__name__} uses the model's own parameters, such as {own[0]}, not those that it is "
                "given: a forward that was put in place of another must reach them through self"
            )
        for name, buffer in computed.items():
            if any(buffer is leaf for leaf in leaves):
                raise ValueError(
                    f"{name}, a buffer, was computed from {self._loss.computed_buffers[name]} before and does not "
                    "follow it: let the forward that uses it compute it anew, or detach it"
                )


def _random(shape: torch.Size, seed: int) -> Tensor:
    # Independent of the caller's default dtype and device.
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu")


def _check_arguments(network: nn.Module, inputs: Inputs, criterion: Criterion) -> None:
    """Refuse a network with other required arguments than it is given, naming all of them."""
    if isinstance(criterion, OwnLoss):
        return  # which calls the network as it likes
    if not isinstance(inputs, Tensor):
        arguments_of(network, inputs)
        return
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except ValueError:  # a forward without a signature
        return
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in (*kinds, inspect.Parameter.KEYWORD_ONLY)]
    if len(needed) > 1:
        raise ValueError(
            f"{type(network).__name__} takes {', '.join(needed)}, but is called with the examples alone: "
            "give inputs as a tuple or dict of them, or a module that takes one tensor and computes or holds the others"
        )


def _check_tables(network: nn.Module) -> None:
    """Refuse embeddings that renormalise their weights during the forward pass, or scale their gradients."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.max_norm is not None:
            kind = type(layer).__name__
            raise ValueError(
                f"{f'{name} ({kind})' if name else kind} with max_norm={layer.max_norm:g} overwrites its weights while "
                "it runs, so that the Hessian would be at other weights: renormalise them before, and set max_norm=None"
            )
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.scale_grad_by_freq:
            kind = type(layer).__name__
            raise ValueError(
                f"{f'{name} ({kind})' if name else kind} with scale_grad_by_freq has gradients that are not those of "
                "the loss, and so no Hessian: set scale_grad_by_freq=False"
            )


def _check_outputs(network: nn.Module, outputs: object, num_examples: int, criterion: Criterion) -> None:
    name = type(network).__name__
    wanted = criterion.check_outputs(torch.empty(0), num_examples) or "a tensor"
    if not isinstance(outputs, Tensor):
        kind = type(outputs).__name__
        if isinstance(outputs, dict):
            kind += f" with {', '.join(map(repr, outputs))}"
        raise ValueError(
            f"need {wanted}; {name} gives a {kind}: wrap it in a module that returns "
            "the logits alone, or give loss(model, batch)"
        )
    if not outputs.is_floating_point():
        raise ValueError(f"need {wanted}; those of {name} are of {outputs.dtype}")
    if wanted := criterion.check_outputs(outputs, num_examples) or "":
        raise ValueError(f"need {wanted}; {name} gives {list(outputs.shape)} for {num_examples} examples")


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-8, equal_nan=True)


def _check_finite(product: Tensor) -> None:
    if not torch.isfinite(product).all():
        raise FloatingPointError("the curvature overflows at these weights")


def _compare(ours: Tensor, theirs: Tensor, computed_in: torch.dtype = torch.float64) -> None:
    numbers, allowed = torch.finfo(computed_in), _AGREEMENT[computed_in]
    # Smaller products have no significant digits, as for a network that fits its examples perfectly.
    difference = relative_difference(ours, theirs, least=numbers.tiny / numbers.eps)
    if not difference <= allowed:
        raise RuntimeError(
            f"the Hessian-vector product differs from double backward by {difference:.1e} of its length, "
            f"more than {allowed:.0e}"
        )


@functools.cache
def _warn_slow(network: str, reason: str) -> None:
    """Warn once for each class of network, not for each checkpoint."""
    _log.warning("Hessian-vector products of %s by double backward, about twice as slow: %s", network, reason)
