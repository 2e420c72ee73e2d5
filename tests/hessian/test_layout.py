"""A flat vector and the named tensors in it are two ways of seeing the same memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sharpness.hessian.layout import Layout
from sharpness.hessian.loss import flatten

shapes = st.lists(st.lists(st.integers(1, 4), max_size=5).map(tuple), min_size=1, max_size=5)


def tensors_of(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    return {f"layer{i}.weight": torch.randn(shape, generator=generator) for i, shape in enumerate(shapes)}


@given(shapes, st.integers(0, 2**32), st.booleans())
def test_views_of_a_flat_vector_are_the_tensors_it_was_made_of(shapes, seed, channels_last):
    tensors = tensors_of(shapes, seed)
    layout = Layout.of(tensors, channels_last=channels_last)
    flat = layout.flat(list(tensors.values()))

    assert flat.shape == (layout.size,)
    named = layout.named(flat)
    assert list(named) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(named[name], tensor)
    assert torch.equal(layout.flat(layout.views(flat)), flat)


@given(shapes, st.integers(0, 2**32), st.booleans())
def test_views_share_the_memory_of_the_vector_and_cover_each_entry_once(shapes, seed, channels_last):
    layout = Layout.of(tensors_of(shapes, seed), channels_last=channels_last)
    flat = torch.zeros(layout.size)
    for view in layout.views(flat):
        view += 1
    assert torch.equal(flat, torch.ones(layout.size))


@given(shapes, st.integers(0, 2**32), st.booleans())
def test_torchs_order_is_that_of_its_own_functions(shapes, seed, channels_last):
    tensors = tensors_of(shapes, seed)
    inside = Layout.of(tensors, channels_last=channels_last)
    outside = inside.in_torchs_order
    vector = parameters_to_vector(tensors.values())
    assert torch.equal(outside.flat(list(tensors.values())), vector)
    within = outside.converted(vector, inside)
    assert torch.equal(within, inside.flat(list(tensors.values())))
    assert torch.equal(inside.converted(within, outside), vector)
    places = [torch.empty(tensor.shape) for tensor in tensors.values()]
    vector_to_parameters(inside.converted(within, outside), places)
    assert all(torch.equal(place, tensor) for place, tensor in zip(places, tensors.values(), strict=True))


def test_only_four_dimensional_kernels_change_their_order_where_channels_are_last():
    tensors = {"conv1d": torch.arange(24.0).view(2, 3, 4), "conv2d": torch.arange(120.0).view(2, 3, 4, 5)}
    layout = Layout.of(tensors, channels_last=True)
    flat = layout.flat(list(tensors.values()))
    assert torch.equal(flat[:24], torch.arange(24.0))
    assert torch.equal(flat[24:], torch.einsum("oihw->ohwi", tensors["conv2d"]).flatten())
    kernel = layout.named(flat)["conv2d"]
    assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_the_vector_has_no_graph():
    model = nn.Conv2d(2, 3, 3)
    assert not Layout.of(dict(model.named_parameters())).flat(list(model.parameters())).requires_grad
    assert not flatten(model)[0].requires_grad


def test_no_tensors_are_an_empty_vector():
    layout = Layout.of({})
    assert layout.size == 0
    assert layout.views(torch.empty(0)) == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["0.weight", "0.bias", "10.weight"]),
        ("0.*", ["0.weight", "0.bias"]),
        ("*.weight", ["0.weight", "10.weight"]),
        ("[!0].*", []),
        ("?0.weight", ["10.weight"]),
        ("0.Bias", []),
    ],
)
def test_patterns_choose_by_name_in_order(pattern, names):
    shapes = torch.Size([2, 3]), torch.Size([2]), torch.Size([1, 2])
    layout = Layout(("0.weight", "0.bias", "10.weight"), shapes, channels_last=True)
    if names:
        chosen = layout.matching(pattern)
        assert list(chosen.names) == names
        shapes = dict(zip(layout.names, layout.shapes, strict=True))
        assert chosen.size == sum(shapes[name].numel() for name in names)
        assert chosen.channels_last
    else:
        with pytest.raises(ValueError, match=r"no parameter matches .*, there are 0\.weight, 0\.bias, 10\.weight"):
            layout.matching(pattern)
