"""The stages as graphs: plain tensors in, plain tensors out, nothing written in place, no batch.

A cache stays with the caller: for each layer a buffer [kv_heads, rows, head_dim] of keys and one of
values. A graph reads them as they are and gives back the rows of what it was given, which the
caller writes into its buffers. So no key is copied for a token: attention to the past and to the
new rows themselves are two products under one softmax.

Every matrix is multiplied with rows [T, inputs] by a linear layer of its own: that is what the
writer knows to quantise, and onnxruntime and TensorRT to keep packed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.model.audio import Audio, AudioLayer
from minicpmo_ros.model.decoder import head_norm
from minicpmo_ros.model.part_configs import LlmConfig, ResamplerConfig, SpeechConfig, VisionConfig
from minicpmo_ros.model.resampler import Resampler
from minicpmo_ros.model.rope import angles, rotate
from minicpmo_ros.model.sound_stream import POSITIONS_PER_SECOND
from minicpmo_ros.model.vision import Vision, VisionAttention, VisionLayer


class JointAttention(nn.Module):
    """As `model.decoder.Attention`, its first three matrices in one, over a cache of the caller."""

    def __init__(self, config: LlmConfig | SpeechConfig, norm_heads: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.qkv_proj = nn.Linear(config.hidden, queries + 2 * keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden, bias=False)
        self.q_norm, self.k_norm = (head_norm(config, norm_heads) for _ in "qk")

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        hide_past: Tensor,
        hide_own: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [T, hidden] to itself and to a cache: what comes out, and the keys and values of x,
        [kv_heads, T, head_dim]. Query heads that share a key head stand one after the other as more
        rows of queries."""
        tokens = x.shape[0]
        # Slices: split and chunk become sequences in a graph.
        whole = self.qkv_proj(x).view(tokens, -1, self.head_dim)
        q = rms_norm(self.q_norm, whole[:, : self.heads])
        own_k = rms_norm(self.k_norm, whole[:, self.heads : self.heads + self.kv_heads])
        own_v = whole[:, self.heads + self.kv_heads :].transpose(0, 1)
        q = rotate(q.transpose(0, 1), cos, sin).reshape(self.kv_heads, -1, self.head_dim)
        own_k = rotate(own_k.transpose(0, 1), cos, sin)
        out = _two_parts(q, own_k, own_v, hide_past, hide_own, k, v)
        return self.o_proj(_joined(out.view(-1, tokens, self.head_dim))), own_k, own_v


class JointMlp(nn.Module):
    """As `model.decoder.Mlp`, its first two matrices in one."""

    def __init__(self, config: LlmConfig | SpeechConfig) -> None:
        super().__init__()
        self.ffn = config.ffn
        self.gate_up_proj = nn.Linear(config.hidden, 2 * config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.gate_up_proj(x)
        return self.down_proj(F.silu(whole[:, : self.ffn]) * whole[:, self.ffn :])


class JointLayer(nn.Module):
    def __init__(self, config: LlmConfig | SpeechConfig, norm_heads: bool) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.self_attn = JointAttention(config, norm_heads)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.mlp = JointMlp(config)


# Matrices that are made of several of `model.decoder`, one below the other: fewer and larger
# products, and weights that are read in one go.
JOINED = {
    "self_attn.qkv_proj.weight": tuple(f"self_attn.{name}_proj.weight" for name in "qkv"),
    "mlp.gate_up_proj.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
}


class DecoderStep(nn.Module):
    """Some tokens through layers of a decoder, behind what their caches hold.

    Args:
        norm: end with the decoder's final norm.
    """

    def __init__(
        self, config: LlmConfig | SpeechConfig, norm_heads: bool, norm: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(JointLayer(config, norm_heads) for _ in range(config.layers))
        self.norm: nn.Module = nn.Identity()
        if norm:
            self.norm = nn.RMSNorm(config.hidden, config.norm_eps)

    def forward(
        self, embeds: Tensor, past: Tensor, caches: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """See the module's first lines.

        Args:
            embeds: [T, hidden]; or what the layers before these gave.
            past: int64 [1], rows of the caches that hold something.
            caches: k and v of each layer in turn: [kv_heads, rows, head_dim].

        Returns:
            Hidden states [T, hidden]; k and v of each layer in turn for the T tokens:
            [kv_heads, T, head_dim].
        """
        config = self.config
        own = torch.arange(embeds.shape[0], device=embeds.device)
        angle = angles(own + past, config.head_dim, config.rope_theta)
        cos, sin = angle.cos(), angle.sin()
        hide_past = hide(_filled(caches[0], past), embeds.dtype)
        causal = own <= own.unsqueeze(1)  # [T, T]
        hide_own = hide(causal, embeds.dtype).repeat(config.heads // config.kv_heads, 1)
        x = embeds
        rows: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, JointLayer)
            k, v = caches[2 * index], caches[2 * index + 1]
            normed = rms_norm(layer.input_layernorm, x)
            attended, own_k, own_v = layer.self_attn(normed, cos, sin, hide_past, hide_own, k, v)
            x = x + attended
            x = x + layer.mlp(rms_norm(layer.post_attention_layernorm, x))
            rows += [own_k, own_v]
        return rms_norm(self.norm, x), rows


class Head(nn.Module):
    """Hidden states [T, hidden] to logits [T, vocab] float32."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head(hidden).to(torch.float32)


class AudioStep(nn.Module):
    """One second of sound; as `model.audio.Audio.forward`, over caches of the caller.

    Args:
        half: it is for half precision, whose range Whisper's activations can leave: they are held
            below its end, whatever it is computed in.
    """

    HELD = 65504 - 1000

    def __init__(self, audio: Audio, half: bool = False) -> None:
        super().__init__()
        self.audio = audio
        self.half_range = half

    def forward(
        self, mel: Tensor, opening: Tensor, frames: Tensor, past: Tensor, caches: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """See the module's first lines.

        Args:
            mel: [mels, 104]; see `model.mel.StreamingMel`.
            opening: bool [1], nothing is before this second.
            frames: int64 [1], frames of this second that are sound: 100, or fewer in the last
                second of a whole sound.
            past: int64 [1], positions before this second, in the position table and the caches.
            caches: k and v of each layer in turn: [heads, rows, head_dim].

        Returns:
            Embeddings [50 / pool, llm_hidden]; k and v of each layer in turn: [heads, 50,
            head_dim].
        """
        apm, projection = self.audio.apm, self.audio.audio_projection_layer
        own = torch.arange(POSITIONS_PER_SECOND, device=mel.device)
        x = apm.window(mel, opening, frames)[0] + apm.embed_positions(own + past)
        hide_past = hide(_filled(caches[0], past), x.dtype)
        hide_own = hide(2 * own < frames, x.dtype)
        rows: list[Tensor] = []
        for index, layer in enumerate(apm.layers):
            assert isinstance(layer, AudioLayer)
            attention = layer.self_attn
            normed = layer.self_attn_layer_norm(x)
            q, own_k, own_v = (
                _heads(proj(normed), attention.heads)
                for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            k, v = caches[2 * index], caches[2 * index + 1]
            out = _two_parts(q, own_k, own_v, hide_past, hide_own, k, v)
            x = x + attention.out_proj(_joined(out))
            x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
            if self.half_range:
                x = x.clamp(-self.HELD, self.HELD)
            rows += [own_k, own_v]
        x = F.relu(projection.linear1(apm.layer_norm(x)))
        return projection.linear2(x.unflatten(0, (-1, projection.pool)).mean(1)), rows


class Look(nn.Module):
    """One slice of a picture, of any number of patches: `model.vision.VisionStage` without a batch.

    The resampler's joint matrix of queries, keys and values is three linear layers here.
    """

    def __init__(self, vision: VisionConfig, resampler: ResamplerConfig) -> None:
        super().__init__()
        self.vpm = Vision(vision)
        self.resampler = Resampler(resampler)
        del self.resampler.attn
        width = resampler.hidden
        self.heads = resampler.heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, pixels: Tensor, position_ids: Tensor, cells: Tensor) -> Tensor:
        """A slice as `model.picture.batch` lays it out.

        Args:
            pixels: [1, 3, patch, patch * P].
            position_ids: int64 [1, P].
            cells: int64 [1, P, 2].

        Returns:
            Embeddings [queries, llm_hidden].
        """
        x = self.vpm.embeddings(pixels, position_ids)[0]
        for layer in self.vpm.encoder.layers:
            assert isinstance(layer, VisionLayer)
            x = x + _vision_attention(layer.self_attn, layer.layer_norm1(x))
            x = x + layer.mlp(layer.layer_norm2(x))
        return self._resampled(self.vpm.post_layernorm(x), cells)

    def _resampled(self, features: Tensor, cells: Tensor) -> Tensor:
        stage = self.resampler
        x = stage.ln_kv(stage.kv_proj(features))
        k = x + stage.positions(cells)[0].to(x.dtype)
        q = stage.ln_q(stage.query)
        out = _attend(*(_heads(y, self.heads) for y in (self.q(q), self.k(k), self.v(x))))
        return stage.ln_post(self.out(_joined(out))) @ stage.proj


def rms_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """In single precision, and in the form that onnxruntime knows as one operation."""
    if not isinstance(norm, nn.RMSNorm):
        return norm(x)
    x32 = x.to(torch.float32)
    eps = norm.eps or 0.0
    normed = x32 / torch.sqrt(torch.mean(torch.pow(x32, 2), -1, keepdim=True) + eps)
    return normed.to(x.dtype) * norm.weight


def hide(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0 where seen, else so little that nothing is left of it. Not minus
    infinity, of which a row without anything seen would make NaN."""
    lowest = -1e4 if dtype == torch.float16 else -1e9
    return torch.where(seen, 0.0, lowest).to(dtype)


def _filled(cache: Tensor, past: Tensor) -> Tensor:
    """Which rows of a cache hold something: bool [rows]."""
    return torch.arange(cache.shape[1], device=cache.device) < past


def _heads(x: Tensor, heads: int) -> Tensor:
    """[T, heads * head_dim] to [heads, T, head_dim]."""
    return x.view(x.shape[0], heads, -1).transpose(0, 1)


def _joined(x: Tensor) -> Tensor:
    """[heads, T, head_dim] to [T, heads * head_dim]."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All to all: [heads, T, head_dim] and twice [heads, S, head_dim]."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(1, 2)
    return scores.to(torch.float32).softmax(-1).to(q.dtype) @ v


def _two_parts(
    q: Tensor,
    own_k: Tensor,
    own_v: Tensor,
    hide_past: Tensor,
    hide_own: Tensor,
    k: Tensor,
    v: Tensor,
) -> Tensor:
    """Attention of q [kv_heads, N, head_dim] to a cache [kv_heads, rows, head_dim] and to rows of
    its own; hide_past [rows] and hide_own [N or 1, own rows] are added to the scores."""
    q = q / math.sqrt(q.shape[-1])
    to_past = q @ k.transpose(1, 2) + hide_past
    to_own = q @ own_k.transpose(1, 2) + hide_own
    weights = torch.cat((to_past, to_own), dim=-1).to(torch.float32).softmax(-1).to(q.dtype)
    rows = k.shape[1]
    return weights[..., :rows] @ v + weights[..., rows:] @ own_v


def _vision_attention(stage: VisionAttention, x: Tensor) -> Tensor:
    q, k, v = (_heads(proj(x), stage.heads) for proj in (stage.q_proj, stage.k_proj, stage.v_proj))
    return stage.out_proj(_joined(_attend(q, k, v)))
