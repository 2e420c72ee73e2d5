"""Which parameters a matrix has rows for: several patterns, what is trained, and ties by each of their names."""

import pytest
import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sharpness.hessian.operator import HessianOperator

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.hidden, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(self.hidden(self.table(tokens).mean(1)).tanh())


@pytest.fixture
def given():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = Tied().double()
    tokens = torch.arange(18).view(6, 3) % 5
    return model, tokens, torch.arange(6) % 5


def matrix(given, **settings):
    operator = HessianOperator(*given, precision="float64", **settings)
    return operator.layout.names, operator @ torch.eye(operator.shape[0], dtype=torch.float64)


CHOICES = {
    "one": ("hidden.*", ["hidden.weight", "hidden.bias"]),
    "several": (["hidden.bias", "head.b*"], ["hidden.bias", "head.bias"]),
    "in the network's order": (("head.bias", "hidden.bias"), ["hidden.bias", "head.bias"]),
    "overlapping": (["*.bias", "hidden.*"], ["hidden.weight", "hidden.bias", "head.bias"]),
    "first name of a tie": ("table.weight", ["table.weight"]),
    "other name of a tie": ("head.weight", ["table.weight"]),
    "all of a layer": (["head.*"], ["table.weight", "head.bias"]),
    "all": ("*", ["table.weight", "hidden.weight", "hidden.bias", "head.bias"]),
}


@pytest.mark.parametrize("kind", ["hessian", "ggn", "gradient_covariance"])
@pytest.mark.parametrize(("parameters", "names"), CHOICES.values(), ids=CHOICES)
def test_patterns_choose_a_block_in_the_networks_order(given, parameters, names, kind):
    every, whole = matrix(given, curvature=kind)
    sizes = [dict(given[0].named_parameters())[name].numel() for name in every]
    chosen = torch.cat([torch.full((size,), name in names) for name, size in zip(every, sizes, strict=True)])
    found, block = matrix(given, parameters=parameters, curvature=kind)
    assert list(found) == names
    torch.testing.assert_close(block, whole[chosen][:, chosen])


@pytest.mark.parametrize("word", ["trained", "what is trained", ["trained"]])
def test_what_is_trained_can_be_asked_for(given, word):
    given[0].hidden.weight.requires_grad_(False)
    given[0].table.weight.requires_grad_(False)
    found, block = matrix(given, parameters=word)
    assert list(found) == ["hidden.bias", "head.bias"]
    torch.testing.assert_close(block, matrix(given, parameters=["hidden.bias", "head.bias"])[1])
    assert list(matrix(given, parameters=["trained", "head.weight"])[0]) == ["table.weight", "hidden.bias", "head.bias"]


def test_what_matches_nothing_is_told(given):
    with pytest.raises(
        ValueError, match=r"no parameter matches 'hiden\.\*', there are table.weight, .*head.weight, and 'trained'$"
    ):
        matrix(given, parameters=["head.*", "hiden.*"])
    given[0].requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter is trained"):
        matrix(given, parameters="trained")
    for wrong in ([], 3, None, [3]):
        with pytest.raises(TypeError, match="parameters must be a pattern"):
            matrix(given, parameters=wrong)


def test_a_distributed_model_is_taken_as_it_is(given, tmp_path):
    model, tokens, labels = given
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        with torch.random.fork_rng(devices=[]):
            wrapped = DistributedDataParallel(model)
        expected = matrix(given)[1]
        batches = [(tokens[:4], labels[:4]), (tokens[4:], labels[4:])]
        for data in ((tokens, labels), batches):
            torch.testing.assert_close(matrix((wrapped, data))[1], expected)

        def loss(model, batch):
            return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])

        torch.testing.assert_close(matrix((wrapped, batches), loss=loss)[1], expected)
        torch.testing.assert_close(matrix((wrapped, {"tokens": tokens}, labels))[1], expected)
    finally:
        torch.distributed.destroy_process_group()
