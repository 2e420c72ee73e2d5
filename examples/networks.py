"""The networks of the examples: each brings its own initialisation, that of torch's layers."""

import itertools

import torch
from torch import nn


def mlp(input_shape, num_classes, width, depth=2):
    """Dense layers with tanh between them, as smooth as the theory of the edge of stability wants it."""
    sizes = [input_shape[0] * input_shape[1] * input_shape[2], *[width] * depth]
    layers = [nn.Flatten()]
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, num_classes))


class Attention(nn.Module):
    """Self-attention of several heads; causal where a position must not see those behind it."""

    def __init__(self, width, heads, *, causal):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.project, self.combine = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, inputs):
        batch, length, width = inputs.shape
        parts = self.project(inputs).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(*parts.unbind(0), is_causal=self.causal)
        return self.combine(seen.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """A pre-norm block of a transformer."""

    def __init__(self, width, heads, *, causal):
        super().__init__()
        self.before, self.attention = nn.LayerNorm(width), Attention(width, heads, causal=causal)
        self.between = nn.LayerNorm(width)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, inputs):
        inputs = inputs + self.attention(self.before(inputs))
        return inputs + self.dense(self.between(inputs))


class ViT(nn.Module):
    """A vision transformer: patches of an image, a mean over them, and a class."""

    def __init__(self, input_shape, num_classes, width, depth, heads=4, patch=7):
        super().__init__()
        channels, height, across = input_shape
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn((height // patch) * (across // patch), width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=False) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes))

    def forward(self, images):
        patches = self.embed(images).flatten(2).transpose(1, 2) + self.position
        return self.head(self.blocks(patches).mean(dim=1))


class GPT(nn.Module):
    """A small GPT: of each position in a text the scores of the next character, [n, characters, length]."""

    def __init__(self, input_shape, num_classes, width, depth, heads=4):
        super().__init__()
        self.embed = nn.Embedding(num_classes, width)
        self.position = nn.Parameter(0.02 * torch.randn(input_shape[0], width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes))

    def forward(self, characters):
        return self.head(self.blocks(self.embed(characters) + self.position)).transpose(1, 2)
