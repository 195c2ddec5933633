"""Linear layers whose weights lie in oneDNN's blocked order: for a network that stays on a CPU.

A plain weight is put in that order anew at every call, or multiplied without it. Measured on two
cores of an EPYC: a bfloat16 token takes half the time, a float32 prefill a third. It is a pass
over a loaded module, not part of the network: export takes the plain one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# How many rows oneDNN is told to expect: it decides the order, other numbers of rows work as well.
ROWS = 32


class PackedLinear(nn.Module):
    """As the linear layer it is made from; it has no parameters and cannot be moved or saved."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach(), ROWS)
        self.bias = None if plain.bias is None else plain.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def can_pack(weight: Tensor) -> bool:
    """Whether this machine has instructions for a weight of this dtype, and oneDNN uses them."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if weight.dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return weight.dtype == torch.float32


def pack(module: nn.Module) -> int:
    """Pack the linear layers below a module.

    Layers that cannot be packed on this machine remain as they are.

    Returns:
        How many were replaced.
    """
    return replace_linear(module, PackedLinear, lambda plain: can_pack(plain.weight))


def replace_linear(
    module: nn.Module,
    make: Callable[[nn.Linear], nn.Module],
    can: Callable[[nn.Linear], bool],
) -> int:
    """Replace linear layers below a module, one at a time, so that memory stays as it is.

    Returns:
        How many were replaced.
    """
    replaced = 0
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear and can(child):
            setattr(module, name, make(child))
            replaced += 1
        else:
            replaced += replace_linear(child, make, can)
    return replaced


def size_of(module: nn.Module) -> int:
    """Bytes of all weights below a module, packed or not."""
    plain = sum(one.nbytes for one in module.parameters())
    packed = (one for one in module.modules() if isinstance(one, PackedLinear))
    return plain + sum(
        one.weight.nbytes + (0 if one.bias is None else one.bias.nbytes) for one in packed
    )
