"""The published hift.pt as a vocoder: read once as data, then from a safetensors file beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.converted import made_of_weights
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.hift.vocoder import Vocoder
from minicpmo_ros.model.vocoder import HIFT_FILES, hift_file
from minicpmo_ros.model.weight_files import listed

PREFIX = "generator."
# Gain and direction of a normed weight, as older and as newer versions of torch call them.
NORMED = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def vocoder_file(assets: Path | str) -> Path:
    """See `model.vocoder.hift_file`."""
    return hift_file(Path(assets))


def load_vocoder(
    file: Path | str, cache: Path | str | None = None, device: torch.device | str = "cpu"
) -> Vocoder:
    """A vocoder in float32, without gradients and in evaluation mode.

    Args:
        file: hift.pt or hift_original.pt.
        cache: see `converted.made_of_weights`.

    Raises:
        CheckpointError: the file is no vocoder's, half of one, the causal one's of minicpmo-utils
            1.0.7, or wants code to be run; the message names the tensors.
    """
    file = Path(file)

    def simple(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        try:
            return folded(stored)
        except CheckpointError as error:
            raise CheckpointError(f"{file}: {error}") from None

    def made(weights: Mapping[str, Tensor]) -> Vocoder:
        return _filled(file, weights).to(device)

    return made_of_weights(file, made, None if cache is None else Path(cache), simple)


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix that some files have, and each gain and direction one weight.

    Raises:
        CheckpointError: a gain without direction, or the other way round.
    """
    plain = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    for gain_name, direction_name in NORMED:
        for name in [name for name in plain if name.endswith((gain_name, direction_name))]:
            if name not in plain:
                continue
            layer = name.removesuffix(gain_name).removesuffix(direction_name)
            halves = [plain.pop(layer + part, None) for part in (gain_name, direction_name)]
            if halves[0] is None or halves[1] is None:
                absent = layer + (gain_name if halves[0] is None else direction_name)
                raise CheckpointError(f"half of a normed weight is missing: {absent}")
            plain[f"{layer}weight"] = _normed(layer, halves[0], halves[1])
    return plain


def _normed(layer: str, gain: Tensor, direction: Tensor) -> Tensor:
    """torch.nn.utils.weight_norm, dim=0: one norm for each of the first dimension."""
    gain, direction = gain.to(torch.float32), direction.to(torch.float32)
    rows = (direction.shape[0], *[1] * (direction.ndim - 1))
    if direction.ndim < 2 or gain.shape != rows:
        raise CheckpointError(
            f"{layer}: its gain is {list(gain.shape)} and its direction {list(direction.shape)};"
            f" the gain should be {list(rows)}"
        )
    return direction * (gain / direction.flatten(1).norm(dim=1).view(rows))


def _filled(file: Path, weights: Mapping[str, Tensor]) -> Vocoder:
    """A vocoder with these weights, by the names of hift.pt."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    _refuse_causal(file, shapes)
    try:
        config = HiftConfig.from_shapes(shapes)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    with torch.device("meta"):
        vocoder = Vocoder(config)
    wanted = {_published(name): tensor.shape for name, tensor in vocoder.state_dict().items()}
    wrong = [
        f"{name} is {list(shapes[name])} instead of {list(wanted[name])}"
        for name in wanted.keys() & shapes.keys()
        if shapes[name] != tuple(wanted[name])
    ]
    kinds: tuple[tuple[str, Iterable[str]], ...] = (
        ("missing", wanted.keys() - shapes.keys()),
        ("unexpected", shapes.keys() - wanted.keys()),
        ("of another shape", wrong),
    )
    found = [(kind, list(names)) for kind, names in kinds]
    if problems := [f"{len(names)} {kind}: {listed(names)}" for kind, names in found if names]:
        raise CheckpointError(f"{file} does not fit the vocoder: {'; '.join(problems)}")
    state = {
        name: weights[_published(name)].to(torch.float32, copy=True).contiguous()
        for name in vocoder.state_dict()
    }
    vocoder.load_state_dict(state, assign=True)
    return vocoder.requires_grad_(False).eval()


def _published(name: str) -> str:
    """The name in hift.pt of a weight of `Vocoder`."""
    return name.removeprefix(PREFIX)


def _refuse_causal(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Its first layers look to one side only, so their kernels have other widths."""
    widths = [
        shapes.get(f"{name}.weight", (0,))[-1] for name in ("conv_pre", "f0_predictor.condnet.0")
    ]
    if widths == [5, 4]:
        raise CheckpointError(
            f"{file} has the weights of the causal vocoder that minicpmo-utils 1.0.7 brought, which"
            f" is not supported. {HIFT_FILES[0]} of the same folder is: load that, or the asset set"
            " of five files for minicpmo-utils 1.0.5 and 1.0.6"
        )
