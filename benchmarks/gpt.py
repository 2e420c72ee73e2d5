"""A GPT of about ten million weights that reads characters, as one writes it in torch, and a text for it."""

from __future__ import annotations

import torch
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional

from sharpness.runtime.streams import stream

CONTEXT, WIDTH, NUM_LAYERS, NUM_HEADS, VOCABULARY = 128, 384, 6, 6, 128
_STRIDE = 32
_TEXTS = ("digits", "iris", "wine", "breast_cancer", "diabetes", "linnerud")


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, values: Tensor) -> Tensor:
        number, length, width = values.shape
        parts = self.qkv(self.attention_norm(values)).chunk(3, dim=-1)
        query, key, value = (part.view(number, length, NUM_HEADS, width // NUM_HEADS).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        values = values + self.out(attended.transpose(1, 2).reshape(number, length, width))
        mixed: Tensor = values + self.mlp(self.mlp_norm(values))
        return mixed


class GPT(nn.Module):
    """Logits [n, characters, length] of the next characters, from characters [n, length]; its table is tied."""

    order: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks, self.norm = nn.Sequential(*(_Block() for _ in range(NUM_LAYERS))), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.characters.weight
        self.register_buffer("order", torch.arange(CONTEXT), persistent=False)

    def forward(self, text: Tensor) -> Tensor:
        """As the class says."""
        values = self.characters(text) + self.places(self.order[: text.shape[1]])
        logits: Tensor = self.head(self.norm(self.blocks(values)))
        return logits.transpose(1, 2)


def untrained() -> GPT:
    """Build the network with normally distributed weights of standard deviation 0.02, as GPT-2 has."""
    model, generator = GPT(), stream(0, "weights")
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.02, generator=generator)
    return model


def sequences() -> tuple[Tensor, Tensor]:
    """Cut scikit-learn's descriptions of data sets: characters [n, 128] and those that follow them, in random order."""
    text = "".join(getattr(datasets, f"load_{name}")().DESCR for name in _TEXTS)
    codes = torch.tensor([min(ord(character), VOCABULARY - 1) for character in text])
    windows = codes.unfold(0, CONTEXT + 1, _STRIDE)
    windows = windows[torch.randperm(len(windows), generator=stream(0, "order"))]
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
