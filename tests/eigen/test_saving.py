"""Eigenpairs in files: what is read is what was saved, with its provenance; what is damaged is refused."""

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sharpness
from sharpness import load_pairs, top_eigenpairs


class Described:
    """A matrix that says what it is of."""

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, matrix):
        self.provenance = {"parameters": {"weight": [3, 4]}, "loss": "cross-entropy", "num_examples": 7}
        self._matrix, self.shape = matrix, tuple(matrix.shape)

    def __matmul__(self, vector):
        return self._matrix @ vector


@pytest.fixture
def pairs():
    return top_eigenpairs(Described(torch.diag(torch.arange(12.0, dtype=torch.float64))), 2, tolerance=1e-8)


def test_pairs_are_read_as_they_were_saved(tmp_path, pairs):
    path = tmp_path / "new" / "pairs.safetensors"
    pairs.save(path)
    read = load_pairs(str(path))

    for field in dataclasses.fields(pairs):
        saved, found = getattr(pairs, field.name), getattr(read, field.name)
        assert torch.equal(saved, found) if isinstance(saved, torch.Tensor) else saved == found, field.name
        assert type(found) is type(saved), field.name
    assert read.eigenvectors.dtype == torch.float64


def test_the_provenance_says_of_what_the_pairs_are_and_what_computed_them(tmp_path, pairs):
    pairs.save(tmp_path / "pairs.safetensors")
    said = load_pairs(tmp_path / "pairs.safetensors").provenance

    assert said["parameters"] == {"weight": [3, 4]}
    assert (said["loss"], said["num_examples"]) == ("cross-entropy", 7)
    assert said["versions"]["torch"] == torch.__version__
    assert set(said["versions"]) == {"torch", "sharpness"}


def test_numbers_that_are_infinite_or_unknown_survive(tmp_path, pairs):
    odd = dataclasses.replace(pairs, complete_beyond=math.inf, complete=None, smallest=-math.inf)
    odd.save(tmp_path / "pairs.safetensors")
    read = load_pairs(tmp_path / "pairs.safetensors")
    assert (read.complete_beyond, read.complete, read.smallest) == (math.inf, None, -math.inf)


def test_equal_pairs_make_equal_files(tmp_path, pairs):
    for name in ("one", "other"):
        pairs.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("place", [20, -5])
def test_a_damaged_file_is_refused(tmp_path, pairs, place):
    path = tmp_path / "pairs.safetensors"
    pairs.save(path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"pairs.safetensors is damaged.*compute the pairs anew"):
        load_pairs(path)


def test_other_files_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors"):
        load_pairs(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError):
        load_pairs(tmp_path / "absent.safetensors")


WITHOUT = """
import sys
sys.modules["safetensors"] = None
import torch, sharpness
pairs = sharpness.top_eigenpairs(torch.diag(torch.arange(5.0)), 1)
for call in (lambda: pairs.save("pairs"), lambda: sharpness.load_pairs("pairs")):
    try:
        call()
    except ModuleNotFoundError as error:
        assert str(error) == "eigenpairs are kept in safetensors files: pip install safetensors", error
    else:
        raise AssertionError
"""


@pytest.mark.slow
def test_without_safetensors_a_sentence_says_what_to_install(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(sharpness.__file__).parents[1])}
    command = [sys.executable, "-c", WITHOUT]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
