"""The Hessian of a loss as an operator: exact products with vectors, at well under two gradients each.

The product is ``jvp(grad(loss))`` (Pearlmutter, 1994), traced once per shape of a chunk of examples with weights,
examples and vector as inputs. The traced graph is then cut in two: what does not depend on the vector is computed once
per checkpoint and kept, so that each product runs only the rest.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from sharpness.loss import Loss

# Largest relative difference between the traced product and double backward, on one vector, by precision.
_AGREEMENT = {torch.float32: 1e-4, torch.float64: 1e-10}


class HessianProduct:
    """Hessian-vector products of the summed loss on one chunk of examples, traced once per shape of a chunk."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self._traced: dict[tuple[torch.Size, torch.dtype], tuple[fx.GraphModule, fx.GraphModule]] = {}

    def linearise(self, weights: Tensor, buffers: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Everything in the product that does not depend on the vector: about one gradient of work, kept."""
        without_vector, _ = self._forms(weights, buffers, inputs, targets)
        with torch.no_grad():
            kept: tuple[Tensor, ...] = without_vector(weights, buffers, inputs, targets)
        return kept

    def apply(self, kept: tuple[Tensor, ...], inputs: Tensor, vector: Tensor) -> Tensor:
        """The Hessian of the summed loss on the chunk that ``kept`` belongs to, times ``vector`` [P]."""
        _, with_vector = self._traced[inputs.shape, vector.dtype]
        with torch.no_grad():
            product: Tensor = with_vector(*kept, vector)
        return product

    def _forms(
        self, weights: Tensor, buffers: Tensor, inputs: Tensor, targets: Tensor
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        key = inputs.shape, weights.dtype
        if key not in self._traced:
            vector = torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)).to(weights)
            self._traced[key] = self._trace(weights, buffers, inputs, targets, vector)
            # At the least likely classes: where a network fits its examples next to no curvature is left, and the two
            # ways of computing it differ by rounding alone.
            with torch.no_grad():
                unlikely = self.loss.logits(weights, buffers, inputs).argmin(dim=1)
            self._check(weights, buffers, inputs, unlikely, vector)
        return self._traced[key]

    def _trace(
        self, weights: Tensor, buffers: Tensor, inputs: Tensor, targets: Tensor, vector: Tensor
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        def product(weights: Tensor, buffers: Tensor, inputs: Tensor, targets: Tensor, vector: Tensor) -> Tensor:
            gradient = torch.func.grad(self.loss.summed)
            along = torch.func.jvp(lambda at: gradient(at, buffers, inputs, targets), (weights,), (vector,))
            tangent: Tensor = along[1]
            return tangent

        with warnings.catch_warnings():
            # torch warns about its own forward-mode formulas while it traces them.
            warnings.simplefilter("ignore")
            return _cut(make_fx(product)(weights, buffers, inputs, targets, vector))

    def _check(self, weights: Tensor, buffers: Tensor, inputs: Tensor, targets: Tensor, vector: Tensor) -> None:
        ours = self.apply(self.linearise(weights, buffers, inputs, targets), inputs, vector)
        leaf = weights.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss.summed(leaf, buffers, inputs, targets), leaf, create_graph=True)
        (theirs,) = torch.autograd.grad(gradient, leaf, vector)
        # Where the weights are not finite there is nothing to compare: the solver says so.
        difference = float((ours - theirs).norm() / theirs.norm().clamp_min(torch.finfo(theirs.dtype).tiny))
        if difference > _AGREEMENT[weights.dtype]:
            raise RuntimeError(
                f"the traced Hessian-vector product differs from double backward by {difference:.1e} of its length, "
                f"more than {_AGREEMENT[weights.dtype]:.0e}"
            )


def _cut(traced: fx.GraphModule) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Cut a graph at its dependence on its last input: (the part without it, the part with it and what it needs)."""
    nodes = list(traced.graph.nodes)
    vector = [node for node in nodes if node.op == "placeholder"][-1]
    dependent = {vector}
    for node in nodes:
        if any(source in dependent for source in node.all_input_nodes):
            dependent.add(node)
    needed = [node for node in nodes if node not in dependent and any(user in dependent for user in node.users)]
    constants = [node for node in needed if node.op == "get_attr"]
    kept = [node for node in needed if node.op != "get_attr"]

    first = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node not in dependent:
            copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(tuple(copies[node] for node in kept))
    first.eliminate_dead_code()

    second = fx.Graph()
    copies = {}
    for index, node in enumerate(kept):
        copies[node] = second.placeholder(f"kept_{index}")
    copies[vector] = second.placeholder("vector")
    for node in nodes:
        if node in constants or (node in dependent and node is not vector and node.op != "output"):
            copies[node] = second.node_copy(node, copies.__getitem__)
    second.output(fx.map_arg(nodes[-1].args[0], copies.__getitem__))
    second.eliminate_dead_code()
    return fx.GraphModule(traced, first), fx.GraphModule(traced, second)


class HessianOperator:
    """The Hessian of the loss on given examples at given weights, as a symmetric [P, P] operator.

    The average over examples is weighted by their number, so that the answer does not depend on how they are cut into
    chunks. What each chunk keeps stays in memory until ``memory_budget`` is full; the rest is recomputed per product.

    Args:
        product: the traced product; share one among checkpoints of one architecture.
        weights: [P].
        buffers: [B].
        inputs: [N, channels, height, width].
        targets: [N].
        chunk_size: examples worked on at once.
        memory_budget: bytes that may be kept between products.
    """

    def __init__(
        self,
        product: HessianProduct,
        weights: Tensor,
        buffers: Tensor,
        inputs: Tensor,
        targets: Tensor,
        *,
        chunk_size: int = 256,
        memory_budget: int = 4 * 2**30,
    ) -> None:
        self.shape = (len(weights), len(weights))
        self.dtype = weights.dtype
        self.device = weights.device
        self._product = product
        self._num_examples = len(targets)
        self._state = weights, buffers
        self._chunks = list(zip(torch.split(inputs, chunk_size), torch.split(targets, chunk_size), strict=True))
        self._kept: list[tuple[Tensor, ...] | None] = []
        for chunk in self._chunks:
            kept = product.linearise(weights, buffers, *chunk)
            memory_budget -= sum(tensor.numel() * tensor.element_size() for tensor in kept)
            self._kept.append(kept if memory_budget >= 0 else None)

    def __matmul__(self, vector: Tensor) -> Tensor:
        """The Hessian times ``vector`` [P]."""
        total = torch.zeros_like(vector)
        for chunk, kept in zip(self._chunks, self._kept, strict=True):
            if kept is None:
                kept = self._product.linearise(*self._state, *chunk)
            total += self._product.apply(kept, chunk[0], vector)
        total /= self._num_examples
        return total + self._product.loss.penalty_curvature(vector) if self._product.loss.l2 else total
