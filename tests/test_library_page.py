"""The library's page: each of its blocks runs as it stands, and what it says of them is so."""

import re

import pytest
import torch
from pages import DOCS, run_page


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the page's blocks define, run from top to bottom in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.chdir(tmp_path_factory.mktemp("page"))
        return run_page("library.md")


def columns(operator):
    return operator @ torch.eye(operator.shape[0])


def test_every_block_runs(names):
    assert names["pairs"].residuals.max() < 1e-3


def test_the_answer_does_not_depend_on_how_data_are_given(names):
    torch.testing.assert_close(columns(names["same"]), columns(names["operator"]), rtol=1e-4, atol=1e-6)


def test_a_loader_that_shuffles_is_refused_in_the_words_of_the_page(names):
    page = (DOCS / "library.md").read_text(encoding="utf-8")
    (quoted,) = re.findall(r"print\(refusal\)  # (.*?) \.\.\.", page)
    loader = names["DataLoader"](names["loader"].dataset, batch_size=64, shuffle=True)
    with pytest.raises(ValueError, match=re.escape(quoted)):
        names["HessianOperator"](names["model"], loader)


def test_curvatures_are_what_the_page_says(names):
    gauss_newton, covariance = columns(names["gauss_newton"]), columns(names["covariance"])
    for matrix in (gauss_newton, covariance):
        torch.testing.assert_close(matrix, matrix.T, rtol=1e-3, atol=1e-6)
        assert torch.linalg.eigvalsh(matrix.double())[0] > -1e-6 * matrix.norm()
    assert torch.linalg.eigvalsh(columns(names["hessian"]).double())[0] < -1e-4


def test_blocks_of_parameters_are_those_of_the_whole(names):
    whole = columns(names["trained"])  # which is all here
    torch.testing.assert_close(columns(names["block"]), whole[144:, 144:], rtol=1e-3, atol=1e-6)
    assert names["several"].layout.names == ("0.weight", "2.weight", "2.bias")
    assert names["trained"].shape == names["operator"].shape
