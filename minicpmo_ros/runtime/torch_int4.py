"""The language model in torch with its matrices in four bits, in the order torch's kernels read.

A pass over loaded modules, as `model.packed` is: the network knows nothing of it. What is
multiplied with four bits is bfloat16, and so is all else. CPUs and CUDA devices order the bits each
in their own way.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.packed import replace_linear
from minicpmo_ros.runtime.int4 import BLOCK, LOWEST, can_quantise, quantise

# The kernels want the number of outputs to be a multiple of this (8 would do on CUDA).
OUTPUTS = 16
# Outputs that are quantised and packed together, a thread's share. CPUs pack 64 and more together,
# so that packing by pieces gives what packing the whole would.
PIECE = 256
# How many times 16 inputs CUDA's kernel reads at a time: 128, a block, with 8.
CUDA_TILES = 8
# Older NVIDIA cards (Turing, Volta) have no instructions for bfloat16.
CAPABILITY = (8, 0)


class Int4Linear(nn.Module):
    """As the linear layer it is made from, with four bits a weight; it cannot be moved or saved.

    Args:
        plain: bfloat16, no bias, on the device where this one will stay; `can_quantise` its weight.
    """

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        weight = plain.weight.detach()
        device = weight.device
        self.outputs, inputs = weight.shape
        outputs = -(-self.outputs // OUTPUTS) * OUTPUTS
        if device.type == "cpu":
            packed = torch.empty(outputs, inputs // 2, dtype=torch.uint8)
        else:
            # As CUDA's kernel has it: [outputs / 8, inputs / 128, 32 threads, 4] of eight codes.
            shape = (outputs // 8, inputs // (16 * CUDA_TILES), 32, CUDA_TILES // 2)
            packed = torch.empty(shape, dtype=torch.int32, device=device)
        # A scale, and what is added to all weights of the block.
        scales = torch.zeros(inputs // BLOCK, outputs, 2, dtype=torch.bfloat16, device=device)
        together = outputs // len(packed)

        # Pieces that were kept until all are there would leave memory in pieces, too.
        def fill(start: int) -> None:
            codes, scale = _quantised(weight[start : start + PIECE])
            first = start // together
            packed[first : first + len(codes)] = codes
            scales[:, start : start + len(scale), 0] = scale.T

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            list(threads.map(fill, range(0, outputs, PIECE)))
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., inputs] bfloat16 -> [..., outputs] bfloat16."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        aten = torch.ops.aten
        on_cpu = x.device.type == "cpu"
        multiply = aten._weight_int4pack_mm_for_cpu if on_cpu else aten._weight_int4pack_mm
        found = multiply(rows, self.weight, BLOCK, self.scales)
        return found[:, : self.outputs].reshape(*x.shape[:-1], self.outputs)


def _quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Some rows of a matrix: packed for its device, and scales [rows, inputs / BLOCK] bfloat16.

    There may be more rows, of zeros.
    """
    device = weight.device
    whole = torch.zeros(-(-len(weight) // OUTPUTS) * OUTPUTS, weight.shape[1])
    whole[: len(weight)] = weight
    matrix = quantise(whole.numpy())
    codes = torch.from_numpy(matrix.codes - LOWEST)
    scales = torch.from_numpy(matrix.scales).to(torch.bfloat16)
    if device.type == "cpu":
        return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), 1), scales
    pairs = codes.to(device, torch.uint8)
    pairs = pairs[:, 0::2] << 4 | pairs[:, 1::2]
    return torch.ops.aten._convert_weight_to_int4pack(pairs, CUDA_TILES), scales


def to_int4(module: nn.Module) -> int:
    """Replace the linear layers below a module that blocks divide, one at a time.

    Returns:
        How many were replaced; the others, and those with a bias, remain as they are.
    """
    return replace_linear(module, Int4Linear, _can_have_four_bits)


def _can_have_four_bits(plain: nn.Linear) -> bool:
    bias: Tensor | None = plain.bias
    return bias is None and can_quantise(tuple(plain.weight.shape))


def check_device(device: torch.device) -> None:
    """Raise ConfigError where torch cannot multiply with four bits."""
    if not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
        raise ConfigError(f"precision 'int4' needs torch 2.6 or later, this is {torch.__version__}")
    if device.type != "cuda":
        return
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise ConfigError(
            f"precision 'int4' needs a card of compute capability {_dotted(CAPABILITY)} or higher,"
            f" {name} has {_dotted(found)}; there are fp16 and fp32"
        )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def load_llm(
    checkpoint: Checkpoint,
    device: torch.device,
    progress: Callable[[int], None] = lambda count: None,
    *,
    head: bool = True,
) -> Llm:
    """Load the language model layer by layer, each quantised before the next is read.

    So there is never more of it in memory than what it takes in the end and one layer in bfloat16,
    or, at first, its head.

    Args:
        head: also quantise the matrix that makes logits.

    Raises:
        CheckpointError: see `Checkpoint.load`.
    """
    with torch.device("meta"):
        llm = Llm(checkpoint.config.llm)

    def load(path: str) -> nn.Module:
        part = llm.get_submodule(path)
        return checkpoint.load(part, f"llm.{path}.", torch.bfloat16, device, progress)

    load("lm_head")
    if head and _can_have_four_bits(llm.lm_head):
        llm.lm_head = Int4Linear(llm.lm_head)  # type: ignore[assignment]
    for index in range(checkpoint.config.llm.layers):
        to_int4(load(f"model.layers.{index}"))
    load("model.norm")
    load("model.embed_tokens")
    return llm.eval()
