"""The networks: their sizes, their structure and the statistics of their first weights."""

import math

import pytest
import torch
from torch import nn

from sharpness.data.catalogue import FACTS
from sharpness.study import networks
from sharpness.training import models


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def num_weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "input_shape", "num_classes", "expected"),
    [
        ("simple_cnn", (3, 32, 32), 10, 361_898),
        ("simple_cnn", (3, 32, 32), 100, 373_508),
        ("simple_cnn_medium", (3, 32, 32), 10, 2_399_518),
        ("simple_cnn_medium", (3, 32, 32), 100, 2_411_128),
        ("simple_cnn_medium", (1, 28, 28), 10, 2_164_118),
        ("resnet32", (3, 32, 32), 10, 465_674),
        ("resnet32", (3, 32, 32), 100, 471_524),
        ("resnet32_bn", (3, 32, 32), 10, 467_946),
        ("resnet8", (1, 16, 16), 10, 77_418),
        ("vgg11", (3, 32, 32), 10, 9_750_922),
        ("vgg11_bn", (3, 32, 32), 10, 9_758_480),
    ],
)
def test_number_of_weights_is_that_of_the_authors_networks(name, input_shape, num_classes, expected):
    model = models.build(name, input_shape, num_classes, generator=stream())
    assert num_weights(model) == expected
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_simple_cnn_with_same_padding_has_more_weights():
    assert num_weights(models.build("simple_cnn", padding="same", generator=stream())) == 591_274


@pytest.mark.parametrize("padding", ["alternating", "same"])
@pytest.mark.parametrize("name", ["simple_cnn", "simple_cnn_medium"])
def test_simple_cnn_pads_as_asked(name, padding):
    convolutions = [layer for layer in models.build(name, padding=padding) if isinstance(layer, nn.Conv2d)]
    expected = ["same", "valid", "same", "valid"] if padding == "alternating" else ["same"] * 4
    assert [layer.padding for layer in convolutions] == expected


@pytest.mark.parametrize(
    ("name", "padding", "expected"),
    [
        ("simple_cnn", "alternating", 10),  # 10 -> 8 -> 4 -> 2 -> 1
        ("simple_cnn_medium", "alternating", 16),  # 16 -> 12 -> 6 -> 2 -> 1
        ("simple_cnn", "same", 4),
        ("simple_cnn_medium", "same", 4),
        ("resnet8", "alternating", 1),
        ("resnet32", "alternating", 1),
        ("resnet32_bn", "alternating", 1),
        ("vgg11", "alternating", 32),
        ("vgg11_bn", "alternating", 32),
    ],
)
def test_smallest_image_works_and_one_pixel_less_is_one_clear_error(name, padding, expected):
    assert models.smallest_size(name, padding) == expected
    model = models.build(name, (2, expected, expected + 1), 7, padding=padding).eval()
    assert model(torch.zeros(3, 2, expected, expected + 1)).shape == (3, 7)
    if expected > 1:
        shape = f"2x{expected}x{expected - 1}"
        with pytest.raises(ValueError, match=rf"{name} .*{shape}: .*{expected}x{expected}"):
            models.build(name, (2, expected, expected - 1), 7, padding=padding)


def test_inputs_larger_than_cifar_work():
    assert models.build("vgg11_bn", (3, 64, 96)).eval()(torch.zeros(1, 3, 64, 96)).shape == (1, 10)
    assert models.build("resnet8", (1, 33, 47)).eval()(torch.zeros(1, 1, 33, 47)).shape == (1, 10)


def test_resnet32_has_fifteen_blocks_with_a_convolution_on_two_shortcuts():
    model = models.build("resnet32")
    blocks = [layer for layer in model.modules() if isinstance(layer, models.ResidualBlock)]
    assert len(blocks) == 15
    shortcuts = {index: block.shortcut for index, block in enumerate(blocks) if num_weights(block.shortcut)}
    assert list(shortcuts) == [5, 10]
    for shortcut in shortcuts.values():
        assert shortcut.kernel_size == (1, 1)
        assert shortcut.stride == (2, 2)
        assert shortcut.bias is not None
    assert all(layer.bias is not None for layer in model.modules() if isinstance(layer, nn.Conv2d))
    assert num_weights(blocks[0].shortcut) == 0


@pytest.mark.parametrize("batch_norm", [False, True])
def test_shortcut_takes_the_input_before_its_activation(batch_norm):
    block = models.ResidualBlock(4, 4, stride=1, batch_norm=batch_norm)
    for convolution in (layer for layer in block.residual if isinstance(layer, nn.Conv2d)):
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    inputs = torch.randn(2, 4, 5, 5, generator=stream())  # of both signs

    torch.testing.assert_close(block(inputs), inputs, rtol=0, atol=0)


def test_resnet_is_the_sum_of_shortcut_and_residual_written_out_by_hand():
    model = models.build("resnet8", (1, 16, 16), generator=stream()).double()
    inputs = torch.randn(2, 1, 16, 16, generator=stream(1), dtype=torch.float64)
    weights = list(model.parameters())  # (kernel, bias) of each layer in the order of the network, shortcut last
    layers = [(weights[index], weights[index + 1]) for index in range(0, len(weights), 2)]

    values = torch.conv2d(inputs, *layers[0], padding=1)
    position = 1
    for stride in (1, 2, 2):
        residual = torch.conv2d(values.relu(), *layers[position], stride=stride, padding=1)
        residual = torch.conv2d(residual.relu(), *layers[position + 1], padding=1)
        position += 2
        if stride == 2:
            values = torch.conv2d(values, *layers[position], stride=2)
            position += 1
        values = values + residual
    kernel, bias = layers[position]
    expected = values.relu().mean(dim=(2, 3)) @ kernel.T + bias

    torch.testing.assert_close(model(inputs), expected)


@pytest.mark.parametrize(("name", "expected"), [("resnet32", 0), ("resnet32_bn", 31), ("vgg11", 0), ("vgg11_bn", 11)])
def test_number_of_batch_norms(name, expected):
    norms = [layer for layer in models.build(name).modules() if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert len(norms) == expected
    for norm in norms:
        assert (norm.eps, norm.momentum) == (1e-3, 0.01)
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()
        assert (norm.running_mean == 0).all()
        assert (norm.running_var == 1).all()
        assert norm.num_batches_tracked == 0


def test_vgg_normalises_its_input_and_has_no_dropout():
    model = models.build("vgg11_bn")
    assert isinstance(model[0], nn.BatchNorm2d)
    assert not any(isinstance(layer, nn.Dropout) for layer in model.modules())


def kernels(model: nn.Module, kind: type[nn.Module]) -> list[torch.Tensor]:
    return [layer.weight.detach().double() for layer in model.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize("name", ["simple_cnn", "simple_cnn_medium", "vgg11", "vgg11_bn"])
def test_kernels_start_uniform_within_the_limit_of_glorot(name):
    model = models.build(name, generator=stream())
    for kernel in kernels(model, nn.Conv2d) + kernels(model, nn.Linear):
        area = kernel[0, 0].numel()
        limit = math.sqrt(6 / (kernel.shape[0] * area + kernel.shape[1] * area))
        assert kernel.abs().max() <= limit * (1 + 1e-6)
        # For n uniform numbers: mean square limit^2/3 with standard error limit^2 sqrt(4/45/n), five of them.
        error = limit**2 * math.sqrt(4 / 45 / kernel.numel())
        assert kernel.square().mean().item() == pytest.approx(limit**2 / 3, abs=5 * error)
        assert kernel.mean().item() == pytest.approx(0, abs=5 * limit / math.sqrt(3 * kernel.numel()))


@pytest.mark.parametrize(
    ("name", "init_scale", "expected_scale"),
    [("resnet32", None, 1 / 15), ("resnet32", 1 / 32, 1 / 32), ("resnet32_bn", None, 1), ("resnet8", None, 1 / 3)],
)
def test_convolutions_of_a_resnet_start_with_the_scaled_variance_of_he_cut_at_two_sigma(
    name, init_scale, expected_scale
):
    # The variance of a standard normal distribution cut at two, from its density, against the rounded constant.
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    cut_std = math.sqrt(1 - 4 * density / math.erf(math.sqrt(2)))

    for kernel in kernels(models.build(name, init_scale=init_scale, generator=stream()), nn.Conv2d):
        std = math.sqrt(2 * expected_scale / kernel[0].numel())
        assert kernel.abs().max() <= 2 * std / cut_std * (1 + 1e-6)
        # Five standard errors of a normal distribution, whose fourth moment is larger.
        assert kernel.square().mean().item() == pytest.approx(std**2, rel=5 * math.sqrt(2 / kernel.numel()))


def test_cut_normal_distribution_reaches_its_limit():
    kernel = torch.cat([kernel.flatten() / kernel.square().mean().sqrt() for kernel in big_kernels("resnet32_bn")])
    assert kernel.abs().max().item() == pytest.approx(2 / 0.8796, rel=0.02)  # 2.27, not the 1.73 of a uniform one


def big_kernels(name: str) -> list[torch.Tensor]:
    return [kernel for kernel in kernels(models.build(name, generator=stream()), nn.Conv2d) if kernel.numel() > 30_000]


def test_dense_layer_of_a_resnet_is_glorots_whatever_the_scale():
    small, large = (models.build("resnet32", init_scale=scale, generator=stream()) for scale in (0.01, 1))
    limit = math.sqrt(6 / (64 + 10))
    for model in (small, large):
        assert 0.9 * limit < model[-1].weight.abs().max() <= limit
    torch.testing.assert_close(small[0].weight * 10, large[0].weight)


@pytest.mark.parametrize("name", models.NAMES)
def test_biases_start_at_zero(name):
    for layer in models.build(name, generator=stream()).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert (layer.bias == 0).all()


@pytest.mark.parametrize("name", models.NAMES)
def test_weights_follow_from_the_generator_and_leave_the_global_one_alone(name):
    before = torch.get_rng_state()
    first, again, other, fixed, fixed_again = (
        nn.utils.parameters_to_vector(models.build(name, generator=generator).parameters())
        for generator in (stream(1), stream(1), stream(2), None, None)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(fixed, fixed_again)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.device.type == "cpu"
    assert first.dtype == torch.float32
    assert first.isfinite().all()


def test_two_models_share_one_generator_and_differ():
    generator = stream()
    first, second = (models.build("resnet8", generator=generator) for _ in range(2))
    assert not torch.equal(first[0].weight, second[0].weight)


@pytest.mark.parametrize("name", models.NAMES)
def test_gradient_reaches_every_weight(name):
    model = models.build(name, generator=stream())
    model(torch.randn(4, 3, 32, 32, generator=stream(1))).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'resnet50'.*simple_cnn, .*vgg11_bn"):
        models.build("resnet50")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet32", {"padding": "same"}, "padding .*'same' for resnet32"),
        ("simple_cnn", {"padding": "valid"}, "padding .*'valid'"),
        ("simple_cnn", {"init_scale": 0.5}, "init_scale .*0.5 for simple_cnn"),
        ("resnet32", {"init_scale": 0.0}, "init_scale must be positive, got 0.0"),
        ("resnet32", {"num_classes": 0}, "at least one"),
    ],
)
def test_setting_that_does_not_apply_is_an_error(name, settings, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, **settings)


@pytest.mark.parametrize("shape", [*{facts.input_shape for facts in FACTS.values()}, (2, 33, 41)], ids=str)
@pytest.mark.parametrize(
    ("name", "padding"),
    [*((name, "alternating") for name in models.NAMES), *((name, "same") for name in networks.SIMPLE_CNNS)],
)
def test_the_parameters_known_without_building_a_network_are_those_it_has(name, shape, padding):
    if min(shape[1:]) < networks.smallest_size(name, padding):
        with pytest.raises(ValueError, match="cannot work on images"):
            networks.check(name, shape, 7, padding, None)
        return
    model = models.build(name, shape, 7, padding=padding)
    sizes = {key: parameter.numel() for key, parameter in model.named_parameters()}
    assert list(networks.parameter_sizes(name, shape, 7, padding=padding).items()) == list(sizes.items())


@pytest.mark.parametrize("name", models.NAMES)
def test_the_smallest_batch_of_a_network_is_one_it_can_be_trained_on(name):
    model = models.build(name, (3, 32, 32)).train()
    smallest = networks.smallest_batch(name)
    assert model(torch.zeros(smallest, 3, 32, 32)).shape == (smallest, 10)
    if smallest > 1:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(torch.zeros(smallest - 1, 3, 32, 32))
