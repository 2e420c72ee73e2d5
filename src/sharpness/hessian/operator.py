"""The Hessian of a network's loss as an operator: exact Hessian-vector products at just under two gradients each."""

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
from sharpness.runtime import allocator, checks
from sharpness.runtime.device import alone
from sharpness.runtime.precision import Precision, low_precision

__all__ = ["HessianOperator", "HessianProduct"]

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse.linalg import LinearOperator  # type: ignore[import-untyped]


class HessianOperator:
    """The Hessian of the loss on given examples at a model's weights, as a symmetric [P, P] operator.

    Hessian-vector products are exact: the R-operator (Pearlmutter, "Fast exact multiplication by the Hessian", 1994)
    for networks that can be traced, double backward for others. The loss is the cross-entropy plus ``l2`` times the sum
    of squared kernel weights (see ``kernels_of``). As in torch, the cross-entropy is the mean over all labels, of
    further axes too, and the label -100 is ignored. The result does not depend on the chunking. Dropout is off.

    The model is left unchanged (weights, buffers, mode), as is the global random generator. The operator copies weights
    and examples, so later changes to them have no effect; neither do autocast, default dtype or device, or inference
    mode. Products from several threads are computed one after the other.

    Vectors are flat, in the order of ``torch.nn.utils.parameters_to_vector(model.parameters())``; ``layout`` maps
    entries to parameters, and ``named`` splits a vector by parameter.

    Args:
        model: returns logits [N, classes, ...].
        inputs: [N, ...], a tensor on the model's device or a numpy array; integers are passed on unchanged.
        targets: [N, ...], class indices of any integer type, a tensor on the model's device or a numpy array.
        l2: factor of the penalty.
        chunk_size: examples per chunk. All examples are one chunk if the logits of one depend on the others, as with a
            norm that has no running statistics.
        precision: "float32" and "float64" apply to everything, whatever the model's and the inputs' dtype. "bfloat16"
            runs the passes over the network in bfloat16, with float32 vectors; "tf32" lets a GPU multiply in
            TensorFloat-32. With either, ``reference`` is the same operator in float32.
        memory_budget: bytes for activations and adjoints. Those of as many chunks as fit are cached between products;
            the others are recomputed at each product.
        parameters: pattern of the names of the weights for which the Hessian has rows (``layer3.*``).
        batch_statistics: normalise batch norm with the statistics of these examples, and differentiate through them,
            instead of using running statistics. All examples are then one chunk.

    Attributes:
        shape: (P, P).
        dtype: of vectors.
        device: of vectors.
        layout: names and shapes of the weights that have rows.
        reference: the same operator in full precision if this one has less, else None.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: there are no examples; the numbers of inputs and targets differ; a target is not a class; an input
            is not finite; examples and model are on different devices; the precision is unknown; no parameter matches;
            or the memory budget is too small for one chunk.
        FloatingPointError: a weight or running statistic is not finite (the message names the first), or the curvature
            overflows.
        RuntimeError: torch cannot differentiate the network correctly, which a comparison of products revealed.
    """

    __array_ufunc__ = None  # keep numpy from treating the operator as a scalar

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
        """Build the operator at ``weights`` [P] and ``buffers`` [B]; checkpoints of one architecture share ``product``.

        Vectors are in the order of ``Loss`` and ``flatten``: kernels channels last. Nothing is copied, so weights,
        buffers and examples must not change afterwards.
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
        self._default_dtype = torch.get_default_dtype()  # of tensors that the network creates in its forward
        self._chunk_size = checks.whole_number("chunk_size", chunk_size, least=1)
        self._memory_budget = checks.whole_number("memory_budget", memory_budget, least=0)
        self._reference: HessianOperator | None = None
        self._recorder = Recorder(
            first=5
        )  # following eigenvectors along a trajectory takes fewer products per operator
        with self._undisturbed():
            self._state = _plain(weights), _plain(buffers)
            self._examples = _plain(inputs), _plain(targets)
            self._linearise()

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        # Independent of the caller's mode, since some operations use autograd.
        with alone(self.device, default_dtype=self._default_dtype), torch.inference_mode(False), torch.no_grad():
            yield

    def _linearise(self) -> None:
        allocator.suit(self._state[0])
        product, (inputs, targets) = self._product, self._examples
        _check_finite(product.loss.layout, self._state[0])
        _check_finite(product.loss.buffer_layout, self._state[1])
        arguments.check_inputs(inputs)
        self._rounded = product.rounded(self._state[0]), product.rounded(self._state[1])  # shared by all chunks
        try:
            outputs = product.outputs(*self._rounded, inputs)
        except RuntimeError as error:
            arguments.check_taken(inputs, error)
            raise
        places = outputs.shape[1:] if inputs.shape[1:] == outputs.input_shape else targets.shape[1:]
        arguments.check_labels(targets, torch.Size([len(targets), outputs.shape[0], *places]))
        self._num_terms = num_terms(targets)
        is_one_chunk = product.loss.batch_statistics or outputs.mixes_examples
        size = len(targets) if is_one_chunk else self._chunk_size
        self._chunks = list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))
        self._keep(less="fewer examples, which are one chunk here" if is_one_chunk else "a smaller chunk_size")

    def _keep(self, less: str) -> None:
        """Linearise as many chunks as fit into memory, with room for recomputing another; the last is the smallest."""
        first = self._product.linearise(*self._rounded, *self._chunks[0])
        size, num_chunks = first.num_bytes, len(self._chunks)
        # The reference needs room for one chunk of its own, in numbers twice as long as bfloat16.
        for_reference = size * {None: 0, "tf32": 1, "bfloat16": 2}[self._product.precision]
        if size + for_reference > self._memory_budget:
            raise ValueError(
                f"memory_budget={self._memory_budget:,} bytes is too little for a chunk of {len(self._chunks[0][1])} "
                f"examples, which takes {size + for_reference:,}: give more, or {less}"
            )
        fitting = (self._memory_budget - for_reference) // size if size else num_chunks
        num_cached = num_chunks if fitting >= num_chunks else fitting - 1
        # Recomputed chunks need memory at the same time as the reference.
        self._for_reference = self._memory_budget - min(num_cached + 1, num_chunks) * size
        self._linearised = [first] if num_cached else []
        self._linearised += [self._product.linearise(*self._rounded, *chunk) for chunk in self._chunks[1:num_cached]]

    def __matmul__(self, vector: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """Multiply ``vector`` [P], or each column of a block [P, b], by the Hessian.

        Args:
            vector: a tensor on the operator's device or a numpy array; real numbers of any type are converted to
                ``dtype``.

        Returns:
            A tensor of the same shape and of ``dtype``, without a graph.

        Raises:
            TypeError: the vector is neither a tensor nor an array of real numbers.
            ValueError: the vector has the wrong shape or device.
        """
        with self._undisturbed():
            given = arguments.vector(vector, self.shape[0], self.dtype, self.device)
            if given.dim() == 1:
                return self._product_with(given)
            columns = [self._product_with(column) for column in given.T.contiguous()]
            return torch.stack(columns, dim=1) if columns else torch.empty_like(given)

    def _product_with(self, vector: Tensor) -> Tensor:
        # CUDA graphs are used only where every product runs the same kernels on cached chunks.
        if len(self._linearised) < len(self._chunks) or not self._product.is_static:
            return self._times(vector)
        return self._recorder(lambda given: (self._times(given),), vector, in_place=self._rounded)[0]

    def _times(self, vector: Tensor) -> Tensor:
        vector = self.layout.converted(vector, self._product.layout)
        total = torch.zeros_like(vector)
        for index, chunk in enumerate(self._chunks):
            is_cached = index < len(self._linearised)
            linearised = self._linearised[index] if is_cached else self._product.linearise(*self._rounded, *chunk)
            self._product.add_product(linearised, vector, total)
        total /= self._num_terms
        loss = self._product.loss
        if loss.l2:
            total = total + loss.penalty_curvature(vector, self._product.layout)
        return self._product.layout.converted(total, self.layout)

    @property
    def reference(self) -> HessianOperator | None:
        """The same operator in the precision of its vectors; None if it has that already."""
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
        """Split ``vector`` [P] into views by parameter name, in the parameters' shapes.

        Raises:
            ValueError: the vector has the wrong shape.
        """
        if list(vector.shape) != [self.shape[0]]:
            raise ValueError(f"need a vector [{self.shape[0]}], got shape {list(vector.shape)}")
        return self.layout.named(torch.as_tensor(vector))

    def aslinearoperator(self) -> LinearOperator:
        """Return a scipy ``LinearOperator`` on numpy vectors, for scipy's solvers."""
        from scipy.sparse.linalg import LinearOperator  # optional dependency

        def product(vector):  # type: ignore[no-untyped-def]
            return (self @ vector).cpu().numpy()

        dtype = torch.empty(0, dtype=self.dtype, device="cpu").numpy().dtype
        return LinearOperator(self.shape, matvec=product, rmatvec=product, matmat=product, dtype=dtype)


def _plain(tensor: Tensor) -> Tensor:
    """Detach ``tensor``; copy it if it was made in inference mode, which autograd refuses."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _check_finite(layout: Layout, flat: Tensor) -> None:
    if torch.isfinite(flat).all():
        return
    for name, tensor in layout.named(flat).items():
        if not torch.isfinite(tensor).all():
            raise FloatingPointError(f"{name} is not finite: the Hessian does not exist at these weights")
