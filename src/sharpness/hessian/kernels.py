"""Decide which parameters of a network are kernels, to which L2 regularisation applies."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

_LINEAR_MAPS = (
    *(_ConvNd, nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase),
    *(nn.Embedding, nn.EmbeddingBag),  # linear maps of one-hot vectors
)
_SCALES = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)


def kernels_of(model: nn.Module) -> set[str]:
    """Return the names of the kernels among ``model.named_parameters()``, decided by the class of their module.

    Kernels are the weights of convolutions and linear maps, including transposed, bilinear and recurrent ones,
    attention projections and embeddings. Biases are not kernels, nor are scales: the weights of normalisation layers,
    of any shape, and of PReLU. In user-defined modules, and for parts of a parametrised weight, a parameter is a kernel
    if it has at least two axes longer than one, unless the module's name contains "norm".
    """
    modules = dict(model.named_modules())
    kernels = {
        id(parameter)
        for path, module in modules.items()
        for name, parameter in module.named_parameters(recurse=False)
        if _is_kernel(*_owner(modules, path, name), parameter)
    }
    return {name for name, parameter in model.named_parameters() if id(parameter) in kernels}


def _owner(modules: dict[str, nn.Module], path: str, name: str) -> tuple[nn.Module, str, bool]:
    """Return the module that uses a parameter, its name there, and whether it is part of a parametrised weight."""
    if not isinstance(modules[path], ParametrizationList):
        return modules[path], name, name in ("weight_g", "weight_v")
    *parents, _, tensor = path.split(".")
    return modules[".".join(parents)], tensor, name != "original"


def _is_kernel(module: nn.Module, name: str, is_part: bool, parameter: Tensor) -> bool:
    if "bias" in name or isinstance(module, _SCALES):
        return False
    if isinstance(module, _LINEAR_MAPS) and "weight" in name and not is_part:
        return True
    is_norm = "norm" in type(module).__name__.lower()
    return sum(length > 1 for length in parameter.shape) > 1 and not is_norm
