"""Random weights of the flow network in the published layout, of any size, from a seed.

As in `model.tiny`, every tensor follows from the seed, its name and its shape alone.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minicpmo_ros.model.flow.config import ConformerConfig, EstimatorConfig, FlowConfig
from minicpmo_ros.model.flow.network import Flow, own_name, published_shapes

TINY = FlowConfig(
    tokens=6561,
    mels=16,
    voice=12,
    conformer=ConformerConfig(
        hidden=32, heads=4, ffn=48, layers=3, up_layers=2, look_ahead=3, up=2
    ),
    estimator=EstimatorConfig(hidden=24, heads=2, head_dim=8, ffn=48, layers=2, kernel=3),
)
PUBLISHED = FlowConfig(
    tokens=6561,
    mels=80,
    voice=192,
    conformer=ConformerConfig(
        hidden=512, heads=8, ffn=2048, layers=6, up_layers=4, look_ahead=3, up=2
    ),
    estimator=EstimatorConfig(hidden=512, heads=8, head_dim=64, ffn=2048, layers=16, kernel=3),
)


def tensor(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 values of one tensor: what is multiplied with keeps the size of what it is given,
    gains lie about 1, all other vectors about 0."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    normal = random.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        gain = 1.0 if name.endswith("weight") else 0.0
        return (gain + 0.1 * normal).astype(np.float32)
    if name.endswith((".weight", "_u", "_v")) and not name.startswith("input_embedding"):
        fan_in = int(np.prod(shape[1:]))
        return (normal / np.sqrt(fan_in)).astype(np.float32)
    return normal


def weights(config: FlowConfig, seed: int = 0) -> dict[str, Tensor]:
    """What flow.pt holds: float32, by published names."""
    shapes = published_shapes(config)
    return {name: torch.from_numpy(tensor(seed, name, shape)) for name, shape in shapes.items()}


def random_flow(config: FlowConfig = TINY, seed: int = 0) -> Flow:
    """The network with these weights, in float32 on the CPU, ready to run."""
    flow = Flow(config)
    flow.load_state_dict({str(own_name(name)): x for name, x in weights(config, seed).items()})
    return flow.requires_grad_(False).eval()


def write_flow(directory: Path | str, config: FlowConfig = TINY, seed: int = 0) -> Path:
    """Write flow.pt and flow.yaml as they are published, into a directory that is made if needed.

    Returns:
        The directory.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(weights(config, seed), directory / "flow.pt")
    (directory / "flow.yaml").write_text(_yaml(config), encoding="utf-8")
    return directory


def _yaml(config: FlowConfig) -> str:
    conformer, estimator = config.conformer, config.estimator
    return f"""\
flow: !new:cosyvoice2.flow.flow.CausalMaskedDiffWithXvec
  input_size: {conformer.hidden}
  output_size: {config.mels}
  spk_embed_dim: {config.voice}
  output_type: 'mel'
  vocab_size: {config.tokens}
  encoder: !new:cosyvoice2.transformer.upsample_encoder_v2.UpsampleConformerEncoderV2
    input_size: {conformer.hidden}
    output_size: {conformer.hidden}
    input_layer: 'linear'
    pre_lookahead_len: {conformer.look_ahead}
    num_blocks: {conformer.layers}
    num_up_blocks: {conformer.up_layers}
    up_stride: {conformer.up}
    up_scale_factor: {conformer.up}
    attention_heads: {conformer.heads}
    pos_enc_layer_type: 'rel_pos_espnet'
    selfattention_layer_type: 'rel_selfattn'
    key_bias: {str(conformer.key_bias).lower()}
    linear_units: {conformer.ffn}
    dropout_rate: 0.1
    positional_dropout_rate: 0.1
    attention_dropout_rate: 0.1
    normalize_before: true
  decoder: !new:cosyvoice2.flow.flow_matching.CausalConditionalCFM
    inference_cfg_rate: {config.guidance}
    estimator: !new:cosyvoice2.flow.decoder_dit.DiT
      in_channels: {4 * config.mels}
      out_channels: {config.mels}
      mlp_ratio: {estimator.ffn / estimator.hidden}
      depth: {estimator.layers}
      num_heads: {estimator.heads}
      head_dim: {estimator.head_dim}
      hidden_size: {estimator.hidden}
"""
