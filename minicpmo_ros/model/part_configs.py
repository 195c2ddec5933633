"""Sizes of the parts of the network; which of them a checkpoint has is read in `model.config`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from minicpmo_ros.errors import CheckpointError


def _check_sizes(config: object) -> None:
    """Refuse sizes below one, and heads that do not divide what they share.

    Raises:
        CheckpointError: naming the field, its value and what would be right.
    """
    part = type(config).__name__.removesuffix("Config").lower()
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        is_id = field.name in ("audio_bos", "text_eos")
        if type(value) is int and value < 1 and not is_id:
            raise CheckpointError(f"config.json: {part}.{field.name} is {value}, not above 0")
    heads = getattr(config, "heads", 1)
    kv_heads = getattr(config, "kv_heads", heads)
    if heads % kv_heads:
        raise CheckpointError(
            f"config.json: {part}.heads is {heads}, not a multiple of kv_heads, {kv_heads}"
        )


def _check_heads_divide_hidden(config: VisionConfig | ResamplerConfig | AudioConfig) -> None:
    if config.hidden % config.heads:
        part = type(config).__name__.removesuffix("Config").lower()
        raise CheckpointError(
            f"config.json: {part}.hidden is {config.hidden}, not a multiple of its"
            f" {config.heads} heads"
        )


@dataclass(frozen=True)
class LlmConfig:
    """Qwen3: grouped-query attention, an RMS norm over each query and key head, no biases."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rope_theta: float
    norm_eps: float
    max_positions: int

    def __post_init__(self) -> None:
        _check_sizes(self)

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that one token leaves in the KV cache, keys and values of all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True)
class VisionConfig:
    """SigLIP2 with NaViT positions. `image_size // patch` is the side of the position table."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    patch: int
    image_size: int
    norm_eps: float

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_heads_divide_hidden(self)

    @property
    def side(self) -> int:
        """Rows, and columns, of the table of learned positions."""
        return self.image_size // self.patch


@dataclass(frozen=True)
class ResamplerConfig:
    """One cross-attention from `queries` learned queries to the patches of a picture."""

    queries: int
    hidden: int
    heads: int
    kv_hidden: int

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_heads_divide_hidden(self)


@dataclass(frozen=True)
class AudioConfig:
    """Whisper's encoder and the projection to the language model.

    `max_positions` and the encoder's output are in steps of 20 ms; `pool` of them become one
    embedding. `chunk_s` is the block of the offline mask, in seconds.
    """

    hidden: int
    layers: int
    heads: int
    ffn: int
    mels: int
    max_positions: int
    pool: int
    llm_hidden: int
    norm_eps: float = 1e-5
    chunk_s: float = 1.0

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_heads_divide_hidden(self)


@dataclass(frozen=True)
class SpeechConfig:
    """The Llama that writes speech codes. The last code, `eos`, ends an utterance."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    rope_theta: float
    norm_eps: float
    max_positions: int
    text_vocab: int
    codes: int
    llm_hidden: int
    normalize_hidden: bool
    audio_bos: int
    text_eos: int

    def __post_init__(self) -> None:
        _check_sizes(self)
        for name in ("audio_bos", "text_eos"):
            if not 0 <= getattr(self, name) < self.text_vocab:
                raise CheckpointError(
                    f"config.json: tts_config.{name}_token_id is {getattr(self, name)}, not an id"
                    f" of its {self.text_vocab} text tokens"
                )

    @property
    def eos(self) -> int:
        return self.codes - 1


@dataclass(frozen=True)
class SliceConfig:
    """How a picture is scaled and cut: `resolution` is the side in pixels of one slice's area.

    `max_slices` holds in a duplex unit, `chat_max_slices` in chat. Pixels become
    (x / 255 - mean) / std, a value for each of red, green and blue.
    """

    patch: int = 14
    resolution: int = 448
    max_slices: int = 1
    chat_max_slices: int = 9
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    use_image_id: bool = True

    def __post_init__(self) -> None:
        _check_sizes(self)


@dataclass(frozen=True)
class SamplingConfig:
    """generation_config.json: how chat samples. Duplex has settings of its own.

    samples: false where the checkpoint is to be decoded greedily (`do_sample`), in every mode.
    """

    temperature: float = 0.6
    top_k: int = 20
    top_p: float = 0.95
    eos: tuple[int, ...] = ()
    samples: bool = True
