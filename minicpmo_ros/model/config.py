"""Sizes of the network, read from a checkpoint's config.json and preprocessor_config.json.

Nothing else in this room knows a size. A field that config.json leaves out has the value that the
published configuration classes give it, because saving such a configuration drops what equals the
default (so the published `tts_config` need not say that its hidden size is 768).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.awq_config import AwqConfig

Json = Mapping[str, Any]

# What stands in for an absent vision_config; one that is there has SigLIP's defaults.
PUBLISHED_VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 980,
    "patch_size": 14,
}


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


@dataclass(frozen=True)
class ModelConfig:
    """All sizes of one checkpoint."""

    llm: LlmConfig
    vision: VisionConfig
    resampler: ResamplerConfig
    audio: AudioConfig
    speech: SpeechConfig | None
    """None: the checkpoint has no speech decoder, and its text is spoken by a synthesiser."""
    slices: SliceConfig = SliceConfig()
    sampling: SamplingConfig = SamplingConfig()
    awq: AwqConfig | None = None
    """How matrices are packed, if they are."""

    def speech_sizes(self) -> SpeechConfig:
        """Of the speech decoder; raises CheckpointError where the checkpoint has none."""
        if self.speech is None:
            raise CheckpointError(
                "the checkpoint has no speech decoder (config.json: init_tts is false)"
            )
        return self.speech

    @classmethod
    def load(cls, directory: Path | str) -> ModelConfig:
        """Read config.json and, where they are, the preprocessor's and the sampler's settings.

        Raises:
            CheckpointError: there is no config.json, it is not JSON, it is that of another model,
                or a field is missing or of no use; the message names what was found.
        """
        directory = Path(directory)
        config = _read_json(directory / "config.json")
        if config is None:
            raise CheckpointError(
                f"{directory} has no config.json, so it is no checkpoint; `minicpmo checkpoint"
                " fetch` downloads one, `minicpmo checkpoint tiny` makes a small random one"
            )
        return cls.from_json(
            config,
            _read_json(directory / "preprocessor_config.json") or {},
            _read_json(directory / "generation_config.json") or {},
        )

    @classmethod
    def from_json(
        cls, config: Json, preprocessor: Json | None = None, generation: Json | None = None
    ) -> ModelConfig:
        """The sizes in the words of the published files; see `load` for what it raises."""
        _check_is_minicpmo_45(config)
        preprocessor, generation = preprocessor or {}, generation or {}
        llm = _llm(config)
        vision = _vision(config)
        packed = config.get("quantization_config")
        return cls(
            llm=llm,
            vision=vision,
            resampler=ResamplerConfig(
                queries=_int(config, "query_num", default=64),
                hidden=llm.hidden,
                # The reference divides the width by 128, whatever head_dim the LLM has.
                heads=llm.hidden // 128,
                kv_hidden=vision.hidden,
            ),
            audio=_audio(config, llm.hidden),
            speech=_speech(config, llm.hidden) if _bool(config, "init_tts", True) else None,
            slices=_slices(config, preprocessor),
            sampling=_sampling(generation),
            awq=None if packed is None else AwqConfig.from_json(packed),
        )


def _llm(config: Json) -> LlmConfig:
    hidden = _int(config, "hidden_size")
    heads = _int(config, "num_attention_heads")
    if config.get("tie_word_embeddings"):
        raise CheckpointError(
            "config.json: tie_word_embeddings is true; MiniCPM-o 4.5 has an llm.lm_head of its own"
        )
    if hidden % 128:
        raise CheckpointError(
            f"config.json: hidden_size is {hidden}; the resampler needs a multiple of 128"
        )
    return LlmConfig(
        hidden=hidden,
        layers=_int(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_int(config, "num_key_value_heads"),
        head_dim=_int(config, "head_dim", default=128),
        ffn=_int(config, "intermediate_size"),
        vocab=_int(config, "vocab_size"),
        rope_theta=_rope_theta(config),
        norm_eps=_float(config, "rms_norm_eps", default=1e-6),
        max_positions=_int(config, "max_position_embeddings", default=40960),
    )


def _vision(config: Json) -> VisionConfig:
    part = _part(config, "vision_config", PUBLISHED_VISION)
    layers = _int(part, "num_hidden_layers", default=12)
    return VisionConfig(
        hidden=_int(part, "hidden_size", default=768),
        # What the weights really have is counted when they are opened (Checkpoint.config).
        layers=layers - bool(config.get("drop_vision_last_layer", True)),
        heads=_int(part, "num_attention_heads", default=12),
        ffn=_int(part, "intermediate_size", default=3072),
        patch=_int(part, "patch_size", default=16),
        image_size=_int(part, "image_size", default=224),
        norm_eps=_float(part, "layer_norm_eps", default=1e-6),
    )


def _audio(config: Json, llm_hidden: int) -> AudioConfig:
    part = _part(config, "audio_config", {})
    return AudioConfig(
        hidden=_int(part, "d_model", default=384),
        layers=_int(part, "encoder_layers", default=4),
        heads=_int(part, "encoder_attention_heads", default=6),
        ffn=_int(part, "encoder_ffn_dim", default=1536),
        mels=_int(part, "num_mel_bins", default=80),
        max_positions=_int(part, "max_source_positions", default=1500),
        pool=_int(config, "audio_pool_step", default=5),
        llm_hidden=llm_hidden,
        chunk_s=_float(config, "audio_chunk_length", default=1.0),
    )


def _speech(config: Json, llm_hidden: int) -> SpeechConfig:
    part = _part(config, "tts_config", {})
    hidden = _int(part, "hidden_size", default=768)
    heads = _int(part, "num_attention_heads", default=12)
    if hidden % heads:
        raise CheckpointError(
            f"config.json: tts_config.hidden_size is {hidden}, not a multiple of its {heads} heads"
        )
    if (books := _int(part, "num_vq", default=1)) != 1:
        raise CheckpointError(f"config.json: tts_config.num_vq is {books}; only 1 is supported")
    if (found := _int(part, "llm_dim", default=2560)) != llm_hidden:
        raise CheckpointError(
            f"config.json: tts_config.llm_dim is {found}, but hidden_size is {llm_hidden}"
        )
    return SpeechConfig(
        hidden=hidden,
        layers=_int(part, "num_hidden_layers", default=20),
        heads=heads,
        kv_heads=_int(part, "num_key_value_heads", default=12),
        head_dim=hidden // heads,
        ffn=_int(part, "intermediate_size", default=3072),
        # The reference hands these two on to nobody: its backbone has LlamaConfig's own.
        rope_theta=10_000.0,
        norm_eps=1e-6,
        max_positions=_int(part, "max_position_embeddings", default=4096),
        text_vocab=_int(part, "num_text_tokens", default=21178),
        codes=_int(part, "num_audio_tokens", default=4097),
        llm_hidden=llm_hidden,
        normalize_hidden=bool(part.get("normalize_projected_hidden", False)),
        audio_bos=_int(part, "audio_bos_token_id", default=21132),
        text_eos=_int(part, "text_eos_token_id", default=21133),
    )


def _slices(config: Json, preprocessor: Json) -> SliceConfig:
    part = _part(config, "slice_config", {"max_slice_nums": 1})
    return SliceConfig(
        patch=_int(part, "patch_size", default=14),
        resolution=_int(part, "scale_resolution", default=448),
        max_slices=_int(part, "max_slice_nums", default=9),
        chat_max_slices=_int(preprocessor, "max_slice_nums", default=9),
        mean=tuple(float(x) for x in preprocessor.get("norm_mean", (0.5, 0.5, 0.5))),
        std=tuple(float(x) for x in preprocessor.get("norm_std", (0.5, 0.5, 0.5))),
        use_image_id=bool(preprocessor.get("use_image_id", config.get("use_image_id", True))),
    )


def _sampling(generation: Json) -> SamplingConfig:
    eos = generation.get("eos_token_id", ())
    return SamplingConfig(
        temperature=_float(generation, "temperature", default=0.6),
        top_k=_int(generation, "top_k", default=20),
        top_p=_float(generation, "top_p", default=0.95),
        eos=(eos,) if isinstance(eos, int) else tuple(eos),
        samples=_bool(generation, "do_sample", True),
    )


def _check_is_minicpmo_45(config: Json) -> None:
    """Tell a foreign config.json by what it says of itself, before a size of it is missed."""
    kind = config.get("model_type")
    name = (config.get("architectures") or ["an unnamed architecture"])[0]
    tts = config.get("tts_config") or {}
    what = None
    if kind != "minicpmo":
        what = f"model_type {kind!r} ({name})"
    elif str(config.get("version")) == "2.6" or tts.get("model_type") == "conditional_chattts":
        what = "MiniCPM-o 2.6, whose speech decoder and audio path are others"
    if what:
        raise CheckpointError(
            f"config.json is that of {what}; this package runs MiniCPM-o 4.5"
            " (model_type 'minicpmo'; `minicpmo checkpoint fetch`)"
        )


def _rope_theta(config: Json) -> float:
    """Transformers 4 writes `rope_theta`, 5 writes it into `rope_parameters`."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise CheckpointError(f"config.json: rope type {kind!r} is unknown here; only 'default' is")
    return _float(config if "rope_theta" in config else rope, "rope_theta")


def _part(config: Json, name: str, absent: Json) -> Json:
    """The named inner object; `absent` stands in where the whole object is left out."""
    part = config.get(name)
    if part is None:
        part = absent
    if not isinstance(part, Mapping):
        raise CheckpointError(f"config.json: {name} is {part!r}, not an object")
    return part


def _int(config: Json, name: str, default: int | None = None) -> int:
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"config.json: {name} is {value!r}, not a whole number")
    return value


def _bool(config: Json, name: str, default: bool) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"config.json: {name} is {value!r}, neither true nor false")
    return value


def _float(config: Json, name: str, default: float | None = None) -> float:
    value = config.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise CheckpointError(f"config.json: {name} is {value!r}, not a number")
    return float(value)


def _read_json(path: Path) -> Json | None:
    """The object in a JSON file, or None where there is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} holds {type(found).__name__}, not an object")
    return found
