"""The Hessian of a network's loss as an operator: exact Hessian-vector products at just under two gradients each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from sharpness.eigen.vectors import along_rows
from sharpness.hessian import arguments, evaluation
from sharpness.hessian.chunking import Chunking, Totals, bytes_of
from sharpness.hessian.curvature import CurvatureKind
from sharpness.hessian.examples import Batch, Examples, examples_of
from sharpness.hessian.inputs import Inputs, mapped, num_examples, tensors_of
from sharpness.hessian.layout import Layout
from sharpness.hessian.loss import Loss, flatten
from sharpness.hessian.losses.choice import AnyLoss, criterion_of
from sharpness.hessian.preconditioner import Preconditioner, inverse_root
from sharpness.hessian.processes import Processes, ProcessGroup
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
    """The Hessian, or another curvature, of a loss on given examples at a model's weights: symmetric, [P, P].

    Products are exact: the R-operator (Pearlmutter, "Fast exact multiplication by the Hessian", 1994) for networks that
    can be traced, double backward for others. The loss is a mean over terms, as torch has it (labels that are not
    ignored, by the weights of their classes; pixels, tokens), plus ``l2`` times the sum of squared kernel weights (see
    ``kernels_of``). The result does not depend on batches or chunks. Dropout is off.

    The model is left unchanged (weights, buffers, mode), as is the global random generator. The operator copies weights
    and examples, so later changes to them have no effect; neither do autocast, default dtype or device, or inference
    mode. Products from several threads are computed one after the other.

    Vectors are flat, in the order of ``torch.nn.utils.parameters_to_vector(model.parameters())``; ``layout`` maps
    entries to parameters, and ``named`` splits a vector by parameter.

    Args:
        model: returns outputs [N, ...], for the cross-entropy logits [N, classes, ...]. DataParallel,
            DistributedDataParallel and compiled models are unwrapped.
        data: inputs, if ``targets`` follow; or (inputs, targets); or a DataLoader or any other iterable of such pairs
            that gives the same ones each time it is read. Inputs are a tensor or numpy array [N, ...], on the model's
            device, or several in a tuple or dict, which become the arguments of the network; integers are passed on
            unchanged. Batches of an iterable are moved to the device one by one; as many as fit into half of the memory
            budget are kept, the others are read again at each product.
        targets: [N, ...], as the loss takes them, on the model's device.
        inputs: the same as ``data``, by another name.
        loss: ``torch.nn.CrossEntropyLoss``, ``MSELoss`` or ``BCEWithLogitsLoss`` with any settings, of mean or sum; or
            a function ``loss(model, batch)`` that returns (sum over terms, number of terms). None is the cross-entropy
            of classes. Targets of floating point are probabilities only where ``CrossEntropyLoss`` is given.
        curvature: "hessian"; "ggn", the generalised Gauss-Newton matrix, which leaves out the second derivatives of the
            network; or "gradient_covariance", (1/N) Σ gᵢ gᵢᵀ - g gᵀ, where g is the gradient of the mean loss without
            the penalty and gᵢ is N times the part that example i has in it.
        preconditioner: the diagonal of D, positive numbers [P], or an Adam, AdamW, NAdam, RMSprop or Adagrad that has
            taken a step; see ``preconditioner.inverse_root``. The operator is then D^-1/2 C D^-1/2 for the curvature C.
        l2: factor of the penalty.
        chunk_size: examples per chunk. All examples are one chunk if the outputs of one depend on the others, as with a
            norm that has no running statistics. Batches of an iterable are not cut if the loss is the user's own.
        precision: "float32" and "float64" apply to everything, whatever the model's and the inputs' dtype. "bfloat16"
            runs the passes over the network in bfloat16, with float32 vectors; "tf32" lets a GPU multiply in
            TensorFloat-32. With either, ``reference`` is the same operator in float32.
        memory_budget: bytes for activations and adjoints, and the batches kept of an iterable. Those of as many chunks
            as fit are cached between products; the others are recomputed at each product.
        parameters: the weights for which the curvature has rows: a pattern of their names (``layer3.*``) or several, or
            "trained", all that require a gradient. Tied weights may be given by any of their names.
        batch_statistics: normalise batch norm with the statistics of these examples, and differentiate through them,
            instead of using running statistics. All examples are then one chunk.
        process_group: inside ``torch.distributed`` every process makes the operator, with its part of the examples and
            the same weights, and makes every product: results are sums over all processes, and the same in each. None
            is all processes; False is this one alone.

    Attributes:
        shape: (P, P).
        dtype: of vectors.
        device: of vectors.
        layout: names and shapes of the weights that have rows.
        reference: the same operator in full precision if this one has less, else None.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: there are no examples; the numbers of inputs and targets differ; the loss does not take a target; an
            input is not finite; the data differ between two passes; examples and model are on different devices; a
            setting is unknown; no parameter matches; a preconditioner is not positive; or the memory budget is too
            small for one chunk.
        FloatingPointError: a weight or running statistic is not finite (the message names the first), or the curvature
            overflows.
        RuntimeError: torch cannot differentiate the network correctly, which a comparison of products revealed.
    """

    __array_ufunc__ = None  # keep numpy from treating the operator as a scalar

    def __init__(
        self,
        model: nn.Module,
        data: Any = None,
        targets: Tensor | np.ndarray[Any, Any] | None = None,
        *,
        inputs: Any = None,
        loss: AnyLoss | None = None,
        curvature: CurvatureKind = "hessian",
        preconditioner: Preconditioner | None = None,
        l2: float = 0.0,
        chunk_size: int = 256,
        precision: Precision = "float32",
        memory_budget: int = 4 * 2**30,
        parameters: str | Sequence[str] = "*",
        batch_statistics: bool = False,
        process_group: ProcessGroup | Literal[False] | None = None,
    ) -> None:
        arguments.one_of("precision", precision, get_args(Precision))
        arguments.one_of("curvature", curvature, get_args(CurvatureKind))
        checks.factor("l2", l2)
        checks.whole_number("memory_budget", memory_budget, least=0)
        checks.flag("batch_statistics", batch_statistics)
        device, dtype = arguments.device_of(model), torch.float64 if precision == "float64" else torch.float32
        processes = Processes(process_group, device)
        if data is not None and inputs is not None:
            raise TypeError("data and inputs are two names of the same: give one of them")
        given = data if inputs is None else inputs
        with processes.together():
            processes.check_data(given)
            criterion = criterion_of(loss)
            of_model = Loss(model, l2=l2, batch_statistics=batch_statistics, criterion=criterion)
            product = HessianProduct(
                of_model, precision=low_precision(precision), parameters=parameters, curvature=curvature
            )
            layout = product.layout.in_torchs_order
            with alone(device):
                weights, buffers = (flat.to(dtype) for flat in flatten(model))
                root = None if preconditioner is None else inverse_root(preconditioner, model, layout, dtype, device)
                examples = examples_of(
                    given, targets, criterion=criterion, dtype=dtype, device=device, memory_budget=memory_budget // 2
                )
            if precision == "bfloat16" and any(tensor.is_complex() for tensor in tensors_of(examples.first[0])):
                raise ValueError("complex inputs have no bfloat16: give precision 'float32' or 'float64'")
            self._prepare(product, weights, buffers, examples, chunk_size, memory_budget, layout, root)
        self._join(processes)

    @classmethod
    def at(
        cls,
        product: HessianProduct,
        weights: Tensor,
        buffers: Tensor,
        inputs: Inputs,
        targets: Tensor,
        *,
        chunk_size: int = 256,
        memory_budget: int = 4 * 2**30,
        inverse_root: Tensor | None = None,
    ) -> HessianOperator:
        """Build the operator at ``weights`` [P] and ``buffers`` [B]; checkpoints of one architecture share ``product``.

        Vectors are in the order of ``Loss`` and ``flatten``: kernels channels last. Nothing is copied, so weights,
        buffers and examples must not change afterwards.

        Args:
            inverse_root: the diagonal of D^-1/2 of a preconditioner, in the order of ``product.layout``; None: of none.
        """
        operator = cls.__new__(cls)
        arguments.check_numbers(inputs, targets)
        examples = Examples([(inputs, targets)])
        operator._prepare(product, weights, buffers, examples, chunk_size, memory_budget, product.layout, inverse_root)
        operator._join(Processes(False, operator.device))
        return operator

    def _prepare(
        self,
        product: HessianProduct,
        weights: Tensor,
        buffers: Tensor,
        examples: Examples,
        chunk_size: int,
        memory_budget: int,
        layout: Layout,
        inverse_root: Tensor | None,
    ) -> None:
        self.layout = layout
        self.shape = (self.layout.size, self.layout.size)
        self.dtype = weights.dtype
        self.device = weights.device
        self._product = product
        self._inverse_root = inverse_root  # of the preconditioner, in the order of the layout
        self._default_dtype = torch.get_default_dtype()  # of tensors that the network creates in its forward
        # No more than torch can count.
        self._chunk_size = min(checks.whole_number("chunk_size", chunk_size, least=1), 2**31)
        self._memory_budget = checks.whole_number("memory_budget", memory_budget, least=0) - examples.num_bytes
        self._reference: HessianOperator | None = None
        # Following eigenvectors along a trajectory takes fewer products per operator.
        self._recorder = Recorder(first=5)
        with self._undisturbed():
            self._state = _plain(weights), _plain(buffers)
            kept = [(mapped(_plain, inputs), _plain(targets)) for inputs, targets in examples.kept]
            self._examples = replace(examples, kept=kept)
            self._linearise()

    def _join(self, processes: Processes) -> None:
        """Sum over the processes what all products need."""
        self._processes = processes
        with self._undisturbed():
            processes.check_same(self._state[0], self._inverse_root, self._settings)
            if processes.number > 1 and self._chunking.size is None and self._product.loss.batch_statistics:
                raise ValueError("batch statistics need all examples in one process: give process_group=False")
            self._num_examples = int(processes.add_number(self._totals.num_examples))
            self._num_terms = self._totals.divisor(processes)
            self._mean_gradient = self._gradient() if self._product.curvature == "gradient_covariance" else None
        allocator.settle(self._state[0])

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        # Independent of the caller's mode, since some operations use autograd.
        with alone(self.device, default_dtype=self._default_dtype), torch.inference_mode(False), torch.no_grad():
            yield

    def _linearise(self) -> None:
        allocator.suit(self._state[0])
        product, (inputs, _) = self._product, self._examples.first
        _check_finite(product.loss.layout, self._state[0])
        _check_finite(product.loss.buffer_layout, self._state[1])
        arguments.check_inputs(inputs)
        self._rounded = product.rounded(self._state[0]), product.rounded(self._state[1])  # shared by all chunks
        try:
            outputs = product.outputs(*self._rounded, inputs)
        except RuntimeError as error:
            arguments.check_taken(inputs, error)
            raise
        self._chunking = Chunking.of(product, self._examples, outputs, self._chunk_size)
        totals = Totals(product, outputs, self._chunking, self._rounded)
        self._chunks = [chunk for batch in self._examples.kept for chunk in totals.add(batch)]
        for batch in self._examples.streamed():
            totals.add(batch)
        self._totals = totals
        self._keep(totals.largest_chunk)

    def _keep(self, largest: int) -> None:
        """Linearise as many chunks as fit into memory, with room for recomputing another.

        Args:
            largest: bytes of the inputs of the largest chunk, which is the first unless batches differ.
        """
        first = self._chunks[0]
        linearised = self._product.linearise(*self._rounded, *first)
        is_streamed, num_chunks = self._examples.stream is not None, len(self._chunks)
        size = int(linearised.num_bytes * max(1.0, largest / max(bytes_of(first), 1)))
        # The reference needs room for one chunk of its own, in numbers twice as long as bfloat16.
        for_reference = size * {None: 0, "tf32": 1, "bfloat16": 2}[self._product.precision]
        if size + for_reference > self._memory_budget:
            raise ValueError(
                f"memory_budget leaves {self._memory_budget:,} bytes for a chunk of {num_examples(first[0])} examples, "
                f"which takes {size + for_reference:,}: give more, or {self._chunking.less}"
            )
        fitting = (self._memory_budget - for_reference) // size if size else num_chunks + 1
        is_all = fitting >= num_chunks + is_streamed
        num_cached = num_chunks if is_all else min(fitting - 1, num_chunks)
        # Recomputed chunks need memory at the same time as the reference.
        self._for_reference = self._memory_budget - min(num_cached + 1, num_chunks) * size
        self._linearised = [linearised] if num_cached else []
        self._linearised += [self._product.linearise(*self._rounded, *chunk) for chunk in self._chunks[1:num_cached]]

    def _linearisations(self) -> Iterator[Any]:
        yield from self._linearised
        for chunk in self._chunks[len(self._linearised) :]:
            yield self._product.linearise(*self._rounded, *chunk)
        for batch in self._examples.streamed():
            for chunk in self._chunking.chunks_of(batch):
                yield self._product.linearise(*self._rounded, *chunk)

    def _gradient(self) -> Tensor:
        """Gradient of the mean loss, in the product's order."""
        total = torch.zeros(self.shape[0], dtype=self.dtype, device=self.device)
        for linearised in self._linearisations():
            self._product.add_gradient(linearised, total)
        return self._processes.add(total) / self._num_terms

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
        is_cached = len(self._linearised) == len(self._chunks) and self._examples.stream is None
        if not is_cached or not self._product.is_static or self._processes.number > 1:
            return self._times(vector)
        return self._recorder(lambda given: (self._times(given),), vector, in_place=self._rounded)[0]

    def _times(self, vector: Tensor) -> Tensor:
        if self._inverse_root is not None:
            vector = vector * self._inverse_root
        vector = self.layout.converted(vector, self._product.layout)
        total = torch.zeros_like(vector)
        for linearised in self._linearisations():
            self._product.add_product(linearised, vector, total)
        self._processes.add(total)
        total /= self._num_terms
        loss = self._product.loss
        if self._mean_gradient is not None:
            # An example's gradient is N times its part of the mean loss.
            total *= self._num_examples / self._num_terms
            total -= self._mean_gradient * along_rows(self._mean_gradient[None], vector)
        elif loss.l2:
            total = total + loss.penalty_curvature(vector, self._product.layout)
        total = self._product.layout.converted(total, self.layout)
        return total if self._inverse_root is None else total * self._inverse_root

    @property
    def reference(self) -> HessianOperator | None:
        """The same operator in the precision of its vectors; None if it has that already."""
        with self._undisturbed():
            if self._product.precision and self._reference is None:
                self._reference = HessianOperator.__new__(HessianOperator)
                self._reference._prepare(
                    self._product.in_full_precision(),
                    *self._state,
                    replace(self._examples, num_bytes=0),
                    self._chunk_size,
                    self._for_reference,
                    self.layout,
                    self._inverse_root,
                )
                self._reference._join(self._processes)
            return self._reference

    def value(self, displacement: Tensor | np.ndarray[Any, Any] | None = None) -> float:
        """Compute the loss on the examples, L2 term included, at the weights plus ``displacement`` [P].

        Raises:
            ValueError: the displacement has the wrong shape or device.
        """
        with self._undisturbed():
            weights, whole = self._state[0], self._product.loss.layout
            if displacement is not None:
                given = arguments.vector(displacement, self.shape[0], self.dtype, self.device)
                weights = evaluation.displaced(whole, self.layout, weights, given)
            loss, chunks = self._product.loss, self._all_chunks()
            total = self._processes.add(evaluation.total(loss, weights, self._state[1], chunks))
            return float(total / self._num_terms + loss.penalty(weights))

    def direction(self, vector: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """Return the direction of the weights that ``vector`` [P] stands for: D^-1/2 times it with a preconditioner.

        The loss along it, as ``value`` has it, curves as the operator says of the vector.

        Raises:
            ValueError: the vector has the wrong shape or device.
        """
        given = arguments.vector(vector, self.shape[0], self.dtype, self.device)
        return given if self._inverse_root is None else given * self._inverse_root

    def gradient(self) -> Tensor:
        """Compute the gradient of the loss on the examples, L2 term included, [P]."""
        with self._undisturbed():
            loss = self._product.loss
            whole = self._processes.add(evaluation.gradient_of_total(loss, *self._state, self._all_chunks()))
            whole /= self._num_terms
            if loss.l2:
                whole = whole + loss.penalty_curvature(self._state[0])
            return evaluation.rows_in(loss.layout, self.layout, whole)

    def _all_chunks(self) -> Iterator[Batch]:
        yield from self._chunks
        for batch in self._examples.streamed():
            yield from self._chunking.chunks_of(batch)

    @property
    def provenance(self) -> dict[str, Any]:
        """Of what the operator is, as eigenpairs keep it: parameters and their shapes, loss, examples, precision."""
        return {**self._settings, "num_examples": self._num_examples}

    @property
    def _settings(self) -> dict[str, Any]:
        loss, precise = self._product.loss, "float64" if self.dtype == torch.float64 else "float32"
        return {
            "parameters": {n: list(shape) for n, shape in zip(self.layout.names, self.layout.shapes, strict=True)},
            "curvature": self._product.curvature,
            "is_preconditioned": self._inverse_root is not None,
            "batch_statistics": loss.batch_statistics,
            "loss": loss.criterion.description,
            "l2": loss.l2,
            "precision": self._product.precision or precise,
        }

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
