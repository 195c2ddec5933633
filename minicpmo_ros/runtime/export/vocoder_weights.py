"""The weights of a vocoder's assets by name, and what of them becomes tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.estimator import Estimator
from minicpmo_ros.model.flow.loader import load_flow
from minicpmo_ros.model.flow.network import published_name, published_shapes
from minicpmo_ros.model.flow.solver import table_times
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.hift.vocoder import Vocoder
from minicpmo_ros.model.hift.weights import PREFIX, load_vocoder
from minicpmo_ros.model.vocoder import FLOW, HIFT, VocoderConfig, hift_file
from minicpmo_ros.runtime.export.writer import Read
from minicpmo_ros.runtime.vocoder_stages import CONFIG, FlowTables


def read_assets(assets: Path, part: str) -> Read:
    """What reads the weights of "flow" or "hift", by their names behind FLOW or HIFT.

    Raises:
        CheckpointError: see `flow.loader.load_flow` and `hift.weights.load_vocoder`.
    """
    if part == "flow":
        state = load_flow(assets).state_dict()
        named = {FLOW + published_name(name): tensor for name, tensor in state.items()}
    else:
        state = load_vocoder(hift_file(assets)).state_dict()
        named = {HIFT + name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    return lambda name: named[name].numpy()


def read_config(assets: Path) -> VocoderConfig:
    """Of assets, which are converted (`model.converted`) where they were not yet.

    Raises:
        CheckpointError: see `read_assets`.
    """
    if (found := VocoderConfig.of_conversions(assets)) is not None:
        return found
    flow = load_flow(assets).config
    hift = load_vocoder(hift_file(assets)).config
    return sized(flow, hift)


def sized(flow: FlowConfig, hift: HiftConfig) -> VocoderConfig:
    """Networks of these sizes, with the shapes of their weights."""
    shapes = {FLOW + name: shape for name, shape in published_shapes(flow).items()}
    with torch.device("meta"):
        state = Vocoder(hift).state_dict()
    shapes |= {HIFT + name.removeprefix(PREFIX): tuple(x.shape) for name, x in state.items()}
    return VocoderConfig(flow, hift, shapes)


def write_tables(read: Read, config: VocoderConfig, folder: Path) -> None:
    """`FlowTables`, and the sizes of the networks beside them."""

    def tensor(own: str) -> torch.Tensor:
        return torch.from_numpy(np.array(read(FLOW + published_name(own))))

    with torch.device("meta"):
        estimator = Estimator(config.flow)
    # Of the weights, only those that times meet.
    wanted = [name for name in estimator.state_dict() if "t_embedder" in name or "adaLN" in name]
    state = {name: tensor(f"estimator.{name}") for name in wanted}
    estimator.load_state_dict(state, assign=True, strict=False)
    times = table_times()
    with torch.inference_mode():
        layers, last = estimator.modulation(torch.from_numpy(times))
    voice = (tensor(f"voice.spk_embed_affine_layer.{kind}").numpy() for kind in ("weight", "bias"))
    FlowTables(times, layers.numpy(), last.numpy(), *voice).save(folder)
    config.save(folder / CONFIG)
