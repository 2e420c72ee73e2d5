"""The Hessian of a network's loss as an operator: exact products with vectors, at a little under two gradients each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from sharpness.hessian import arguments
from sharpness.hessian.cross_entropy import num_terms
from sharpness.hessian.layout import Layout
from sharpness.hessian.loss import Loss, flatten
from sharpness.hessian.product import HessianProduct
from sharpness.hessian.recording import Recorder
from sharpness.runtime import checks
from sharpness.runtime.device import alone, keep_freed_memory
from sharpness.runtime.precision import Precision, low_precision

__all__ = ["HessianOperator", "HessianProduct"]

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse.linalg import LinearOperator  # type: ignore[import-untyped]


class HessianOperator:
    """The Hessian of the loss on given examples at a model's weights, as a symmetric [P, P] operator.

    The loss is the cross-entropy plus ``l2`` times the sum of squared kernel weights (``kernels_of`` says which). As in
    torch, the cross-entropy is the mean over all labels, those at every position where logits have further axes, and
    -100 is no label. The answer does not depend on how examples are cut into chunks. Dropout is off.

    The model stays as it is: its weights, buffers, mode and the global random generator. The operator stays as it is,
    too: it has copies of the weights and of the examples. What the caller's torch is set to (autocast, a default dtype
    or device, inference mode) changes nothing. Products from several threads are computed one after the other.

    Vectors are flat, in the order of ``torch.nn.utils.parameters_to_vector(model.parameters())``; ``layout`` knows
    which entries are which parameter, and ``named`` takes a vector apart.

    Args:
        model: gives logits [N, classes, ...].
        inputs: [N, ...], a tensor on the model's device or an array of numpy; whole numbers stay what they are.
        targets: [N, ...], classes, of any type of whole numbers; the same.
        l2: factor of the penalty.
        chunk_size: examples worked on at once. All are one chunk where the logits of one depend on the others, as they
            do where a norm uses the batch's statistics for want of moving ones.
        precision: "float32" and "float64" are that of everything, whatever that of the model and of the inputs;
            "bfloat16" runs the passes over the network in it, on vectors in float32, "tf32" multiplies in
            TensorFloat-32 where there is a GPU that can, and ``reference`` is then the same operator in float32.
        memory_budget: bytes that a chunk's activations and adjoints may take while they are in use and, as far as they
            fit, between products; those of the other chunks are computed anew at each product.
        parameters: names of the weights that the Hessian has rows for, as a pattern (``layer3.*``).
        batch_statistics: batch norm normalises with the mean and variance of these examples, through which the loss is
            differentiated, instead of its moving statistics. All examples are then one chunk.

    Attributes:
        shape: (P, P).
        dtype: of vectors.
        device: of vectors.
        layout: names and shapes of the weights that have rows.
        reference: the operator in full precision where this one has less, else None.

    Raises:
        TypeError: an argument is of another type.
        ValueError: there are no examples, or not as many targets as inputs; a target is no class; an input is not
            finite; examples and model are on several devices; the precision is unknown; no parameter matches; the
            budget is too small for one chunk.
        FloatingPointError: a weight or a moving statistic is not finite, the message names the first such tensor; or
            the curvature overflows.
        RuntimeError: the product differs from one by double backward.
    """

    __array_ufunc__ = None  # numpy must not take the operator for a number

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor | np.ndarray[Any, Any],
        targets: Tensor | np.ndarray[Any, Any],
        *,
        l2: float = 0.0,
        chunk_size: int = 256,
        precision: Precision = "float32",
        memory_budget: int = 4 * 2**30,
        parameters: str = "*",
        batch_statistics: bool = False,
    ) -> None:
        arguments.one_of("precision", precision, get_args(Precision))
        checks.factor("l2", l2)
        if not isinstance(parameters, str):
            raise TypeError(f"parameters must be a pattern of names such as 'layer3.*', got {parameters!r}")
        if not isinstance(batch_statistics, bool):
            raise TypeError(f"batch_statistics must be True or False, got {batch_statistics!r}")
        loss = Loss(model, l2=l2, batch_statistics=batch_statistics)
        device, dtype = arguments.device_of(model), torch.float64 if precision == "float64" else torch.float32
        product = HessianProduct(loss, precision=low_precision(precision), parameters=parameters)
        with alone(device):
            weights, buffers = (flat.to(dtype) for flat in flatten(model))
            examples = arguments.examples(inputs, targets, dtype, device)
        if examples[0].is_complex() and precision == "bfloat16":
            raise ValueError("complex inputs have no bfloat16: give precision 'float32' or 'float64'")
        self._prepare(product, weights, buffers, *examples, chunk_size, memory_budget)
        self.layout = product.layout.in_torchs_order

    @classmethod
    def at(
        cls,
        product: HessianProduct,
        weights: Tensor,
        buffers: Tensor,
        inputs: Tensor,
        targets: Tensor,
        *,
        chunk_size: int = 256,
        memory_budget: int = 4 * 2**30,
    ) -> HessianOperator:
        """The operator at ``weights`` [P] and ``buffers`` [B]; checkpoints of one architecture share ``product``.

        Vectors are in the order of the weights, which is that of ``Loss`` and ``flatten``: kernels channels last.
        Nothing is copied: weights, buffers and examples must stay what they are.
        """
        operator = cls.__new__(cls)
        operator._prepare(product, weights, buffers, inputs, targets, chunk_size, memory_budget)
        return operator

    def _prepare(
        self,
        product: HessianProduct,
        weights: Tensor,
        buffers: Tensor,
        inputs: Tensor,
        targets: Tensor,
        chunk_size: int,
        memory_budget: int,
    ) -> None:
        arguments.check_numbers(inputs, targets)
        self.layout = product.layout
        self.shape = (self.layout.size, self.layout.size)
        self.dtype = weights.dtype
        self.device = weights.device
        self._product = product
        self._default_dtype = torch.get_default_dtype()  # of what a network makes anew at every call
        self._chunk_size = checks.whole_number("chunk_size", chunk_size, least=1)
        self._memory_budget = checks.whole_number("memory_budget", memory_budget, least=0)
        self._reference: HessianOperator | None = None
        self._recorder = Recorder(first=5)  # following an eigenvector takes fewer, at each of many weights
        with self._undisturbed():
            self._state = _plain(weights), _plain(buffers)
            self._examples = _plain(inputs), _plain(targets)
            self._linearise()

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        # Whatever mode the caller is in: some operations are differentiated by autograd.
        with alone(self.device, default_dtype=self._default_dtype), torch.inference_mode(False), torch.no_grad():
            yield

    def _linearise(self) -> None:
        keep_freed_memory()
        product, (inputs, targets) = self._product, self._examples
        _check_finite(product.loss.layout, self._state[0])
        _check_finite(product.loss.buffer_layout, self._state[1])
        arguments.check_inputs(inputs)
        self._rounded = product.rounded(self._state[0]), product.rounded(self._state[1])  # once for all chunks
        try:
            outputs = product.outputs(*self._rounded, inputs)
        except RuntimeError as error:
            arguments.check_taken(inputs, error)
            raise
        places = outputs.shape[1:] if inputs.shape[1:] == outputs.of else targets.shape[1:]
        arguments.check_labels(targets, torch.Size([len(targets), outputs.shape[0], *places]))
        self._num_terms = num_terms(targets)
        is_one_chunk = product.loss.batch_statistics or outputs.mixes_examples
        size = len(targets) if is_one_chunk else self._chunk_size
        self._chunks = list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))
        self._keep(less="fewer examples, which are one chunk here" if is_one_chunk else "a smaller chunk_size")

    def _keep(self, less: str) -> None:
        """Linearise all chunks, or as many as leave room for one computed anew; the last one is the smallest."""
        first = self._product.linearise(*self._rounded, *self._chunks[0])
        size, num_chunks = first.num_bytes, len(self._chunks)
        # The reference works on chunks of its own, whose numbers are twice as long as those of bfloat16.
        for_reference = size * {None: 0, "tf32": 1, "bfloat16": 2}[self._product.precision]
        if size + for_reference > self._memory_budget:
            raise ValueError(
                f"memory_budget={self._memory_budget:,} bytes is too little for a chunk of {len(self._chunks[0][1])} "
                f"examples, which takes {size + for_reference:,}: give more, or {less}"
            )
        fitting = (self._memory_budget - for_reference) // size if size else num_chunks
        num_kept = num_chunks if fitting >= num_chunks else fitting - 1
        # What is computed anew takes its memory beside that of the reference.
        self._for_reference = self._memory_budget - min(num_kept + 1, num_chunks) * size
        self._kept = [first] if num_kept else []
        self._kept += [self._product.linearise(*self._rounded, *chunk) for chunk in self._chunks[1:num_kept]]

    def __matmul__(self, vector: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """The Hessian times ``vector`` [P], or times each column of a block [P, b].

        Args:
            vector: a tensor on the operator's device or an array of numpy; real or whole numbers of any type are
                converted to ``dtype``.

        Returns:
            A tensor of ``dtype`` without a graph.

        Raises:
            TypeError: the vector is no tensor of real numbers.
            ValueError: the vector has another shape, or is on another device.
        """
        with self._undisturbed():
            given = arguments.vector(vector, self.shape[0], self.dtype, self.device)
            if given.dim() == 1:
                return self._product_with(given)
            columns = [self._product_with(column) for column in given.T.contiguous()]
            return torch.stack(columns, dim=1) if columns else torch.empty_like(given)

    def _product_with(self, vector: Tensor) -> Tensor:
        # What is linearised anew in every product is not tested in a recording.
        if len(self._kept) < len(self._chunks) or not self._product.is_static:
            return self._times(vector)
        return self._recorder(lambda given: (self._times(given),), vector, in_place=self._rounded)[0]

    def _times(self, vector: Tensor) -> Tensor:
        vector = self.layout.converted(vector, self._product.layout)
        total = torch.zeros_like(vector)
        for index, chunk in enumerate(self._chunks):
            kept = self._kept[index] if index < len(self._kept) else self._product.linearise(*self._rounded, *chunk)
            self._product.add_product(kept, vector, total)
        total /= self._num_terms
        loss = self._product.loss
        if loss.l2:
            total = total + loss.penalty_curvature(vector, self._product.layout)
        return self._product.layout.converted(total, self.layout)

    @property
    def reference(self) -> HessianOperator | None:
        """The same operator in the precision of its vectors; None where it is already."""
        with self._undisturbed():
            if self._product.precision and self._reference is None:
                self._reference = HessianOperator.at(
                    self._product.in_full_precision(),
                    *self._state,
                    *self._examples,
                    chunk_size=self._chunk_size,
                    memory_budget=self._for_reference,
                )
                self._reference.layout = self.layout
            return self._reference

    def named(self, vector: Tensor | np.ndarray[Any, Any]) -> dict[str, Tensor]:
        """The parts of ``vector`` [P] by the names of the parameters they belong to, as views in their shapes.

        Raises:
            ValueError: the vector has another shape.
        """
        if list(vector.shape) != [self.shape[0]]:
            raise ValueError(f"need a vector [{self.shape[0]}], got shape {list(vector.shape)}")
        return self.layout.named(torch.as_tensor(vector))

    def aslinearoperator(self) -> LinearOperator:
        """The operator for scipy's solvers, on numpy vectors."""
        from scipy.sparse.linalg import LinearOperator  # optional: only scipy's solvers need it

        def product(vector):  # type: ignore[no-untyped-def]
            return (self @ vector).cpu().numpy()

        dtype = torch.empty(0, dtype=self.dtype, device="cpu").numpy().dtype
        return LinearOperator(self.shape, matvec=product, rmatvec=product, matmat=product, dtype=dtype)


def _plain(tensor: Tensor) -> Tensor:
    """Without a graph; a copy where autograd could not use it, since it was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _check_finite(layout: Layout, flat: Tensor) -> None:
    if torch.isfinite(flat).all():
        return
    for name, tensor in layout.named(flat).items():
        if not torch.isfinite(tensor).all():
            raise FloatingPointError(f"{name} is not finite: the Hessian does not exist at these weights")
