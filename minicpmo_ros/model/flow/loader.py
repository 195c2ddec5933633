"""flow.pt and flow.yaml of a checkpoint's assets/token2wav, made into a network that runs."""

from __future__ import annotations

from pathlib import Path

import torch

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.flow.config import GUIDANCE, FlowConfig
from minicpmo_ros.model.flow.converted import read_weights
from minicpmo_ros.model.flow.network import Flow, own_name, published_shapes
from minicpmo_ros.model.flow.settings import FlowSettings
from minicpmo_ros.model.weight_files import listed

WEIGHTS = "flow.pt"
SETTINGS = "flow.yaml"


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
        cache: see `converted.read_weights`.

    Returns:
        Without gradients and in evaluation mode.

    Raises:
        CheckpointError: a file is missing, damaged, or not what the network needs; the message
            names tensors that are missing, left over, or of another shape.
    """
    directory = Path(directory)
    tensors = read_weights(directory / WEIGHTS, cache)
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    file = directory / SETTINGS
    settings = FlowSettings(file) if file.exists() else None
    guidance = GUIDANCE if settings is None else settings.guidance
    try:
        config = FlowConfig.from_shapes(shapes, guidance)
    except CheckpointError as error:
        raise CheckpointError(f"{directory / WEIGHTS}: {error}") from None
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
        raise CheckpointError(
            f"{directory / WEIGHTS} does not fit the flow network: {'; '.join(problems)}"
        )
    if settings is not None:
        settings.check(config)
    with torch.device("meta"):
        flow = Flow(config)
    # Copies: what is read is mapped into memory, and the file may be replaced.
    state = {
        str(own_name(name)): x.to(dtype=dtype, device=device, copy=True)
        for name, x in tensors.items()
    }
    flow.load_state_dict(state, assign=True)
    return flow.requires_grad_(False).eval()
