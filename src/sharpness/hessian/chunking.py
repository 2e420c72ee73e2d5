"""How an operator's batches are cut into chunks, and what is summed over all of them beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpness.hessian import arguments
from sharpness.hessian.examples import Batch, Examples
from sharpness.hessian.inputs import Inputs, joined, num_examples, part, split, tensors_of
from sharpness.hessian.losses.own import OwnLoss
from sharpness.hessian.outputs import Outputs, shapes_of
from sharpness.hessian.processes import Processes
from sharpness.hessian.product import HessianProduct

NOT_A_SUM = (
    "the sum that loss(model, batch) returns for {} is not that of their halves added up: it must return the sum over "
    "terms, not their mean, and no example may depend on the others"
)
# Of a sum over terms in the precision of the passes over the network.
_ROUNDING = {None: 1e-3, "tf32": 1e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class Chunking:
    """The largest number of examples in a chunk, and what would take less memory."""

    size: int | None  # None: batches as they are
    less: str  # end of a sentence: "give more memory, or ..."

    @classmethod
    def of(cls, product: HessianProduct, examples: Examples, outputs: Outputs, chunk_size: int) -> Chunking:
        """Decide how examples are cut.

        Raises:
            ValueError: the outputs of one example depend on others, and not all examples are at hand at once, or each
                example's own gradient is asked for; or batches that are asked for example by example have none.
        """
        is_own, by_example = isinstance(product.loss.criterion, OwnLoss), product.curvature == "gradient_covariance"
        if is_own and product.curvature == "ggn":
            raise ValueError(
                "a loss of one's own has no outputs of which a Gauss-Newton matrix could be made: give the network's "
                "outputs and torch.nn.CrossEntropyLoss, MSELoss or BCEWithLogitsLoss, or curvature='hessian'"
            )
        if not (outputs.mixes_examples or product.loss.batch_statistics):
            if is_own and by_example:
                return cls(1, "fewer examples")
            if not examples.divisible:
                return cls(None, "smaller batches")
            return cls(chunk_size, "a smaller chunk_size")
        if is_own:
            raise ValueError(NOT_A_SUM.format("a few examples"))
        if by_example:
            raise ValueError("the outputs of an example depend on the others, so that none has a gradient of its own")
        if len(examples.kept) > 1 or examples.stream is not None:
            raise ValueError(
                "the outputs of an example depend on the others in its batch, so that all examples have to be one "
                "batch that fits into half of memory_budget"
            )
        return cls(None, "fewer examples, which are one chunk here")

    def chunks_of(self, batch: Batch) -> Iterator[Batch]:
        """Cut a batch into chunks.

        Raises:
            ValueError: single examples are needed, but cannot be told apart.
        """
        inputs, targets = batch
        number = num_examples(inputs)
        if self.size is None or number is None:
            if self.size == 1:
                raise ValueError("the examples of a batch cannot be told apart: its tensors differ in their first axis")
            yield batch
        elif len(targets) == number:
            yield from zip(split(inputs, self.size), torch.split(targets, self.size), strict=True)
        else:
            for some in split(inputs, self.size):
                yield some, targets


def bytes_of(batch: Batch) -> int:
    """Bytes of a batch's inputs."""
    return sum(tensor.nbytes for tensor in tensors_of(batch[0]))


class NoTermsError(ValueError):
    """A loss has no terms on some examples, as where every label is ignored."""


class Totals:
    """Sums over all batches, each of which is checked: numbers of terms and of examples."""

    def __init__(
        self, product: HessianProduct, outputs: Outputs, chunking: Chunking, state: tuple[Tensor, Tensor]
    ) -> None:
        self._product, self._outputs, self._chunking, self._state = product, outputs, chunking, state
        self._criterion = product.loss.criterion
        self._weight: float | Tensor = 0
        self.num_examples = 0
        self.largest_chunk = 0  # bytes of inputs
        self._rounding = _ROUNDING[product.precision]
        self._single: tuple[Inputs, float, float] | None = None  # the last batch of one example

    def add(self, batch: Batch) -> list[Batch]:
        """Check a batch, and add its terms; return its chunks.

        Raises:
            ValueError: inputs are not finite, targets do not match the outputs, or single examples are needed, but
                cannot be told apart.
        """
        inputs, targets = batch
        arguments.check_inputs(inputs)
        number = num_examples(inputs) or 1
        self._criterion.check(targets, self._shape(batch))
        self._weight = self._weight + self._weight_of(batch)
        self.num_examples += number
        chunks = list(self._chunking.chunks_of(batch))
        self.largest_chunk = max(self.largest_chunk, *map(bytes_of, chunks))
        return chunks

    def divisor(self, processes: Processes) -> float:
        """Return what sums over the terms of all processes are divided by.

        Raises:
            NoTermsError: there is nothing to average over.
        """
        weight = processes.add_number(self._weight if isinstance(self._weight, int) else float(self._weight))
        if not weight > 0:
            raise NoTermsError(self._criterion.nothing)
        return self._criterion.divisor(weight)

    def _weight_of(self, batch: Batch) -> float | Tensor:
        inputs, targets = batch
        if not isinstance(self._criterion, OwnLoss):
            return self._criterion.weight(targets)
        total, weight = self._product.total(*self._state, inputs)
        if not self._outputs.mixes_examples:
            self._check_sums(inputs, total, float(weight))
        return weight

    def _check_sums(self, inputs: Inputs, total: float, number: float) -> None:
        """Check that the user's own loss adds up over halves of a batch, or two batches of one example.

        Raises:
            ValueError: it does not.
        """
        size = num_examples(inputs) or 1
        if size > 1:
            halves = part(inputs, 0, size // 2), part(inputs, size // 2, size)
            apart = [self._product.total(*self._state, some) for some in halves]
        else:
            shapes, before = shapes_of(inputs), self._single
            self._single = inputs, total, number
            if before is None or shapes_of(before[0]) != shapes:
                return
            try:
                both = joined([before[0], inputs])
            except ValueError:
                return
            apart = [before[1:], (total, number)]
            total, counted = self._product.total(*self._state, both)
            number, size = float(counted), 2
        sums = [value for value, _ in apart]
        terms = sum(float(count) for _, count in apart)
        if abs(number - terms) > 1e-6 * abs(terms):
            raise ValueError(
                f"loss(model, batch) says that {size} examples have {number:g} terms, but their halves {terms:g}: it "
                "must return the number of terms of the batch that it is given"
            )
        # Not a number: a mean over no terms, as where all labels of a half are ignored.
        if abs(total - sum(sums)) > self._rounding * sum(map(abs, sums)):
            raise ValueError(NOT_A_SUM.format("a batch"))

    def _shape(self, batch: Batch) -> torch.Size:
        """Shape of the outputs, of which the first batch's are known."""
        inputs, targets = batch
        known, number = self._outputs.shape, num_examples(inputs) or 1
        if shapes_of(inputs) == self._outputs.input_shapes or isinstance(self._criterion, OwnLoss):
            return torch.Size([number, *known])
        return self._criterion.shape_like(targets, known)
