"""Whatever torch and torchvision have: every layer, every family of networks, and networks drawn at random.

The right answers are those of torch alone, in double precision: the Hessian by differentiating twice backwards, or a
central difference of gradients where torch cannot, or does it wrongly.
"""

import copy
import inspect
import warnings

import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.linalg import eigvalsh
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations

from sharpness.eigen.lanczos import top_eigenpairs
from sharpness.hessian.operator import HessianOperator

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Torch:
    """The loss of a network on examples as torch has it, its gradient and its Hessian."""

    def __init__(self, model, inputs, targets):
        self.model, self.inputs, self.targets = model.double().eval(), inputs, targets
        self.parameters = list(model.parameters())

    def gradient(self, *, create_graph=False):
        loss = functional.cross_entropy(self.model(self.inputs), self.targets)
        parts = torch.autograd.grad(
            loss, self.parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
        return nn.utils.parameters_to_vector(part.contiguous() for part in parts)

    def product(self, vector):
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                inner = self.gradient(create_graph=True) @ vector
                if not inner.requires_grad:
                    return torch.zeros_like(vector)
                parts = torch.autograd.grad(inner, self.parameters, allow_unused=True, materialize_grads=True)
        finally:
            torch.backends.mha.set_fastpath_enabled(before)
        return nn.utils.parameters_to_vector(part.contiguous() for part in parts)

    def difference(self, vector):
        """A central difference of gradients, of fourth order."""
        weights = nn.utils.parameters_to_vector(self.parameters).detach()
        step = 1e-3 / float(vector.norm())

        def at(distance):
            nn.utils.vector_to_parameters(weights + distance * step * vector, self.parameters)
            return self.gradient()

        total = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
        nn.utils.vector_to_parameters(weights, self.parameters)
        return total

    def hessian(self):
        size = sum(parameter.numel() for parameter in self.parameters)
        return torch.stack([self.product(row) for row in torch.eye(size, dtype=torch.float64)])


def largest(operator, *, num_products=400, tolerance=1e-7):
    return top_eigenpairs(
        operator,
        num_pairs=1,
        tolerance=tolerance,
        max_products=min(num_products, 2 * operator.shape[0]),
        generator=torch.Generator().manual_seed(0),
    )


class Between(nn.Module):
    """A layer with weights before it and after it."""

    def __init__(self, before, layer, inputs, use=None):
        super().__init__()
        self.before, self.layer, self.use = before, layer, use
        self.after = nn.Identity()
        with torch.no_grad():
            width = self.double().eval()(inputs[:2]).size(1)
        self.after = nn.Linear(width, 3)

    def forward(self, inputs):
        values = self.before(inputs)
        values = self.layer(values) if self.use is None else self.use(self.layer, values)
        return self.after(values.flatten(1))


def twice_as_wide(layer, values):
    return layer(torch.cat([values, values.sin()], dim=1))


# What comes before a layer, and the shape of its examples.
BEFORE = {
    "rows": (lambda: nn.Linear(4, 6), (4,)),
    "sequence": (lambda: nn.Linear(4, 6), (5, 4)),
    "series": (lambda: nn.Conv1d(2, 4, 3, padding=1), (2, 6)),
    "image": (lambda: nn.Conv2d(2, 4, 3, padding=1), (2, 4, 4)),
    "volume": (lambda: nn.Conv3d(1, 4, 3, padding=1), (1, 4, 4, 4)),
    "small volume": (lambda: nn.Conv3d(1, 2, 3, padding=1), (1, 2, 2, 2)),
    "places": (nn.Identity, None),
}


def first(layer, values):
    return layer(values)[0]


def of_examples_second(layer, values):
    return layer(values.transpose(0, 1))[0].transpose(0, 1)


def with_itself(layer, values):
    return layer(values, values.cos())


def attending(layer, values):
    return layer(values, values, values, need_weights=False)[0]


def padded(axes):
    return lambda layer, values: layer(functional.pad(values, (0, 3) * axes))


def unpooled(pool, **settings):
    def use(layer, values):
        pooled, places = pool(values, 2, return_indices=True)
        return layer(pooled, places)

    return use


LAYERS = {
    **{
        name: ("rows", lambda name=name: getattr(nn, name)(), None)
        for name in (
            *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid"),
            *("Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink"),
            *("Softsign", "Tanh", "Tanhshrink"),
        )
    },
    **{
        name: ("rows", lambda name=name: getattr(nn, name)(1), None)
        for name in ("LogSoftmax", "Softmax", "Softmin", "GLU")
    },
    "Softmax2d": ("image", nn.Softmax2d, None),
    "Threshold": ("rows", lambda: nn.Threshold(0.1, 0.3), None),
    "Linear": ("rows", lambda: nn.Linear(6, 4), None),
    "LazyLinear": ("rows", lambda: nn.LazyLinear(4), None),
    "Bilinear": ("rows", lambda: nn.Bilinear(6, 6, 3), with_itself),
    "CosineSimilarity": ("sequence", lambda: nn.CosineSimilarity(2), with_itself),
    "PairwiseDistance": ("sequence", nn.PairwiseDistance, with_itself),
    "AdaptiveLogSoftmaxWithLoss": (
        "rows",
        lambda: nn.AdaptiveLogSoftmaxWithLoss(6, 7, [2, 4], div_value=2.0),
        lambda layer, values: layer.log_prob(values),
    ),
    "Conv1d": ("series", lambda: nn.Conv1d(4, 2, 3), None),
    "Conv2d": ("image", lambda: nn.Conv2d(4, 2, 3), None),
    "Conv3d": ("volume", lambda: nn.Conv3d(4, 2, 3), None),
    "ConvTranspose1d": ("series", lambda: nn.ConvTranspose1d(4, 2, 3, stride=2), None),
    "ConvTranspose2d": ("image", lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1), None),
    "ConvTranspose3d": ("small volume", lambda: nn.ConvTranspose3d(2, 2, 2, stride=2), None),
    "LazyConv1d": ("series", lambda: nn.LazyConv1d(2, 3), None),
    "LazyConv2d": ("image", lambda: nn.LazyConv2d(2, 3), None),
    "LazyConv3d": ("volume", lambda: nn.LazyConv3d(2, 3), None),
    "LazyConvTranspose1d": ("series", lambda: nn.LazyConvTranspose1d(2, 3), None),
    "LazyConvTranspose2d": ("image", lambda: nn.LazyConvTranspose2d(2, 3), None),
    "LazyConvTranspose3d": ("small volume", lambda: nn.LazyConvTranspose3d(2, 2), None),
    "BatchNorm1d": ("series", lambda: nn.BatchNorm1d(4), None),
    "BatchNorm2d": ("image", lambda: nn.BatchNorm2d(4), None),
    "BatchNorm3d": ("small volume", lambda: nn.BatchNorm3d(2), None),
    "LazyBatchNorm1d": ("series", lambda: nn.LazyBatchNorm1d(), None),
    "LazyBatchNorm2d": ("image", lambda: nn.LazyBatchNorm2d(), None),
    "LazyBatchNorm3d": ("small volume", lambda: nn.LazyBatchNorm3d(), None),
    "SyncBatchNorm": ("image", lambda: nn.SyncBatchNorm(4), None),
    "InstanceNorm1d": ("series", lambda: nn.InstanceNorm1d(4, affine=True), None),
    "InstanceNorm2d": ("image", lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), None),
    "InstanceNorm3d": ("small volume", lambda: nn.InstanceNorm3d(2), None),
    "LazyInstanceNorm1d": ("series", lambda: nn.LazyInstanceNorm1d(affine=True), None),
    "LazyInstanceNorm2d": ("image", lambda: nn.LazyInstanceNorm2d(affine=True), None),
    "LazyInstanceNorm3d": ("small volume", lambda: nn.LazyInstanceNorm3d(affine=True), None),
    "GroupNorm": ("image", lambda: nn.GroupNorm(2, 4), None),
    "LayerNorm": ("image", lambda: nn.LayerNorm((4, 4)), None),
    "RMSNorm": ("rows", lambda: nn.RMSNorm(6), None),
    "LocalResponseNorm": ("image", lambda: nn.LocalResponseNorm(2, alpha=0.5), None),
    "CrossMapLRN2d": ("image", lambda: nn.CrossMapLRN2d(3, alpha=0.5), None),
    "MaxPool1d": ("series", lambda: nn.MaxPool1d(2), None),
    "MaxPool2d": ("image", lambda: nn.MaxPool2d(2), None),
    "MaxPool3d": ("volume", lambda: nn.MaxPool3d(2), None),
    "AdaptiveMaxPool1d": ("series", lambda: nn.AdaptiveMaxPool1d(4), None),
    "AdaptiveMaxPool2d": ("image", lambda: nn.AdaptiveMaxPool2d(3), None),
    "AdaptiveMaxPool3d": ("small volume", lambda: nn.AdaptiveMaxPool3d(1), None),
    "FractionalMaxPool2d": ("image", lambda: nn.FractionalMaxPool2d(2, 3), padded(2)),
    "FractionalMaxPool3d": ("volume", lambda: nn.FractionalMaxPool3d(2, 3), padded(3)),
    "LPPool1d": ("series", lambda: nn.LPPool1d(2, 2), None),
    "LPPool2d": ("image", lambda: nn.LPPool2d(2, 2), None),
    "LPPool3d": ("volume", lambda: nn.LPPool3d(2, 2), None),
    "MaxUnpool1d": ("series", lambda: nn.MaxUnpool1d(2), unpooled(functional.max_pool1d)),
    "MaxUnpool2d": ("image", lambda: nn.MaxUnpool2d(2), unpooled(functional.max_pool2d)),
    "MaxUnpool3d": ("small volume", lambda: nn.MaxUnpool3d(2), unpooled(functional.max_pool3d)),
    "Embedding": ("places", lambda: nn.Embedding(4, 3, padding_idx=1), None),
    "EmbeddingBag": ("places", lambda: nn.EmbeddingBag(4, 3, mode="max"), None),
    "RNN": ("sequence", lambda: nn.RNN(6, 2, 2, batch_first=True), first),
    "LSTM": ("sequence", lambda: nn.LSTM(6, 2, bidirectional=True, proj_size=1), of_examples_second),
    "GRU": ("sequence", lambda: nn.GRU(6, 2, batch_first=True), first),
    "RNNCell": ("rows", lambda: nn.RNNCell(6, 3), None),
    "LSTMCell": ("rows", lambda: nn.LSTMCell(6, 3), first),
    "GRUCell": ("rows", lambda: nn.GRUCell(6, 3), None),
    "MultiheadAttention": ("sequence", lambda: nn.MultiheadAttention(6, 2, batch_first=True), attending),
    "TransformerEncoderLayer": ("sequence", lambda: nn.TransformerEncoderLayer(6, 2, 4, batch_first=True), None),
    "TransformerEncoder": (
        "sequence",
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 4, batch_first=True), 1),
        None,
    ),
    "TransformerDecoderLayer": (
        "sequence",
        lambda: nn.TransformerDecoderLayer(6, 2, 4, batch_first=True, activation="gelu"),
        with_itself,
    ),
    "TransformerDecoder": (
        "sequence",
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(6, 3, 4, batch_first=True), 1),
        with_itself,
    ),
    "Transformer": ("sequence", lambda: nn.Transformer(6, 2, 1, 1, 4, batch_first=True), with_itself),
    # Not classes, but layers that users make.
    "weight norm": ("rows", lambda: parametrizations.weight_norm(nn.Linear(6, 4)), None),
    "spectral norm": ("rows", lambda: parametrizations.spectral_norm(nn.Linear(6, 4)), None),
    **{
        f"orthogonal by {how}": (
            "rows",
            lambda how=how: parametrizations.orthogonal(nn.Linear(6, 4), orthogonal_map=how),
            None,
        )
        for how in ("matrix_exp", "cayley", "householder")
    },
}
# Neither weights nor a nonlinearity: reshapes, linear maps without weights, what holds others, and dropout: it is off.
NEITHER = {
    *("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d"),
    *("ChannelShuffle", "Flatten", "Unflatten", "Fold", "Unfold", "PixelShuffle", "PixelUnshuffle", "Identity"),
    *(
        f"{kind}Pad{axes}d"
        for kind in ("Circular", "Constant", "Reflection", "Replication", "Zero")
        for axes in (1, 2, 3)
    ),
    *("Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"),
    *("AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"),
    *(
        "Module",
        "ModuleDict",
        "ModuleList",
        "Container",
        "Sequential",
        "ParameterDict",
        "ParameterList",
        "DataParallel",
    ),
    *("RNNBase", "RNNCellBase"),  # not to be used by themselves
}
# Losses take targets: they come after a network, and the loss here is the cross-entropy.
LOSSES = {name for name, _ in inspect.getmembers(nn, inspect.isclass) if "Loss" in name and name not in LAYERS}
# What has no Hessian, or none that torch can tell, and the sentence that says so.
REFUSED = {
    "FractionalMaxPool2d": (ValueError, "gives other logits when it is called again"),
    "FractionalMaxPool3d": (ValueError, "gives other logits when it is called again"),
    "CrossMapLRN2d": (RuntimeError, r"derivative of layer \(CrossMapLRN2d\) "),
}
# At these weights gradients have no derivative: a padding that moves is none, nor is a sign that is rounded.
KINKED = {"Embedding", "orthogonal by householder"}
# Where torch has no second derivative, or a wrong one.
BY_DIFFERENCES = {"Hardsigmoid", "EmbeddingBag", "weight norm"}


def test_every_layer_of_torch_is_swept():
    layers = {name for name, kind in inspect.getmembers(nn, inspect.isclass) if issubclass(kind, nn.Module)}
    assert layers - set(LAYERS) - NEITHER - LOSSES == set()
    assert layers | {"LinearCrossEntropyLoss"} >= NEITHER | LOSSES


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_of_torch(name):
    kind, make, use = LAYERS[name]
    generator = torch.Generator().manual_seed(1)
    before, shape = BEFORE[kind]
    if shape is None:
        inputs = torch.randint(4, (5, 4), generator=generator)
    else:
        inputs = torch.randn(5, *shape, generator=generator, dtype=torch.float64)
    targets = torch.arange(5) % 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Between(before(), make(), inputs, use)
    if name in REFUSED:
        error, sentence = REFUSED[name]
        with pytest.raises(error, match=sentence):
            HessianOperator(model, inputs, targets)
        return

    theirs = Torch(model, inputs, targets)
    operator = HessianOperator(model, inputs, targets, precision="float64", chunk_size=3)

    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
    by_difference = theirs.difference(vector)
    expected, tolerance = (by_difference, 1e-8) if name in BY_DIFFERENCES else (theirs.product(vector), 1e-10)
    assert (operator @ vector - expected).norm() <= tolerance * expected.norm()
    if name not in KINKED:
        assert (operator @ vector - by_difference).norm() <= 1e-6 * expected.norm()
    if name not in BY_DIFFERENCES:
        assert_has_the_largest_eigenvalue(operator, theirs)


def assert_has_the_largest_eigenvalue(operator, theirs):
    dense = theirs.hessian()
    eigenvalues = eigvalsh(((dense + dense.T) / 2).numpy())
    found = largest(operator)
    scale = max(abs(eigenvalues[0]), abs(eigenvalues[-1]))
    assert abs(float(found.eigenvalues[0]) - eigenvalues[-1]) <= 1e-6 * scale


def vision(name, **settings):
    return lambda: torchvision.models.get_model(name, weights=None, num_classes=3, **settings)


# A family's smallest network, narrowed where its constructor allows, and the smallest images that it takes.
FAMILIES = {
    "alexnet": (lambda: with_a_small_head(torchvision.models.AlexNet(num_classes=3), 256), (3, 63, 63)),
    "convnext": (
        lambda: torchvision.models.ConvNeXt(
            [
                torchvision.models.convnext.CNBlockConfig(8, 16, 1),
                torchvision.models.convnext.CNBlockConfig(16, None, 1),
            ],
            num_classes=3,
        ),
        (3, 32, 32),
    ),
    "densenet": (
        lambda: torchvision.models.DenseNet(4, (2, 2, 2, 2), 8, num_classes=3, memory_efficient=True),
        (3, 32, 32),
    ),
    "efficientnet": (vision("efficientnet_b0"), (3, 32, 32)),
    "googlenet": (vision("googlenet", aux_logits=False, init_weights=False), (3, 32, 32)),
    "inception": (vision("inception_v3", aux_logits=False, init_weights=False), (3, 75, 75)),
    "maxvit": (
        lambda: small_maxvit(),
        (3, 32, 32),
    ),
    "mnasnet": (vision("mnasnet0_5"), (3, 32, 32)),
    "mobilenetv2": (vision("mobilenet_v2", width_mult=0.25), (3, 32, 32)),
    "mobilenetv3": (vision("mobilenet_v3_small", width_mult=0.25), (3, 32, 32)),
    "regnet": (
        lambda: torchvision.models.RegNet(
            torchvision.models.regnet.BlockParams.from_init_params(4, 8, 8.0, 2.0, 8, se_ratio=0.25), num_classes=3
        ),
        (3, 32, 32),
    ),
    "resnet": (
        lambda: torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1] * 4, num_classes=3),
        (3, 16, 16),
    ),
    "resnext": (
        lambda: torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=3, groups=4, width_per_group=4
        ),
        (3, 32, 32),
    ),
    "shufflenetv2": (vision("shufflenet_v2_x0_5"), (3, 32, 32)),
    "squeezenet": (vision("squeezenet1_1"), (3, 32, 32)),
    "swin": (
        lambda: torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [1, 2], [2, 2], num_classes=3),
        (3, 32, 32),
    ),
    "swin v2": (
        lambda: torchvision.models.SwinTransformer(
            [4, 4],
            8,
            [2, 2],
            [1, 2],
            [2, 2],
            num_classes=3,
            block=torchvision.models.swin_transformer.SwinTransformerBlockV2,
            downsample_layer=torchvision.models.swin_transformer.PatchMergingV2,
        ),
        (3, 32, 32),
    ),
    "vgg": (lambda: small_vgg(), (3, 32, 32)),
    "vision transformer": (
        lambda: torchvision.models.VisionTransformer(16, 8, 2, 2, 8, 16, num_classes=3),
        (3, 16, 16),
    ),
    "r3d": (
        lambda: torchvision.models.video.VideoResNet(
            torchvision.models.video.resnet.BasicBlock,
            [torchvision.models.video.resnet.Conv2Plus1D] * 4,
            [1, 1, 1, 1],
            torchvision.models.video.resnet.BasicStem,
            num_classes=3,
        ),
        (3, 2, 8, 8),
    ),
}


def small_maxvit():
    return torchvision.models.MaxVit(
        (32, 32), 8, 4, [8, 16], [1, 1], head_dim=4, stochastic_depth_prob=0.2, num_classes=3
    )


def small_vgg():
    """The layers of VGG-11 in an eighth of its width."""
    layers = torchvision.models.vgg.make_layers([8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"])
    return with_a_small_head(torchvision.models.VGG(layers, num_classes=3), 64)


def with_a_small_head(model, width):
    """In place of dense layers of 4,096 units."""
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Sequential(nn.Dropout(), nn.Linear(width, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, 3))
    return model


class Clamped(nn.Module):
    """Hardsigmoid, of which torch has no second derivative."""

    def forward(self, values):
        return (values / 6 + 0.5).clamp(0, 1)


class ByInstance(nn.Module):
    """Instance norm, whose gradient by torch is wrong where what comes after it transposes axes."""

    def __init__(self, layer):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, images):
        centred = images - images.mean((2, 3), keepdim=True)
        normalised = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        return normalised * self.weight[:, None, None] + self.bias[:, None, None]


class ByChannel(nn.Module):
    """Batch norm with moving statistics, whose gradient by torch is wrong for values of transposed axes."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.weight, self.bias = [layer], layer.weight, layer.bias

    def forward(self, images):
        (layer,) = self.layer
        deviation = (layer.running_var.to(images) + layer.eps).sqrt()
        normalised = (images - layer.running_mean.to(images)[:, None, None]) / deviation[:, None, None]
        return normalised * self.weight[:, None, None] + self.bias[:, None, None]


def with_what_torch_can(model):
    """A copy whose Hessian torch has."""
    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Hardsigmoid):
            model.set_submodule(name, Clamped())
        elif isinstance(layer, nn.InstanceNorm2d):
            model.set_submodule(name, ByInstance(layer))
        elif isinstance(layer, nn.BatchNorm2d):
            model.set_submodule(name, ByChannel(layer))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_torchvision(name):
    make, shape = FAMILIES[name]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
    inputs = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 2])
    theirs = Torch(with_what_torch_can(model), inputs, targets)
    operator = HessianOperator(model, inputs, targets, precision="float64")

    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
    expected = theirs.product(vector)
    assert (operator @ vector - expected).norm() <= 1e-10 * expected.norm()
    if operator.shape[0] > 10_000_000:
        return  # Inception: a matter of minutes, and of no other operation
    found = largest(operator, num_products=6, tolerance=1e-3)
    direction, eigenvalue = found.eigenvectors[0], found.eigenvalues[0]
    image = theirs.product(direction)
    torch.testing.assert_close(direction @ image, eigenvalue, rtol=1e-9, atol=1e-12)


ACTIVATIONS = (
    "ReLU",
    "Tanh",
    "GELU",
    "SiLU",
    "ELU",
    "Softplus",
    "Hardswish",
    "Mish",
    "Sigmoid",
    "LeakyReLU",
    "Softsign",
)


@st.composite
def networks(draw):
    """Images [2, 4, 4] to three classes through one to four blocks, some of them twice or around a shortcut."""
    layers, width = [nn.Conv2d(2, 2, 3, padding=1)], 2
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["conv", "norm", "activation", "shortcut", "attention", "pool", "gate", "twice"]))
        if kind == "conv":
            groups = draw(st.sampled_from([1, width]))
            layers.append(nn.Conv2d(width, width, draw(st.sampled_from([1, 3])), padding="same", groups=groups))
        elif kind == "norm":
            layers.append(
                draw(
                    st.sampled_from(
                        [nn.BatchNorm2d(width), nn.GroupNorm(1, width), nn.InstanceNorm2d(width, affine=True)]
                    )
                )
            )
        elif kind == "activation":
            layers.append(getattr(nn, draw(st.sampled_from(ACTIVATIONS)))())
        elif kind == "pool":
            layers.append(draw(st.sampled_from([nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.LPPool2d(2, 1)])))
        elif kind == "attention":
            layers.append(Pixels(nn.MultiheadAttention(width, 1, batch_first=True)))
        else:
            inner = nn.Sequential(nn.Conv2d(width, width, 1), getattr(nn, draw(st.sampled_from(ACTIVATIONS)))())
            layers.append(Combined(inner, kind))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(draw(st.integers(1, 2))), nn.Flatten())


class Pixels(nn.Module):
    """Attention among the pixels of an image."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, images):
        rows = images.flatten(2).transpose(1, 2)
        return self.layer(rows, rows, rows)[0].transpose(1, 2).reshape(images.shape)


class Combined(nn.Module):
    """A layer with a shortcut around it, as a gate, or twice in a row."""

    def __init__(self, layer, kind):
        super().__init__()
        self.layer, self.kind = layer, kind

    def forward(self, images):
        if self.kind == "shortcut":
            return images + self.layer(images)
        if self.kind == "gate":
            return images * self.layer(images).sigmoid()
        return self.layer(self.layer(images))


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(body=networks(), num_examples=st.integers(1, 5), seed=st.integers(0, 2**20))
def test_networks_drawn_at_random(body, num_examples, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num_examples, 2, 4, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (num_examples,), generator=generator)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)
        for layer in body.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        model = nn.Sequential(body.double().eval(), nn.Linear(body(inputs).size(1), 3))
    theirs = Torch(with_what_torch_can(model), inputs, targets)

    operator = HessianOperator(model, inputs, targets, precision="float64")

    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
    expected = theirs.product(vector)
    assert (operator @ vector - expected).norm() <= 1e-10 * expected.norm()
    assert_has_the_largest_eigenvalue(operator, theirs)
