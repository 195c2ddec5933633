"""The ears: Whisper's encoder and the projection to the language model, streamed or whole.

Ten embeddings a second come out. Key names are the checkpoint's (`apm.`,
`audio_projection_layer.`). The modules keep and change nothing: of a stream the caller hands in the
keys and values of the past, and gets back those of the second, to be put into its cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.model.attention import attend
from minicpmo_ros.model.part_configs import AudioConfig

KeysValues = tuple[Tensor, Tensor]


class AudioAttention(nn.Module):
    """Multi-head attention. Keys have no bias, as in Whisper."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.hidden, config.hidden)
        self.k_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.v_proj = nn.Linear(config.hidden, config.hidden)
        self.out_proj = nn.Linear(config.hidden, config.hidden)

    def split(self, x: Tensor) -> Tensor:
        """[B, T, hidden] to [B, heads, T, head_dim]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self, x: Tensor, mask: Tensor | None, past: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """x: [B, T, hidden]; past: two of [B, heads, S, head_dim]; mask: bool, broadcastable to
        [B, heads, T, S + T], true where seen. Returns x and the keys and values of x."""
        q, k, v = (self.split(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        own = k, v
        if past is not None:
            k, v = (torch.cat(parts, dim=2) for parts in zip(past, own, strict=True))
        x = attend(q, k, v, mask)
        return self.out_proj(x.transpose(1, 2).flatten(2)), own


class AudioLayer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.self_attn = AudioAttention(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.fc1 = nn.Linear(config.hidden, config.ffn)
        self.fc2 = nn.Linear(config.ffn, config.hidden)

    def forward(
        self, x: Tensor, mask: Tensor | None, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """As `AudioAttention.forward`."""
        attended, own = self.self_attn(self.self_attn_layer_norm(x), mask, past)
        x = x + attended
        x = x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))
        if x.dtype == torch.float16:
            # Whisper's activations can leave half precision's range.
            x = x.clamp(-65504 + 1000, 65504 - 1000)
        return x, own


class AudioEncoder(nn.Module):
    """Whisper's encoder: two convolutions (100 -> 50 Hz), learned positions, layers, a norm."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(config.mels, config.hidden, 3, padding=1)
        self.conv2 = nn.Conv1d(config.hidden, config.hidden, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_positions, config.hidden)
        self.layers = nn.ModuleList(AudioLayer(config) for _ in range(config.layers))
        self.layer_norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """A whole sound: mel [B, mels, T], mask [T', T'] or [B, 1, T', T'], bool, true where seen.
        Returns [B, T', hidden] with T' = (T + 1) // 2, at most max_positions."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel.to(self.conv1.weight.dtype)))))
        x = x.transpose(1, 2)
        x = x + self.embed_positions.weight[: x.shape[1]]
        for layer in self.layers:
            x, _ = layer(x, mask)
        return self.layer_norm(x)

    def window(self, mel: Tensor, opening: Tensor, frames: Tensor | None = None) -> Tensor:
        """Both convolutions over a second in its context: [mels, 104] -> [1, 50, hidden].

        Its context is real, so nothing is padded and what comes out is what the whole stream would
        give; only before the opening second there is nothing, and there conv2 must see zeros. So it
        must behind a sound that ends within the second, after so many `frames` of it (100: after
        it), and of what comes out only (frames + 1) // 2 positions are sound.
        """
        x = F.gelu(F.conv1d(mel[None].to(self.conv1.weight.dtype), *self._weights(self.conv1)))
        place = torch.arange(x.shape[2], device=x.device)
        nothing = (place == 0) & opening
        if frames is not None:
            nothing = nothing | (place > frames)
        x = x.masked_fill(nothing, 0.0)
        x = F.gelu(F.conv1d(x, *self._weights(self.conv2), stride=2))
        return x.transpose(1, 2)

    def step(
        self, mel: Tensor, opening: Tensor, positions: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One second of a stream; see `Audio.forward`. Returns [1, 50, hidden], and k and v."""
        x = self.window(mel, opening) + self.embed_positions(positions)
        filled = torch.arange(k.shape[2], device=x.device) < positions[0]
        mask = torch.cat([filled, torch.ones_like(positions, dtype=torch.bool)])[None, None, None]
        own = []
        for layer, layer_k, layer_v in zip(self.layers, k, v, strict=True):
            x, layer_own = layer(x, mask, (layer_k[None], layer_v[None]))
            own.append(layer_own)
        own_k, own_v = (torch.cat(parts) for parts in zip(*own, strict=True))
        return self.layer_norm(x), own_k, own_v

    @staticmethod
    def _weights(conv: nn.Conv1d) -> tuple[Tensor, Tensor | None]:
        return conv.weight, conv.bias


class AudioProjection(nn.Module):
    """Two linear layers to the language model's width, and the mean of every five positions.

    The mean is taken before the second layer, which is linear, so nothing but its cost changes.
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.pool = config.pool
        self.linear1 = nn.Linear(config.hidden, config.llm_hidden)
        self.linear2 = nn.Linear(config.llm_hidden, config.llm_hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, hidden] -> [B, T // pool, llm_hidden]."""
        x = x[:, : x.shape[1] // self.pool * self.pool]
        return self.linear2(F.relu(self.linear1(x)).unflatten(1, (-1, self.pool)).mean(2))


class Audio(nn.Module):
    """The whole stage: mel in, embeddings for the language model out."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.apm = AudioEncoder(config)
        self.audio_projection_layer = AudioProjection(config)

    def forward(
        self, mel: Tensor, opening: Tensor, positions: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One second of a stream. It sees itself and all that the cache holds.

        Args:
            mel: a window of `StreamingMel`, [mels, 104].
            opening: bool [], true in the stream's first second.
            positions: int64 [50], rising by one: places in the position table, and in the cache.
            k, v: the cache, [layers, heads, S, head_dim]. What is at positions[0] or behind it is
                not seen, so S may be the whole capacity; ending before positions[0] is cheaper.

        Returns:
            The embeddings [10, llm_hidden], and k and v of this second, to be stored at positions:
            [layers, heads, 50, head_dim] each.
        """
        x, k, v = self.apm.step(mel, opening, positions, k, v)
        return self.audio_projection_layer(x)[0], k, v

    def whole(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Whole sounds; see `AudioEncoder.forward`. Returns [B, T' // 5, llm_hidden]."""
        return self.audio_projection_layer(self.apm(mel, mask))
