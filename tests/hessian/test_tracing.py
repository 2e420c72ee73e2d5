"""Networks of every kind become operations whose Hessian is that of the plain loss, or are known not to."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrize import register_parametrization

from sharpness.hessian import forms
from sharpness.hessian.losses.classes import CrossEntropy
from sharpness.hessian.operator import HessianOperator
from sharpness.hessian.r_operator.bilinear import Convolution, Dense
from sharpness.hessian.r_operator.layers import LinearMap, MaxPool2d, Relu
from sharpness.hessian.r_operator.operation import UntraceableError
from sharpness.hessian.r_operator.product import ROperator
from sharpness.hessian.r_operator.tracing import steps_of
from sharpness.training import models

pytestmark = [
    pytest.mark.usefixtures("unmoved_global_generator"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]


class Network(nn.Module):
    """Layers by name, and what to do with them and an image [n, 2, 6, 6]."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            if isinstance(layer, nn.Parameter | nn.Module):
                setattr(self, name, layer)
            else:
                self.register_buffer(name, layer)

    def forward(self, images):
        return self.function(self, images)


def classified(*layers):
    """Layers that give two channels at least, then three classes."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))


def conv(inputs=2, outputs=2, size=3, **settings):
    return nn.Conv2d(inputs, outputs, size, **({"padding": 1} | settings))


def head(inputs=72):
    return nn.Linear(inputs, 3)


def weight(*shape):
    return nn.Parameter(torch.empty(shape))


def tied():
    one, other = conv(), conv()
    other.weight = one.weight
    return classified(one, nn.Tanh(), other, nn.ReLU())


def partly_frozen():
    network = classified(conv(), nn.ReLU(), conv())
    network[0].weight.requires_grad_(False)
    return network


def reordered(layer):
    kernel = layer.weight
    del layer.weight
    layer.weight = kernel
    return layer


def hooked(layer, hook):
    layer.register_forward_hook(hook)
    return layer


class Sines(nn.Module):
    """Weights that are computed from others."""

    def forward(self, values):
        return values.sin()


def parametrised(layer):
    register_parametrization(layer, "weight", Sines())
    return layer


def iadd(x, y):
    x += y
    return x


def imul(x, y):
    x *= y
    return x


def logits(m, values):
    return m.head(values.flatten(1))


def gated_twice(m, x):
    outputs, last = m.gru(x.flatten(1, 2).transpose(0, 1))
    return m.head(torch.cat([outputs[-1], last[0], last[-1]], 1))


def queries():
    return {"queries": nn.Linear(6, 8), "keys": nn.Linear(6, 4), "values": nn.Linear(6, 3)}


def attending(m, x, heads=1, **settings):
    rows = x.flatten(1, 2)
    query = m.queries(rows).unflatten(-1, (2, 4)).transpose(1, 2).repeat_interleave(heads, 1)[..., : 4 // heads]
    key = m.keys(rows).unflatten(-1, (heads, 4 // heads)).transpose(1, 2)
    value = m.values(rows).unsqueeze(1)
    value = value.expand(-1, heads, -1, -1)
    out = functional.scaled_dot_product_attention(query, key, value, **settings)
    return m.head(out.mean((1, 2)))


def attentive(layer, **settings):
    return Network(
        lambda m, x: m.head(m.part(*(m.dense(x.flatten(1, 2)),) * 3, **settings)[0].tanh().mean(1)),
        **{"dense": nn.Linear(6, 6), "part": layer, "head": head(6)},
    )


def weighted(outputs, weights):
    return (weights @ outputs)[:, 0]


def encoded(layer):
    return Network(
        lambda m, x: m.head(m.part(m.dense(x.flatten(1, 2)))[:, 0]), dense=nn.Linear(6, 6), part=layer, head=head(6)
    )


def places(x):
    return (x[:, 0].flatten(1) > 0).long() + 2 * (x[:, 1].flatten(1) > 0)


TRACED = {
    # Convolutions.
    "grouped": lambda: classified(conv(groups=2), nn.ReLU(), conv(2, 4, groups=2), nn.ReLU(), conv(4, 2)),
    "dilated": lambda: classified(conv(dilation=2, padding=2), nn.ReLU(), conv(dilation=(1, 2))),
    "strided": lambda: classified(conv(stride=2), nn.ReLU(), conv(stride=(1, 2), bias=False)),
    "same": lambda: classified(conv(padding="same", dilation=2), nn.ReLU(), conv(padding="same", size=(1, 3))),
    "valid": lambda: classified(conv(padding="valid"), nn.ReLU(), conv(padding="valid", size=2)),
    "even kernel same": lambda: classified(conv(padding="same", size=2), nn.ReLU(), conv(padding="same", size=(4, 2))),
    "reflected": lambda: classified(conv(padding_mode="reflect"), nn.ReLU(), conv(padding_mode="circular")),
    "transposed": lambda: classified(conv(), nn.ReLU(), nn.ConvTranspose2d(2, 2, 3, stride=2), nn.ReLU(), conv()),
    "conv1d": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(2, 3, 4, stride=3), nn.ReLU(), nn.Conv1d(3, 2, 3, dilation=2), nn.Flatten(), head(14)
    ),
    "conv3d": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2)),
        nn.Conv3d(1, 2, (2, 3, 3)),
        nn.ReLU(),
        nn.Conv3d(2, 2, (1, 2, 3)),
        nn.Flatten(),
        head(12),
    ),
    # Pools, and the ReLU before them.
    "padded pool": lambda: classified(conv(), nn.ReLU(), nn.MaxPool2d(3, padding=1), conv()),
    "overlapping pool": lambda: classified(conv(), nn.ReLU(), nn.MaxPool2d(3, stride=1), conv()),
    "ceiled pool": lambda: classified(conv(), nn.ReLU(), nn.MaxPool2d((4, 2), ceil_mode=True), conv()),
    "dilated pool": lambda: classified(conv(), nn.ReLU(), nn.MaxPool2d(2, stride=1, dilation=2), conv()),
    "pool of a tanh": lambda: classified(conv(), nn.Tanh(), nn.MaxPool2d(2), conv()),
    "average pool": lambda: classified(conv(), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True), conv()),
    "pool of a shared ReLU": lambda: Network(
        lambda m, x: m.head(torch.cat([m.pool(y := m.relu(m.conv(x))).flatten(1), y.flatten(1)], 1)),
        **{"conv": conv(), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2), "head": head(90)},
    ),
    "functional pool": lambda: Network(
        lambda m, x: logits(m, functional.max_pool2d(functional.relu(m.conv(x)), 2)), conv=conv(), head=head(18)
    ),
    # Activations and normalisation.
    "gelu": lambda: classified(conv(), nn.GELU(), conv(), nn.GELU("tanh")),
    "tanh": lambda: classified(conv(), nn.Tanh(), conv(), nn.Sigmoid()),
    "inplace activations": lambda: classified(conv(), nn.ELU(inplace=True), conv(), nn.ReLU6(inplace=True), conv()),
    "functional inplace": lambda: Network(
        lambda m, x: logits(m, functional.relu(m.other(functional.elu(m.conv(x), inplace=True)), inplace=True)),
        **{"conv": conv(), "other": conv(), "head": head()},
    ),
    "functional gelu": lambda: Network(
        lambda m, x: logits(m, functional.gelu(m.conv(functional.gelu(x)), approximate="tanh")),
        **{"conv": conv(), "head": head()},
    ),
    "layer norm": lambda: classified(conv(), nn.LayerNorm(6), nn.ReLU(), conv()),
    "layer norm first": lambda: classified(nn.LayerNorm((6, 6)), conv(), nn.LayerNorm((2, 6, 6)), nn.GELU(), conv()),
    "layer norm without weights": lambda: classified(conv(), nn.LayerNorm(6, elementwise_affine=False), conv()),
    "layer norm without bias": lambda: classified(conv(), nn.LayerNorm((6, 6), bias=False), nn.GELU(), conv()),
    "functional layer norm": lambda: Network(
        lambda m, x: logits(m, functional.layer_norm(m.conv(x), (6,), m.norm.weight, bias=m.norm.bias, eps=0.1)),
        **{"conv": conv(), "norm": nn.LayerNorm(6), "head": head()},
    ),
    "functional layer norm by a computed weight": lambda: Network(
        lambda m, x: logits(m, functional.layer_norm(m.conv(x), (6,), m.norm.weight.exp(), m.norm.bias)),
        **{"conv": conv(), "norm": nn.LayerNorm(6), "head": head()},
    ),
    "functional layer norm without weights": lambda: Network(
        lambda m, x: logits(m, functional.layer_norm(m.conv(x), (6,))), conv=conv(), head=head()
    ),
    "a loop over chunks": lambda: Network(
        lambda m, x: logits(m, sum(y.sin() * number for number, y in enumerate(m.conv(x).chunk(2, dim=1)))),
        conv=conv(),
        head=head(36),
    ),
    "chunks mapped by a function": lambda: Network(
        lambda m, x: logits(m, torch.cat([*map(torch.tanh, torch.chunk(m.conv(x), chunks=3, dim=-1))], 1)),
        conv=conv(),
        head=head(),
    ),
    "batch norm first": lambda: classified(nn.BatchNorm2d(2), conv(), nn.BatchNorm2d(2), nn.ReLU(), conv()),
    "batch norm without weights": lambda: classified(conv(), nn.BatchNorm2d(2, affine=False), nn.ReLU(), conv()),
    "batch norm without bias": lambda: classified(conv(), nn.BatchNorm2d(2, bias=False), nn.ReLU(), conv()),
    "batch norm of vectors": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(72, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 3)
    ),
    "dropout": lambda: classified(conv(), nn.Dropout(0.5), nn.ReLU(), nn.Dropout2d(0.5, inplace=True), conv()),
    "alpha dropout": lambda: classified(conv(), nn.AlphaDropout(0.5), nn.ReLU(), conv()),
    "prelu": lambda: classified(conv(), nn.PReLU(2), conv()),
    "celu and softplus": lambda: classified(conv(), nn.CELU(inplace=True), conv(), nn.Softplus()),
    "instance norm": lambda: classified(conv(), nn.InstanceNorm2d(2, affine=True), nn.Hardswish(), conv()),
    # Of these torch has no forward mode, or none of their adjoints.
    "silu": lambda: classified(conv(), nn.SiLU(inplace=True), conv()),
    "mish": lambda: classified(conv(), nn.Mish(), conv(), nn.Mish(inplace=True)),
    "group norm": lambda: classified(conv(), nn.GroupNorm(2, 2), nn.ReLU(), conv()),
    "group norm without weights": lambda: classified(conv(), nn.GroupNorm(1, 2, affine=False), nn.SiLU(), conv()),
    "huber loss of two branches": lambda: Network(
        lambda m, x: logits(m, functional.huber_loss(m.conv(x), m.other(x), reduction="none")),
        **{"conv": conv(), "other": conv(), "head": head()},
    ),
    "distances": lambda: Network(
        lambda m, x: torch.cdist(m.conv(x).flatten(1), m.centres), conv=conv(), centres=weight(3, 72)
    ),
    "resampled": lambda: Network(
        lambda m, x: logits(m, functional.grid_sample(x, m.conv(x).movedim(1, 3).tanh(), align_corners=False)),
        **{"conv": conv(), "head": head()},
    ),
    # Sums and products of branches.
    "residual": lambda: Network(
        lambda m, x: logits(m, torch.relu((y := m.conv(x)) + m.other(y.relu()))),
        **{"conv": conv(), "other": conv(), "head": head()},
    ),
    "sum with itself": lambda: Network(
        lambda m, x: logits(m, (y := m.conv(x)) + y), conv=classified(conv(), nn.ReLU())[:2], head=head()
    ),
    "in-place sum": lambda: Network(
        lambda m, x: logits(m, iadd(m.conv(x), y := m.other(x)) * y), conv=conv(), other=conv(), head=head()
    ),
    "concatenated": lambda: Network(
        lambda m, x: logits(m, torch.cat([m.conv(x), m.other(x).relu(), x], dim=1)),
        **{"conv": conv(), "other": conv(), "head": head(216)},
    ),
    "broadcasting": lambda: Network(
        lambda m, x: logits(m, (y := m.conv(x)).tanh() + y.mean((2, 3), keepdim=True) + m.shift),
        **{"conv": conv(), "shift": weight(2, 1, 1), "head": head()},
    ),
    "scalars": lambda: Network(
        lambda m, x: logits(m, (2 - m.conv(x)).tanh() * 3 + 1 + x.size(1)), conv=conv(), head=head()
    ),
    "gated": lambda: Network(
        lambda m, x: logits(m, (y := m.conv(x)) * y.mean((2, 3), keepdim=True).sigmoid()), conv=conv(), head=head()
    ),
    "ReLU read twice": lambda: Network(
        lambda m, x: logits(m, m.other(y := m.relu(m.conv(x))) + m.relu(y - 0.1)),
        **{"conv": conv(), "other": conv(), "relu": nn.ReLU(), "head": head()},
    ),
    # A ReLU's tangent must not overwrite that of the whole whose part it is.
    "ReLU of a part": lambda: Network(
        lambda m, x: logits(m, torch.cat([(y := m.conv(x))[:, :1].relu(), m.other(y)], dim=1)),
        **{"conv": conv(), "other": conv(2, 1), "head": head()},
    ),
    "ReLU of a view": lambda: Network(
        lambda m, x: m.head((y := m.conv(x)).flatten(1).relu() + m.other(y).flatten(1)),
        **{"conv": conv(), "other": conv(), "head": head()},
    ),
    "ReLU of an identity": lambda: Network(
        lambda m, x: logits(m, (m.drop(y := m.conv(x)).relu() + m.other(y)).tanh()),
        **{"conv": conv(), "other": conv(), "drop": nn.AlphaDropout(0.5), "head": head()},
    ),
    # Weights and buffers.
    "weights by themselves": lambda: Network(
        lambda m, x: (x.flatten(1) @ m.kernel).tanh() @ m.last.T * m.scale.exp() + m.scale.relu(),
        **{"kernel": weight(72, 2), "last": weight(3, 2), "scale": weight(3)},
    ),
    "ReLU of a weight": lambda: Network(
        lambda m, x: m.head(x.flatten(1) * m.scale.view(-1).relu() + m.scale.flatten()), scale=weight(8, 9), head=head()
    ),
    "buffers by themselves": lambda: Network(
        lambda m, x: logits(m, m.conv(x) * m.scale[:2] + (m.scale.exp() * 2)[1:]),
        **{"conv": conv(), "scale": torch.empty(3, 1, 1), "head": head()},
    ),
    "tied": tied,
    "one layer twice": lambda: Network(
        lambda m, x: logits(m, m.conv(torch.relu(m.conv(x)))),
        conv=nn.Sequential(conv(), nn.BatchNorm2d(2)),
        head=head(),
    ),
    "unused": lambda: Network(
        lambda m, x: logits(m, m.conv(x).relu()), spare=weight(5), conv=conv(), other=conv(), head=head()
    ),
    "partly frozen": partly_frozen,
    "weights in another order": lambda: nn.Sequential(nn.Flatten(), reordered(nn.Linear(72, 2)), nn.Tanh(), head(2)),
    "parametrised": lambda: nn.Sequential(parametrised(conv()), nn.ReLU(), nn.Flatten(), parametrised(head())),
    "hooks": lambda: classified(
        *(hooked(layer, lambda *given: 2 * given[-1].sin()) for layer in (conv(), nn.Identity(), nn.ReLU())),
        hooked(nn.MaxPool2d(2), lambda *given: given[-1].cos()),
        conv(),
    ),
    # Several results, and what is taken of them.
    "several outputs": lambda: Network(
        lambda m, x: logits(m, torch.cat([(y := m.conv(x).tanh().chunk(2, dim=1))[1], y[0]], dim=1)),
        **{"conv": conv(), "head": head()},
    ),
    "pool with its places": lambda: Network(
        lambda m, x: logits(m, m.pool(torch.relu(m.relu(m.conv(x))))[0]),
        **{"conv": conv(), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2, return_indices=True), "head": head(18)},
    ),
    "ReLU and a pool with its places": lambda: Network(
        lambda m, x: logits(m, m.pool(m.relu(m.conv(x)))[0]),
        **{"conv": conv(), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2, return_indices=True), "head": head(18)},
    ),
    "an LSTM": lambda: Network(
        lambda m, x: m.head(m.lstm(x.flatten(1, 2))[0][:, -1]), lstm=nn.LSTM(6, 2, batch_first=True), head=head(2)
    ),
    "results of results": lambda: Network(
        lambda m, x: m.head(torch.cat([(r := m.lstm(x.flatten(1, 2)))[0][:, -1], r[1][0][-1], r[1][1][-1]], 1)),
        **{"lstm": nn.LSTM(6, 2, batch_first=True), "head": head(6)},
    ),
    "results of a GRU": lambda: Network(gated_twice, gru=nn.GRU(6, 2, 2, bidirectional=True), head=head(8)),
    "a cell": lambda: Network(
        lambda m, x: m.head(m.cell(x[:, 1, 0], m.cell(x[:, 0, 0]))), cell=nn.RNNCell(6, 2), head=head(2)
    ),
    "largest values": lambda: Network(
        lambda m, x: m.head(m.conv(x).flatten(2).max(2)[0] + m.conv(x).flatten(2).sort(2).values[:, :, 3]),
        **{"conv": conv(), "head": head(2)},
    ),
    # Attention.
    "attention": lambda: Network(
        lambda m, x: m.head(functional.scaled_dot_product_attention(*(m.part(x.flatten(1, 2)),) * 3)[:, 0]),
        **{"part": nn.Linear(6, 4), "head": head(4)},
    ),
    "attention of a head of its own": lambda: Network(attending, **queries(), head=head(3)),
    "causal attention": lambda: Network(
        lambda m, x: attending(m, x, is_causal=True, scale=0.3), **queries(), head=head(3)
    ),
    "attention in groups": lambda: Network(
        lambda m, x: attending(m, x, heads=2, enable_gqa=True), **queries(), head=head(3)
    ),
    "attention with a mask": lambda: Network(
        lambda m, x: attending(m, x, attn_mask=m.mask), **queries(), head=head(3), mask=torch.empty(12, 12)
    ),
    "attention with a learned mask": lambda: Network(
        lambda m, x: attending(m, x, attn_mask=m.mask), **queries(), head=head(3), mask=weight(12, 1)
    ),
    "attention to some": lambda: Network(
        lambda m, x: attending(m, x, attn_mask=x[:, :, :, 0].flatten(1)[:, None, None] > -0.5),
        **queries(),
        head=head(3),
    ),
    "attention to a constant": lambda: Network(
        lambda m, x: m.head(
            functional.scaled_dot_product_attention(m.part(x.flatten(1, 2)), x.flatten(1, 2), x.flatten(1, 2))[:, 0]
        ),
        **{"part": nn.Linear(6, 6), "head": head(6)},
    ),
    "attention with examples second": lambda: Network(
        lambda m, x: m.head(m.part(*(m.dense(x.flatten(1, 2)).transpose(0, 1),) * 3)[0].tanh().mean(0)),
        **{"dense": nn.Linear(6, 6), "part": nn.MultiheadAttention(6, 2), "head": head(6)},
    ),
    "attention with heads": lambda: attentive(nn.MultiheadAttention(6, 3, batch_first=True, dropout=0.5)),
    "attention without biases": lambda: attentive(nn.MultiheadAttention(6, 2, bias=False, batch_first=True)),
    "attention and its weights": lambda: Network(
        lambda m, x: m.head(weighted(*m.part(*(m.dense(x.flatten(1, 2)),) * 3))),
        **{"dense": nn.Linear(6, 6), "part": nn.MultiheadAttention(6, 2, batch_first=True), "head": head(6)},
    ),
    "attention across": lambda: Network(
        lambda m, x: m.head(m.part(m.dense(x[:, 0]), x[:, 1], x[:, 1].tanh(), need_weights=False)[0][:, 0]),
        **{"dense": nn.Linear(6, 6), "part": nn.MultiheadAttention(6, 2, batch_first=True), "head": head(6)},
    ),
    "attention across widths": lambda: Network(
        lambda m, x: m.head(m.part(m.dense(x[:, 0]), x[:, 1, :, :4], x[:, 1, :, 1:])[0][:, 0]),
        **{"dense": nn.Linear(6, 6), "part": nn.MultiheadAttention(6, 2, kdim=4, vdim=5, batch_first=True)},
        head=head(6),
    ),
    "attention to itself and nothing": lambda: attentive(
        nn.MultiheadAttention(6, 2, add_bias_kv=True, add_zero_attn=True, batch_first=True)
    ),
    "masked attention": lambda: attentive(
        nn.MultiheadAttention(6, 2, batch_first=True),
        attn_mask=torch.ones(12, 12, dtype=torch.bool, device="cpu").triu(1),
    ),
    "masked and padded attention": lambda: Network(
        lambda m, x: m.head(
            m.part(
                *(m.dense(x.flatten(1, 2)),) * 3,
                attn_mask=torch.ones(12, 12, dtype=torch.bool, device="cpu").triu(3),
                key_padding_mask=x[:, :, :, 0].flatten(1) > 1.5,
            )[0].sum(1)
        ),
        **{"dense": nn.Linear(6, 6), "part": nn.MultiheadAttention(6, 2, batch_first=True), "head": head(6)},
    ),
    "encoder": lambda: encoded(nn.TransformerEncoderLayer(6, 2, 5, batch_first=True)),
    "encoders": lambda: encoded(
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(6, 2, 5, activation="gelu", norm_first=True, batch_first=True),
            2,
            nn.LayerNorm(6),
            enable_nested_tensor=False,
        )
    ),
    "masked encoder": lambda: Network(
        lambda m, x: m.head(m.part(m.dense(x.flatten(1, 2)), m.mask)[:, 0]),
        **{"dense": nn.Linear(6, 6), "part": nn.TransformerEncoderLayer(6, 2, 5, batch_first=True), "head": head(6)},
        mask=torch.empty(12, 12),
    ),
    "decoder": lambda: Network(
        lambda m, x: m.head(m.part(m.dense(x[:, 0]), m.dense(x[:, 1]))[:, 0]),
        **{"dense": nn.Linear(6, 6), "part": nn.TransformerDecoderLayer(6, 2, 5, batch_first=True), "head": head(6)},
    ),
    "transformer": lambda: Network(
        lambda m, x: m.head(m.part(m.dense(x[:, 0]), m.dense(x[:, 1]))[:, 0]),
        **{"dense": nn.Linear(6, 6), "part": nn.Transformer(6, 2, 1, 1, 5, batch_first=True)},
        head=head(6),
    ),
    # Tables and complex values.
    "embedding": lambda: Network(
        lambda m, x: m.head(m.table(places(x)).tanh().sum(1)), table=nn.Embedding(4, 3), head=head(3)
    ),
    "padded embedding": lambda: Network(
        lambda m, x: m.head(m.table(places(x)).tanh().sum(1)), table=nn.Embedding(4, 3, padding_idx=1), head=head(3)
    ),
    "spectrum": lambda: Network(
        lambda m, x: logits(m, torch.fft.irfft2(torch.fft.rfft2(m.conv(x)) * m.filter.exp()).tanh()),
        **{"conv": conv(), "filter": weight(2, 6, 4), "head": head()},
    ),
    "absolute values of a spectrum": lambda: Network(
        lambda m, x: m.head(torch.view_as_real(torch.fft.fft(m.conv(x)) ** 2).flatten(1) * 0.1),
        conv=conv(),
        head=head(144),
    ),
    # Ends, depth and shapes.
    "nested": lambda: classified(nn.Sequential(nn.Sequential(conv()), nn.ReLU()), nn.Sequential(nn.Sequential(conv()))),
    "ends with an identity": lambda: nn.Sequential(classified(conv(), nn.ReLU()), nn.Identity(), nn.Dropout(0.5)),
    "ends with a ReLU": lambda: nn.Sequential(classified(conv(), nn.Tanh()), nn.ReLU()),
    "gives an earlier value": lambda: Network(
        lambda m, x: [logits(m, m.conv(x).tanh()), m.head(x.flatten(1))][0], conv=conv(), head=head()
    ),
    "sizes of the data": lambda: Network(
        lambda m, x: m.head(m.conv(x).tanh().view(x.shape[0], -1).reshape(x.size(0), 72)), conv=conv(), head=head()
    ),
    "optional argument": lambda: Optional(),
    "a custom function": lambda: classified(conv(), Apply(Sine), conv()),
    "deep dense": lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2), nn.Flatten(), nn.Tanh(), head(24)),
}


class Optional(nn.Module):
    """Has an argument that nobody gives."""

    def __init__(self):
        super().__init__()
        self.head = head()

    def forward(self, images, scale=2.0, mask=None):
        assert mask is None
        return self.head(images.flatten(1)).tanh() * scale


class Apply(nn.Module):
    """A custom function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, values):
        return self.function.apply(values)


class Sine(torch.autograd.Function):
    """Has no forward mode of its own."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values.sin()

    @staticmethod
    def backward(ctx, adjoint):
        return adjoint * ctx.saved_tensors[0].cos()


class SineByNumpy(torch.autograd.Function):
    """Nothing but its own rule tells torch what it is; differentiable twice since the rule is torch's."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return torch.from_numpy(np.sin(values.detach().numpy()))

    @staticmethod
    def backward(ctx, adjoint):
        return adjoint * ctx.saved_tensors[0].cos()


def overwritten_and_read_again(m, x):
    y = m.conv(x)
    z = y
    y += 1.0
    return logits(m, z * y)


UNTRACED = {
    "a loop over fewer chunks": lambda: Network(
        lambda m, x: logits(m, torch.cat([y.sin() for y in m.conv(x).chunk(4, dim=-1)], -1)), conv=conv(), head=head()
    ),
    "control flow": lambda: Network(
        lambda m, x: logits(m, m.conv(x).tanh() if x.sum() > -1e9 else x), conv=conv(), head=head()
    ),
    "a loop over examples": lambda: Network(
        lambda m, x: torch.stack([m.head(row.flatten()).tanh() for row in x]), head=head()
    ),
    "a custom function of numpy": lambda: classified(conv(), Apply(SineByNumpy), conv()),
    "values set in place": lambda: Network(lambda m, x: logits(m, m.conv(x).mul_(2).tanh()), conv=conv(), head=head()),
    "overwritten and read again": lambda: Network(overwritten_and_read_again, conv=conv(), head=head()),
    "ReLU in place and read again": lambda: Network(
        lambda m, x: logits(m, m.relu(y := m.conv(x)) + y.sin()), conv=conv(), relu=nn.ReLU(inplace=True), head=head()
    ),
    "identity overwritten and read again": lambda: Network(
        lambda m, x: logits(m, m.relu(m.drop(y := m.conv(x))) + y.sin()),
        **{"conv": conv(), "drop": nn.Dropout(), "relu": nn.ReLU(inplace=True), "head": head()},
    ),
    "multiplied in place and read again": lambda: Network(
        lambda m, x: logits(m, imul(y := m.conv(x), 2.0) + y), conv=conv(), head=head()
    ),
    "several outputs, reversed": lambda: Network(
        lambda m, x: logits(m, torch.cat(m.conv(x).tanh().chunk(2, dim=1)[::-1], dim=1)), conv=conv(), head=head()
    ),
    "another network while it is traced": lambda: Fickle(),
}


def assert_has_the_hessian(plain, generator):
    plain = plain.in_torchs_order
    weights = plain.weights
    vectors = torch.randn(len(weights), 3, generator=generator, dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH):  # torch's only one with a second derivative
        expected = torch.stack([plain.product(weights, vector) for vector in vectors.T], dim=1)
    for precision, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision=precision, chunk_size=3)
        ours = operator @ vectors.to(operator.dtype)
        assert ours.dtype == getattr(torch, precision)
        assert (ours.double() - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("network", TRACED.values(), ids=TRACED)
def test_traced_networks_have_the_hessian_of_the_plain_loss(problem, network, generator, caplog):
    assert_has_the_hessian(problem(network), generator)
    assert not caplog.records


@pytest.mark.parametrize("network", UNTRACED.values(), ids=UNTRACED)
def test_other_networks_have_it_too_by_double_backward_and_say_so_once(problem, network, generator, caplog):
    plain = problem(network).in_torchs_order
    weights = plain.weights
    vector = torch.randn(len(weights), generator=generator, dtype=torch.float64)
    expected = plain.product(weights, vector)
    forms._warn_slow.cache_clear()

    for _ in range(2):
        operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64", chunk_size=3)
        for _ in range(2):
            assert (operator @ vector - expected).norm() < 1e-12 * expected.norm()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "double backward" in record.message


class Straight(torch.autograd.Function):
    """A step whose gradient is made up."""

    @staticmethod
    def forward(ctx, values):
        ctx.factor = 2
        return values.sign() + values.sin()

    @staticmethod
    def backward(ctx, adjoint):
        return ctx.factor * adjoint


class Detaching(nn.Module):
    """Half of it does not count: what tracing forgets."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = conv(), head()

    def forward(self, images):
        with torch.no_grad():
            scale = self.conv(images).tanh()
        return self.head((self.conv(images) * scale).flatten(1))


class Fickle(nn.Module):
    """Another network while it is traced."""

    def __init__(self):
        super().__init__()
        self.head = head()

    def forward(self, images):
        factor = 1.5 if isinstance(images, torch.fx.Proxy) else 1.0
        return self.head(factor * images.flatten(1)).tanh()


@pytest.mark.parametrize(
    ("network", "name"), [(Detaching, "Detaching"), (lambda: classified(conv(), Apply(Straight), conv()), "1 .Apply.")]
)
def test_gradients_that_are_those_of_no_function_are_refused_by_name(problem, network, name):
    plain = problem(network)
    with pytest.raises(RuntimeError, match=f"derivative of {name} .*(not symmetric|central difference)"):
        HessianOperator(plain.model, plain.inputs, plain.targets)


@pytest.mark.parametrize("kind", ["zeros", "whole numbers"])
def test_ties_and_zeros_in_a_pool_after_a_relu_are_as_torch_has_them(problem, kind, generator):
    plain = problem(
        lambda: classified(conv(), nn.ReLU(), nn.MaxPool2d(3, 1, 1), conv(), nn.ReLU(), nn.MaxPool2d(2), conv())
    )
    with torch.no_grad():
        for parameter in list(plain.model.parameters())[:4]:
            parameter.copy_(parameter.round())
    inputs = plain.inputs.round()
    inputs[::2] = 0
    if kind == "zeros":
        with torch.no_grad():
            plain.model[0].bias.zero_()
            plain.model[3].bias.zero_()
    features = plain.model[:2](inputs)
    assert (features == 0).float().mean() > 0.2
    assert len(features.unique()) < 0.2 * features.numel()
    assert_has_the_hessian(plain.part(inputs=inputs, targets=plain.targets), generator)


def test_networks_of_whole_numbers(problem, generator):
    plain = problem(
        lambda: nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 3))
    )
    inputs = torch.randint(5, (7, 3), generator=generator)
    assert_has_the_hessian(plain.part(inputs=inputs, targets=plain.targets), generator)


def test_a_custom_function_is_traced_where_its_forward_is_torchs(problem, caplog):
    plain = problem(lambda: classified(conv(), Apply(Sine), conv()))
    HessianOperator(plain.model, plain.inputs, plain.targets)
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision", "num_examples"),
    [
        ("simple_cnn", "float64", 3),
        ("simple_cnn_medium", "float32", 2),
        ("resnet8", "float64", 4),
        ("resnet32", "float64", 3),
        ("resnet32_bn", "float64", 3),
        ("vgg11", "float32", 2),
        ("vgg11_bn", "float32", 2),
    ],
)
def test_every_network_of_the_experiments(name, precision, num_examples, generator, caplog):
    size = max(models.smallest_size(name), 4)
    dtype = getattr(torch, precision)
    model = models.build(name, (3, size, size), generator=generator).to(dtype).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:  # no zeros at which two rules might differ
            parameter.detach().uniform_(0.5, 1.5, generator=generator)
    inputs = torch.randn(num_examples, 3, size, size, generator=generator).to(dtype)
    targets = torch.randint(10, (num_examples,), generator=generator)
    operator = HessianOperator(model, inputs, targets, chunk_size=2, precision=precision)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(functional.cross_entropy(model(inputs), targets), parameters, create_graph=True)
    for _ in range(2 if precision == "float64" else 1):
        vector = torch.randn(operator.shape[0], generator=generator).to(dtype)
        parts = operator.named(vector).values()
        expected = operator.layout.flat(torch.autograd.grad(gradients, parameters, tuple(parts), retain_graph=True))
        assert (operator @ vector - expected).norm() < (1e-12 if precision == "float64" else 1e-5) * expected.norm()
    assert not caplog.records


def test_every_name_of_the_experiments_is_tested():
    (mark,) = (mark for mark in test_every_network_of_the_experiments.pytestmark if mark.name == "parametrize")
    assert {name for name, *_ in mark.args[1]} == set(models.NAMES)


@pytest.mark.parametrize("parameters", ["0.*", "1.*", "1.bias", "3.*", "*.weight"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 0.1)])
def test_blocks_of_a_network_without_forward_mode(problem, parameters, precision, tolerance, generator, caplog):
    plain = problem(lambda: classified(conv(), nn.GroupNorm(2, 2), nn.SiLU(), conv(), nn.Mish())).in_torchs_order
    operator = HessianOperator(
        plain.model, plain.inputs, plain.targets, chunk_size=3, parameters=parameters, precision=precision
    )
    names = operator.layout.names
    state = {name: torch.full_like(p, float(name in names)) for name, p in plain.model.named_parameters()}
    chosen = plain.flat(state).bool()
    block = plain.hessian(plain.weights)[chosen][:, chosen]
    vectors = torch.randn(len(block), 3, generator=generator, dtype=torch.float64)
    product = operator @ vectors.to(operator.dtype)
    assert (product - block @ vectors).norm() < tolerance * (block @ vectors).norm()
    assert not caplog.records


def steps(build):
    # On the meta device nothing is drawn from the global generator.
    with torch.device("meta"):
        return steps_of(build().eval())


def operations_of(build):
    return [type(step.operation) for step in steps(build)]


def test_layers_in_which_networks_spend_their_time_have_rules_of_their_own():
    layers = [nn.Dropout(), nn.ReLU(), nn.MaxPool2d(2), nn.Identity(), nn.Flatten()]
    # The pool goes first: less is left for the ReLU.
    assert operations_of(lambda: nn.Sequential(conv(), *layers, head(18))) == [
        Convolution,
        MaxPool2d,
        Relu,
        LinearMap,
        Dense,
    ]


def test_an_identity_between_a_relu_and_a_pool_does_not_keep_them_apart():
    layers = [nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2), nn.Flatten()]
    assert operations_of(lambda: nn.Sequential(*layers)) == [MaxPool2d, Relu, LinearMap]


def test_a_relu_that_others_read_stays_where_it_is():
    network = Network(lambda m, x: m.pool(y := m.relu(x)) + y[:, :, :3, :3], relu=nn.ReLU(), pool=nn.MaxPool2d(2))
    assert operations_of(lambda: network)[:2] == [Relu, MaxPool2d]


def test_a_tangent_is_overwritten_only_where_nothing_else_holds_it():
    owners = [
        (step.owns_tangent, step.owns_adjoint)
        for step in steps(lambda: nn.Sequential(conv(), nn.ReLU(), nn.Flatten(), nn.ReLU(), head()))
    ]
    # The second ReLU is given a view; the first gets back what the flattening was given.
    assert [owns_tangent for owns_tangent, _ in owners] == [False, True, True, False, True]
    assert [owns_adjoint for _, owns_adjoint in owners] == [True, False, True, True, True]


@pytest.mark.parametrize("name", ["control flow", "overwritten and read again"])
def test_networks_without_a_list_of_operations_are_told(name):
    with pytest.raises(UntraceableError), torch.device("meta"):
        ROperator(UNTRACED[name]().eval(), [True] * 4, CrossEntropy())


class TwoInputs(nn.Module):
    """Needs more than the examples."""

    def forward(self, images, scales):
        return images * scales


def test_a_network_of_two_inputs_is_told():
    with pytest.raises(UntraceableError, match="scales"):
        steps_of(TwoInputs())


def test_a_network_that_gives_no_tensor_is_told():
    with pytest.raises(UntraceableError, match="a single tensor"):
        steps(lambda: Network(lambda m, x: (m.conv(x), x), conv=conv()))
