"""What can be measured: one job is one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.machine import MALLOC, ONE_THREAD

Part = Literal["train", "cost", "reference", "spectrum", "step", "matvec"]

NETWORKS = {"simple_cnn": "SimpleCNN", "resnet32": "ResNet-32", "resnet18": "ResNet-18"}
# Larger ones, on a page of their own, with a name and what an example is.
LARGER = {"gpt": ("GPT", "sequences of 128 tokens"), "resnet18_64": ("ResNet-18", "images of 64x64")}

TRAINED = ("simple_cnn", "resnet32")  # those whose training is timed

# By the name of a tool in the table: what it is, in words.
TOOLS = {
    "ours float32": "this project, float32, residual 1e-3",
    "ours tf32": "this project, TensorFloat-32 products, certified in float32, residual 1e-3",
    "ours bfloat16": "this project, bfloat16 passes, certified in float32, residual 1e-2",
    "scipy LM": "scipy eigsh with defaults (which='LM') in float32 over double backward: the authors' way",
    "scipy LA": "scipy eigsh with which='LA' over double backward",
    "curvlinops": "curvlinops 3.0.1 into eigsh, both with defaults: ARPACK in double precision on float32 products",
    "eigenthings": "hessian-eigenthings 1.0.0a5, Lanczos with max_iter=50 (5 k for k above 10)",
    "curvlinops 1e-3": "curvlinops 3.0.1 into eigsh with tol=1e-3",
    "eigenthings 1e-3": "hessian-eigenthings 1.0.0a5, Lanczos with max_iter=50, tol=1e-3",
    "pyhessian": "PyHessian 0.1 with defaults, data loader",
    "pyhessian one batch": "PyHessian 0.1 with defaults, all examples as one batch, whose graph it keeps",
}
PRODUCTS = ("gradient", "double backward", "ours float32", "ours bfloat16")
RATES = ("ours float32", "ours bfloat16")

NUM_EXAMPLES = 512
CHUNK_SIZE = 256


@dataclass(frozen=True)
class Job:
    """One measurement, and everything that tells it from the others."""

    part: Part
    network: str
    tool: str = ""
    num_examples: int = NUM_EXAMPLES
    num_pairs: int = 10
    round: int = 0
    verify: bool = True  # compute residuals anew
    malloc: bool = False  # with settings of glibc's malloc, for all tools alike

    @property
    def row(self) -> str:
        """The file that it leaves, in the folder of all of them."""
        return f"rows/{str(self).replace(' ', '-')}.json"

    @property
    def log(self) -> str:
        """The file with what it said: where it has one and no row, it failed or was stopped."""
        return f"logs/{str(self).replace(' ', '-')}.log"

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that it has and a user does not: settings of malloc, or one thread."""
        return {**(MALLOC if self.malloc else {}), **(ONE_THREAD if self.network in LARGER else {})}

    @property
    def setting(self) -> tuple[str, int, int]:
        """What all tools have in common."""
        return self.network, self.num_examples, self.num_pairs

    def __str__(self) -> str:
        words = [self.part, self.network, self.tool]
        words += ["malloc"] if self.malloc else []
        words += [f"N={self.num_examples}", f"k={self.num_pairs}", f"round {self.round}"]
        return " ".join(word for word in words if word)


def title(setting: tuple[str, int, int]) -> str:
    """A setting in words."""
    network, num_examples, num_pairs = setting
    return f"{NETWORKS[network]}, {num_examples} examples, k={num_pairs}"
