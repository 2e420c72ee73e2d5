"""What networks and data are called where people read."""

import pytest

from sharpness.data.catalogue import FACTS
from sharpness.study.naming import subject
from sharpness.study.networks import NAMES, TITLES


def test_names_the_network_its_data_and_how_many_images():
    assert subject("simple_cnn", "fashion_mnist", 5000) == "SimpleCNN, Fashion-MNIST, 5,000 images"
    assert subject("resnet32", "cifar10") == "ResNet-32, CIFAR-10"


@pytest.mark.parametrize("data", FACTS)
@pytest.mark.parametrize("model", NAMES)
def test_no_name_of_a_network_or_data_set_is_that_of_the_code(model, data):
    assert "_" not in subject(model, data, 45_000.0)


def test_every_network_has_a_title_of_its_own_and_an_unknown_one_keeps_its_name():
    assert set(TITLES) == set(NAMES)
    assert len(set(TITLES.values())) == len(TITLES)
    assert subject("mine", "yours", 10) == "mine, yours, 10 examples"
