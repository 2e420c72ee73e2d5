"""What `make bench` measures of spectra, the most important first."""

from __future__ import annotations

import torch

from benchmarks.jobs import Job
from sharpness.runtime.device import fast_precision

ROUNDS = 3  # of all that the page claims
_OURS = ("ours float32", "ours bfloat16")
_PEERS = ("scipy LM", "curvlinops", "eigenthings")


def jobs() -> list[Job]:
    """All jobs in the order in which they are done; bfloat16 last where the processor emulates it."""
    found = [*_preparation("simple_cnn"), *_rounds("simple_cnn", ("scipy LM", *_OURS, "curvlinops", "eigenthings"), 10)]
    found += [Job("reference", "simple_cnn")]
    found += _rounds("simple_cnn", ("ours float32",), 10, malloc=True, verify=False)
    found += _rounds("simple_cnn", _PEERS, 10, malloc=True, verify=False, rounds=1)
    found += _rounds("simple_cnn", (*_OURS, "scipy LM"), 1)
    found += [*_preparation("resnet32"), *_rounds("resnet32", ("ours float32",), 10)]
    found += _rounds("resnet32", ("ours bfloat16",), 10, rounds=1)
    found += _rounds("simple_cnn", _OURS, 10, examples=5_000, rounds=1, verify=False)
    found += _rounds("simple_cnn", _OURS, 2)
    found += _rounds("simple_cnn", _OURS, 50, rounds=1, verify=False)
    found += _rounds("simple_cnn", ("ours float32",), 10, examples=10_000, rounds=1, verify=False)
    found += [*_preparation("resnet18"), *_rounds("resnet18", ("scipy LM", "ours float32"), 5, examples=256)]
    found += [Job("cost", "simple_cnn", round=1), *_rounds("resnet32", ("scipy LM",), 10, rounds=1)]
    found += _rounds("simple_cnn", ("ours bfloat16",), 10, examples=10_000, rounds=1, verify=False)
    found += _rounds("simple_cnn", ("pyhessian",), 1)
    is_emulated = fast_precision(torch.device("cpu")) != "bfloat16"
    return sorted(found, key=lambda job: is_emulated and job.tool == "ours bfloat16")


# Of larger networks: pairs, examples, and CPU time after which a library is stopped.
LARGEST_PAIRS, LARGEST_EXAMPLES, MOST_CPU_SECONDS = 5, {"gpt": 16, "resnet18_64": 64}, 300
_ONE_PRODUCT = ("ours float32", "curvlinops", "eigenthings", "pyhessian")
_TOP = ("ours float32", "curvlinops 1e-3", "eigenthings 1e-3", "pyhessian")


def larger() -> list[Job]:
    """All jobs of larger networks, in the order in which they are done."""
    found = []
    for network, number in LARGEST_EXAMPLES.items():
        found += [Job("train", network), Job("step", network, "", number, LARGEST_PAIRS)]
        found += [Job("matvec", network, tool, number, LARGEST_PAIRS) for tool in _ONE_PRODUCT]
        found += [Job("spectrum", network, tool, number, LARGEST_PAIRS) for tool in _TOP]
    return found


def _preparation(network: str) -> list[Job]:
    return [Job("train", network), Job("cost", network)]


def _rounds(
    network: str,
    tools: tuple[str, ...],
    num_pairs: int,
    *,
    examples: int = 512,
    rounds: int = ROUNDS,
    verify: bool = True,
    malloc: bool = False,
) -> list[Job]:
    # The order turns from round to round: a slow drift of the machine falls on all.
    turned = [(number, tool) for number in range(rounds) for tool in tools[number:] + tools[:number]]
    return [
        # What other tools find is verified once: their settings are the same in all rounds.
        Job("spectrum", network, tool, examples, num_pairs, number, _is_verified(tool, number) and verify, malloc)
        for number, tool in turned
    ]


def _is_verified(tool: str, number: int) -> bool:
    return tool in _OURS or number == 0
