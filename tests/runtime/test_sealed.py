"""Files of tensors come back to the bit, or are refused by their name: no flipped bit and no cut goes unseen."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from sharpness.runtime.sealed import DamagedError, digest_of, open_sealed, save_sealed

TENSORS = {
    "weights": torch.tensor([0.1, -0.0, math.nan, math.inf]),
    "buffers": torch.zeros(0),
    "steps": torch.tensor([3, 5]),
    "loss": torch.tensor(2.5, dtype=torch.float64),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "low": torch.ones(2, 3, dtype=torch.bfloat16),
}
HEADER = {"run": {"seed": 0, "init": None, "epochs": (1, 2)}, "missing": {5: "stopped"}, "losses": [0.1, math.nan]}


def read(path):
    with open_sealed(path) as file:
        return file.header, {name: file.tensor(name) for name in file.digests}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "file.safetensors"
    save_sealed(TENSORS, HEADER, path)
    return path


def test_what_is_computed_from_a_file_has_the_bits_of_what_was_saved(tmp_path):
    """Their addresses decide which instructions multiply a matrix by one vector, and so the last bits."""
    generator = torch.Generator().manual_seed(0)
    tensors = {f"{length}": torch.randn(length, generator=generator) for length in range(64, 96)}
    save_sealed(tensors, {}, tmp_path / "file.safetensors")
    _, found = read(tmp_path / "file.safetensors")
    for name, tensor in tensors.items():
        assert found[name].data_ptr() % 64 == tensor.data_ptr() % 64 == 0
        vector = torch.randn(len(tensor), generator=generator)
        assert torch.equal(torch.dot(found[name], vector), torch.dot(tensor, vector))


def test_everything_comes_back_to_the_bit(written):
    header, tensors = read(written)
    assert json.dumps(header) == json.dumps(HEADER)
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert digest_of(tensors[name]) == digest_of(tensor)


def test_equal_contents_are_equal_files(written, tmp_path):
    save_sealed(TENSORS, HEADER, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == written.read_bytes()


@settings(max_examples=300)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unseen(written, tmp_path_factory, place, bit):
    contents = bytearray(written.read_bytes())
    contents[int(place * len(contents))] ^= 1 << bit
    path = tmp_path_factory.mktemp("flipped") / "file.safetensors"
    path.write_bytes(contents)
    with pytest.raises(DamagedError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path} ")
    assert "\n" not in str(refused.value)


@settings(max_examples=50)
@given(part=st.floats(0, 1, exclude_max=True))
def test_no_cut_goes_unseen(written, tmp_path_factory, part):
    path = tmp_path_factory.mktemp("cut") / "file.safetensors"
    contents = written.read_bytes()
    path.write_bytes(contents[: int(part * len(contents))])
    with pytest.raises(DamagedError, match="is damaged or cut short"):
        read(path)


def test_a_digest_is_of_type_and_shape_too():
    tensors = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.zeros(4).neg()]
    assert len({digest_of(tensor) for tensor in tensors}) == 4


@pytest.mark.parametrize("metadata", [None, {"other": "words"}, {"provenance": json.dumps({"run": 1})}])
def test_files_without_digests_are_refused(tmp_path, metadata):
    save_file({"weights": torch.ones(3)}, tmp_path / "old.safetensors", metadata=metadata)
    with pytest.raises(DamagedError, match="has no digest, as files of an older version"):
        read(tmp_path / "old.safetensors")


def test_a_tensor_that_was_taken_out_is_missed(written, tmp_path):
    with safe_open(written, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in ("weights", "steps")}
    save_file(tensors, tmp_path / "less.safetensors", metadata=metadata)
    with pytest.raises(DamagedError, match="its tensors are not those that were written"):
        read(tmp_path / "less.safetensors")
