"""Which parameters of a network are kernels: those that multiply values, and that L2 pulls on."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

_LINEAR_MAPS = (
    *(_ConvNd, nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase),
    *(nn.Embedding, nn.EmbeddingBag),  # a table is the kernel of a linear map of one-hot vectors
)
_SCALES = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)


def kernels_of(model: nn.Module) -> set[str]:
    """The names of the kernels among ``model.named_parameters()``, decided by the kind of module that has them.

    Kernels are the weights of convolutions and of linear maps: transposed, bilinear and recurrent ones, attention's
    projections and embeddings included. Biases are none, nor are scales: the weights of normalising layers, of whatever
    shape, and of PReLU. Of modules that torch does not have, and where a parametrisation takes a weight apart, a
    parameter is a kernel if it has more than one axis that is longer than one, unless the module is called a norm.
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
    """The module whose parameter this is, its name there, and whether it is one part of what the module uses."""
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
