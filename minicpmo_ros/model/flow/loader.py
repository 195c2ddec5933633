"""flow.pt and flow.yaml of a checkpoint's assets/token2wav, made into a network that runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.converted import made_of_weights
from minicpmo_ros.model.flow.config import GUIDANCE, FlowConfig
from minicpmo_ros.model.flow.network import Flow, own_name, published_shapes
from minicpmo_ros.model.flow.settings import FlowSettings
from minicpmo_ros.model.vocoder import FLOW_FILE, FLOW_SETTINGS
from minicpmo_ros.model.weight_files import listed


def load_flow(
    directory: Path | str,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
) -> Flow:
    """The flow network in a directory.

    Args:
        directory: with flow.pt, or flow.safetensors that was made of it, and flow.yaml. Without
            the latter the published guidance holds; all sizes are those of the weights.
        cache: see `converted.made_of_weights`.

    Returns:
        Without gradients and in evaluation mode.

    Raises:
        CheckpointError: a file is missing, damaged, or not what the network needs; the message
            names tensors that are missing, left over, or of another shape.
    """
    file = Path(directory) / FLOW_FILE

    def made(tensors: Mapping[str, Tensor]) -> Flow:
        config = checked_config(file, tensors)
        with torch.device("meta"):
            flow = Flow(config)
        # Copies: what is read is mapped into memory, and the file may be replaced.
        state = {
            str(own_name(name)): x.to(dtype=dtype, device=device, copy=True)
            for name, x in tensors.items()
        }
        flow.load_state_dict(state, assign=True)
        return flow.requires_grad_(False).eval()

    return made_of_weights(file, made, cache)


def checked_config(file: Path, tensors: Mapping[str, Tensor]) -> FlowConfig:
    """What tensors of a file are for, held against each other and the settings beside the file.

    Raises:
        CheckpointError: see `load_flow`.
    """
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    beside = file.with_name(FLOW_SETTINGS)
    settings = FlowSettings(beside) if beside.exists() else None
    guidance = GUIDANCE if settings is None else settings.guidance
    try:
        config = FlowConfig.from_shapes(shapes, guidance)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    wanted = published_shapes(config)
    kinds = (
        ("missing", [name for name in wanted if name not in shapes]),
        ("unexpected", [name for name in shapes if name not in wanted]),
        (
            "of another shape",
            [
                f"{name} is {list(shapes[name])} instead of {list(shape)}"
                for name, shape in wanted.items()
                if shapes.get(name, shape) != shape
            ],
        ),
        ("no numbers", [name for name, x in tensors.items() if not x.is_floating_point()]),
    )
    if problems := [f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds if names]:
        raise CheckpointError(f"{file} does not fit the flow network: {'; '.join(problems)}")
    if settings is not None:
        settings.check(config)
    return config
