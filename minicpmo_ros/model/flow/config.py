"""Sizes of the flow network. The shapes of its weights tell them; flow.yaml is not needed for it.

Names of tensors here and everywhere below are those of the published flow.pt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from minicpmo_ros.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

ENCODER = "encoder."
ESTIMATOR = "decoder.estimator."
# Share of the unconditioned velocity that is taken away, if flow.yaml says nothing.
GUIDANCE = 0.7
# The code of silence, which stands for what a prompt does not say of the time after it.
SILENCE = 4218


@dataclass(frozen=True)
class ConformerConfig:
    """The encoder: `layers` at the rate of tokens, `up_layers` at that of frames."""

    hidden: int
    heads: int
    ffn: int
    layers: int
    up_layers: int
    look_ahead: int
    """Tokens that must be known after one before it can be encoded."""
    up: int
    """Frames for a token."""
    key_bias: bool = True


@dataclass(frozen=True)
class EstimatorConfig:
    """The diffusion transformer that tells a velocity from noise, time and condition."""

    hidden: int
    heads: int
    head_dim: int
    ffn: int
    layers: int
    kernel: int
    """Frames under each of a layer's two causal convolutions."""
    time_channels: int = 256


@dataclass(frozen=True)
class FlowConfig:
    """tokens: codes there are, 6561. mels: channels of a frame, 80. voice: numbers of a voice's
    vector, 192. guidance: see `solver.guided`."""

    tokens: int
    mels: int
    voice: int
    conformer: ConformerConfig
    estimator: EstimatorConfig
    guidance: float = GUIDANCE

    def __post_init__(self) -> None:
        for part in (self, self.conformer, self.estimator):
            for field in fields(part):
                value = getattr(part, field.name)
                if type(value) is int and value < (0 if field.name == "look_ahead" else 1):
                    raise CheckpointError(f"flow: {field.name} is {value}, not above 0")
        conformer = self.conformer
        if conformer.hidden % (2 * conformer.heads):
            raise CheckpointError(
                f"flow: the encoder's width, {conformer.hidden}, is not an even number for each of"
                f" its {conformer.heads} heads"
            )
        if not self.guidance >= 0:
            raise CheckpointError(f"flow: guidance is {self.guidance}, not 0 or more")

    @classmethod
    def from_shapes(cls, shapes: Shapes, guidance: float = GUIDANCE) -> FlowConfig:
        """What weights of these shapes are for.

        Raises:
            CheckpointError: a tensor that tells a size is missing or has another number of axes.
                Whether all others fit is for the loader to see.
        """

        def size(name: str, axis: int, axes: int) -> int:
            if name not in shapes:
                raise CheckpointError(
                    f"flow: tensor {name} is missing, so these are no weights of the flow network"
                )
            if len(shapes[name]) != axes:
                raise CheckpointError(
                    f"flow: tensor {name} is {list(shapes[name])}; it should have {axes} axes"
                )
            return shapes[name][axis]

        first = f"{ENCODER}encoders.0."
        up_kernel = size(f"{ENCODER}up_layer.conv.weight", 2, 3)
        if up_kernel % 2 == 0:
            raise CheckpointError(
                f"flow: {ENCODER}up_layer.conv.weight has a kernel of {up_kernel}; it should be"
                " twice the frames of a token, and one"
            )
        conformer = ConformerConfig(
            hidden=size(f"{ENCODER}embed.out.0.weight", 0, 2),
            heads=size(f"{first}self_attn.pos_bias_u", 0, 2),
            ffn=size(f"{first}feed_forward.w_1.weight", 0, 2),
            layers=_layers(shapes, f"{ENCODER}encoders."),
            up_layers=_layers(shapes, f"{ENCODER}up_encoders."),
            look_ahead=size(f"{ENCODER}pre_lookahead_layer.conv1.weight", 2, 3) - 1,
            up=up_kernel // 2,
            key_bias=f"{first}self_attn.linear_k.bias" in shapes,
        )
        block = f"{ESTIMATOR}blocks.0."
        head_dim = size(f"{block}attn.q_norm.weight", 0, 1)
        width = size(f"{block}attn.to_q.weight", 0, 2)
        if width % head_dim:
            raise CheckpointError(
                f"flow: {block}attn.to_q.weight makes {width} channels, which heads of {head_dim}"
                " do not divide"
            )
        estimator = EstimatorConfig(
            hidden=size(f"{ESTIMATOR}in_proj.weight", 0, 2),
            heads=width // head_dim,
            head_dim=head_dim,
            ffn=size(f"{block}mlp.fc1.weight", 0, 2),
            layers=_layers(shapes, f"{ESTIMATOR}blocks."),
            kernel=size(f"{block}conv.block.1.weight", 2, 3),
            time_channels=size(f"{ESTIMATOR}t_embedder.mlp.0.weight", 1, 2),
        )
        return cls(
            tokens=size("input_embedding.weight", 0, 2),
            mels=size("spk_embed_affine_layer.weight", 0, 2),
            voice=size("spk_embed_affine_layer.weight", 1, 2),
            conformer=conformer,
            estimator=estimator,
            guidance=guidance,
        )


def _layers(names: Iterable[str], prefix: str) -> int:
    numbers = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({found[1] for name in names if (found := numbers.match(name))})
