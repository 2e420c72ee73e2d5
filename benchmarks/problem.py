"""A trained network and the examples that its Hessian is taken on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from benchmarks import gpt
from sharpness.data.datasets import augment, epoch_order
from sharpness.hessian.loss import channels_last
from sharpness.runtime.files import replacing
from sharpness.runtime.streams import stream
from sharpness.training import models

SEED = 0
_SIZE, _CHANNELS, _CLASSES = 32, 3, 10
_BATCH_SIZE = 128
_BATCH_SIZES = {"gpt": 16}
_STEPS = {"simple_cnn": 120, "resnet32": 120, "resnet18": 40, "gpt": 40, "resnet18_64": 25}
# SGD with momentum hardly moves a ResNet without batch norm off its first weights in so few steps, or else diverges.
_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "simple_cnn": partial(torch.optim.SGD, lr=0.05),
    "resnet32": partial(torch.optim.Adam, lr=1e-3),
    "resnet18": partial(torch.optim.SGD, lr=0.05),
    "resnet18_64": partial(torch.optim.SGD, lr=0.05),
    "gpt": partial(torch.optim.AdamW, lr=1e-3),
}


@dataclass(frozen=True)
class Problem:
    """A plain model in evaluation mode with contiguous weights, and examples."""

    model: nn.Module
    inputs: Tensor  # [N, 3, 32, 32], or of others [N, ...]
    targets: Tensor  # [N], or of a language model [N, length]

    @property
    def num_weights(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters())


def load_problem(network: str, *, num_examples: int, cache: Path, device: torch.device | str = "cpu") -> Problem:
    """The network with the weights that ``train`` left in ``cache``, and the first ``num_examples`` examples."""
    model = build(network)
    load_model(model, weights_file(network, cache))  # a tied weight is there once
    inputs, targets = (part.to(device) for part in examples_of(network, num_examples))
    return Problem(model.to(device).eval(), inputs, targets)


def weights_file(network: str, cache: Path) -> Path:
    """Where the trained weights are kept."""
    return cache / f"{network}-seed{SEED}.safetensors"


def build(network: str) -> nn.Module:
    """The untrained network: torchvision's ResNet-18, a GPT, or one of the project's own."""
    if network == "gpt":
        return gpt.untrained()
    if network in ("resnet18", "resnet18_64"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            model: nn.Module = resnet18(num_classes=_CLASSES)
            return model
    return models.build(network, (_CHANNELS, _SIZE, _SIZE), _CLASSES, generator=stream(SEED, "weights"))


def examples_of(network: str, num_examples: int | None = None) -> tuple[Tensor, Tensor]:
    """The first examples of a network in a fixed random order; None: all that there are without copies."""
    if network == "gpt":
        inputs, targets = gpt.sequences()
        return inputs[:num_examples], targets[:num_examples]
    return examples(num_examples or 1_797, size=64 if network == "resnet18_64" else _SIZE)


def examples(num_examples: int, *, size: int = _SIZE) -> tuple[Tensor, Tensor]:
    """Digits at 3x32x32 in a fixed random order: [N, 3, 32, 32] and [N]; beyond the 1,797 there are, shifted copies."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1)
    images = functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    images = ((images - images.mean(dim=0)) / images.std()).expand(-1, _CHANNELS, -1, -1)
    order = torch.randperm(len(images), generator=stream(SEED, "order"))
    inputs, targets = images[order].contiguous(), torch.from_numpy(digits.target).long()[order]
    copies = [inputs]
    while len(copies) * len(inputs) < num_examples:
        copies.append(augment(inputs, generator=stream(SEED, f"copy {len(copies)}")))
    return torch.cat(copies)[:num_examples], targets.repeat(len(copies))[:num_examples]


def train(network: str, *, cache: Path, device: torch.device | str = "cpu") -> dict[str, float]:
    """Train for a few epochs and keep the weights in ``cache``; the mean loss of the last ten steps."""
    model = build(network).train().to(device).to(memory_format=torch.channels_last)
    inputs, targets = (part.to(device) for part in examples_of(network))
    optimiser = _OPTIMISERS[network](model.parameters())
    losses, step, epoch = [], 0, 0
    while step < _STEPS[network]:
        order = epoch_order(
            len(inputs), _BATCH_SIZES.get(network, _BATCH_SIZE), generator=stream(SEED, f"order of epoch {epoch}")
        )
        for batch in order[: _STEPS[network] - step]:
            loss = functional.cross_entropy(model(channels_last(inputs[batch])), targets[batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.item())
        step, epoch = len(losses), epoch + 1
    with replacing(weights_file(network, cache)) as beside:
        save_model(model.to(memory_format=torch.contiguous_format), str(beside))
    return {"training_loss": sum(losses[-10:]) / len(losses[-10:])}
