"""A user's own network: by its own initialisation, and refused where memory was left as it was."""

import sys

import pytest
import torch

from sharpness.runtime import own
from sharpness.runtime.definitions import OwnError
from sharpness.training import own_network

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


@pytest.fixture
def write(own_folder):
    """Write the user's file; returns what builds its network."""

    def written(body: str, seed: int = 0, **arguments: object) -> torch.nn.Module:
        head = "import numpy as np\nimport torch\nfrom torch import nn\n\n\n"
        (own_folder / "nets.py").write_text(head + body)
        sys.modules.pop("nets", None)
        return own_network.build("nets.py:build", arguments, input_shape=(6,), num_classes=3, seed=seed)

    return written


def test_it_gets_its_arguments_and_the_shape_of_the_data_where_it_asks_for_it(write):
    body = (
        "def build(width, input_shape, num_classes=1):\n"
        "    return nn.Sequential(nn.Linear(input_shape[0], width), nn.Linear(width, num_classes))\n"
    )
    assert [tuple(weight.shape) for weight in write(body, width=5).parameters()] == [(5, 6), (5,), (3, 5), (3,)]
    assert next(write(body, width=5, input_shape=[4]).parameters()).shape == (5, 4)
    assert isinstance(
        write("def build(**others):\n    assert not others\n    return nn.Linear(2, 2)\n"), torch.nn.Linear
    )
    assert isinstance(
        write("class build(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n"), torch.nn.Linear
    )


def test_its_own_initialisation_follows_the_seed(write):
    body = (
        "def build():\n    layer = nn.Linear(3, 3)\n"
        "    layer.bias.data += torch.from_numpy(np.random.rand(3))\n    return layer\n"
    )
    first, again, other = write(body), write(body), write(body, seed=1)
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)
    assert not torch.equal(first.bias, other.bias)
    assert first.weight.dtype == torch.float32


LEFT = {
    "torch.empty": "    net.extra = nn.Parameter(torch.empty(3))\n",
    "torch.Tensor": "    net.extra = nn.Parameter(torch.Tensor(3))\n",
    "empty_like": "    net.extra = nn.Parameter(torch.empty_like(net.bias))\n",
    "new_empty": "    net.extra = nn.Parameter(net.bias.new_empty(3))\n",
    "to_empty": "    net.extra = nn.LayerNorm(3, device='meta').to_empty(device='cpu')\n",
    "in part": "    net.extra = nn.Parameter(torch.empty(3))\n    net.extra.data[:2] = 0\n",
    "numpy": "    net.extra = nn.Parameter(torch.from_numpy(np.empty(3, dtype='f4')))\n",
    "a buffer": "    net.register_buffer('extra', torch.empty(3))\n",
    "a buffer of whole numbers": "    net.register_buffer('extra', torch.empty(3, dtype=torch.long))\n",
    "meta": "    net.extra = nn.Parameter(torch.zeros(3, device='meta'))\n",
    "random by the clock": "    net.extra = nn.Parameter(torch.from_numpy(np.random.default_rng().random(3)))\n",
}


@pytest.mark.parametrize("how", LEFT)
def test_memory_that_no_initialiser_filled_is_refused_by_its_name(write, how):
    body = f"def build():\n    net = nn.Linear(3, 3)\n{LEFT[how]}    return net\n"
    with pytest.raises(OwnError, match="extra") as told:
        write(body)
    assert str(told.value).startswith(str(own.folder() / "nets.py") + ", line 6: ")
    assert "\n" not in str(told.value)


def test_memory_that_was_filled_is_not_refused(write):
    body = (
        "def build():\n    net = nn.Linear(3, 3)\n"
        "    net.extra = nn.Parameter(nn.init.ones_(torch.empty(3)))\n    return net\n"
    )
    assert write(body).extra.sum() == 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def build():\n    return 3\n", "must return a torch.nn.Module, got int"),
        ("build = 3\n", "must be a function that returns a torch.nn.Module, got int"),
        ("def build(depth):\n    return nn.Linear(depth, 1)\n", "missing 1 required positional argument: 'depth'"),
        ("def build():\n    return nn.ReLU()\n", "has no parameters"),
        ("def build():\n    return nn.LazyLinear(3)\n", "has no shape yet"),
        ("def build():\n    raise KeyError('x')\n", "line 7: KeyError: 'x'"),
    ],
)
def test_what_returns_no_network_is_refused_in_one_sentence(write, body, said):
    with pytest.raises(OwnError) as told:
        write(body)
    assert said in str(told.value)
    assert "nets.py" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_frozen_parameter_is_refused_by_name_since_a_run_trains_all(write):
    body = "def build():\n    net = nn.Linear(6, 3)\n    net.bias.requires_grad_(False)\n    return net\n"
    with pytest.raises(OwnError, match=r"nets\.py, line 6: bias requires no gradient, but a run trains all parameters"):
        write(body)
