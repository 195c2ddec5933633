"""Sizes of the network, read from a checkpoint's config.json and preprocessor_config.json.

Nothing else in this room knows a size. A field that config.json leaves out has the value that the
published configuration classes give it, because saving such a configuration drops what equals the
default (so the published `tts_config` need not say that its hidden size is 768).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.awq_config import AwqConfig
from minicpmo_ros.model.json_fields import (
    Json,
    json_bool,
    json_float,
    json_int,
    json_part,
    read_json,
)
from minicpmo_ros.model.part_configs import (
    AudioConfig,
    LlmConfig,
    ResamplerConfig,
    SamplingConfig,
    SliceConfig,
    SpeechConfig,
    VisionConfig,
)

# What stands in for an absent vision_config; one that is there has SigLIP's defaults.
PUBLISHED_VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 980,
    "patch_size": 14,
}


@dataclass(frozen=True)
class ModelConfig:
    """All sizes of one checkpoint."""

    llm: LlmConfig
    vision: VisionConfig
    resampler: ResamplerConfig
    audio: AudioConfig
    speech: SpeechConfig | None
    """None: the checkpoint has no speech decoder, and its text is spoken by a synthesiser."""
    slices: SliceConfig = field(default_factory=SliceConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
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
        config = read_json(directory / "config.json")
        if config is None:
            raise CheckpointError(
                f"{directory} has no config.json, so it is no checkpoint; `minicpmo checkpoint"
                " fetch` downloads one, `minicpmo checkpoint tiny` makes a small random one"
            )
        return cls.from_json(
            config,
            read_json(directory / "preprocessor_config.json") or {},
            read_json(directory / "generation_config.json") or {},
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
                queries=json_int(config, "query_num", default=64),
                hidden=llm.hidden,
                # The reference divides the width by 128, whatever head_dim the LLM has.
                heads=llm.hidden // 128,
                kv_hidden=vision.hidden,
            ),
            audio=_audio(config, llm.hidden),
            speech=_speech(config, llm.hidden) if json_bool(config, "init_tts", True) else None,
            slices=_slices(config, preprocessor),
            sampling=_sampling(generation),
            awq=None if packed is None else AwqConfig.from_json(packed),
        )


def _llm(config: Json) -> LlmConfig:
    hidden = json_int(config, "hidden_size")
    heads = json_int(config, "num_attention_heads")
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
        layers=json_int(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=json_int(config, "num_key_value_heads"),
        head_dim=json_int(config, "head_dim", default=128),
        ffn=json_int(config, "intermediate_size"),
        vocab=json_int(config, "vocab_size"),
        rope_theta=_rope_theta(config),
        norm_eps=json_float(config, "rms_norm_eps", default=1e-6),
        max_positions=json_int(config, "max_position_embeddings", default=40960),
    )


def _vision(config: Json) -> VisionConfig:
    part = json_part(config, "vision_config", PUBLISHED_VISION)
    layers = json_int(part, "num_hidden_layers", default=12)
    return VisionConfig(
        hidden=json_int(part, "hidden_size", default=768),
        # What the weights really have is counted when they are opened (Checkpoint.config).
        layers=layers - bool(config.get("drop_vision_last_layer", True)),
        heads=json_int(part, "num_attention_heads", default=12),
        ffn=json_int(part, "intermediate_size", default=3072),
        patch=json_int(part, "patch_size", default=16),
        image_size=json_int(part, "image_size", default=224),
        norm_eps=json_float(part, "layer_norm_eps", default=1e-6),
    )


def _audio(config: Json, llm_hidden: int) -> AudioConfig:
    part = json_part(config, "audio_config", {})
    return AudioConfig(
        hidden=json_int(part, "d_model", default=384),
        layers=json_int(part, "encoder_layers", default=4),
        heads=json_int(part, "encoder_attention_heads", default=6),
        ffn=json_int(part, "encoder_ffn_dim", default=1536),
        mels=json_int(part, "num_mel_bins", default=80),
        max_positions=json_int(part, "max_source_positions", default=1500),
        pool=json_int(config, "audio_pool_step", default=5),
        llm_hidden=llm_hidden,
        chunk_s=json_float(config, "audio_chunk_length", default=1.0),
    )


def _speech(config: Json, llm_hidden: int) -> SpeechConfig:
    part = json_part(config, "tts_config", {})
    hidden = json_int(part, "hidden_size", default=768)
    heads = json_int(part, "num_attention_heads", default=12)
    if hidden % heads:
        raise CheckpointError(
            f"config.json: tts_config.hidden_size is {hidden}, not a multiple of its {heads} heads"
        )
    if (books := json_int(part, "num_vq", default=1)) != 1:
        raise CheckpointError(f"config.json: tts_config.num_vq is {books}; only 1 is supported")
    if (found := json_int(part, "llm_dim", default=2560)) != llm_hidden:
        raise CheckpointError(
            f"config.json: tts_config.llm_dim is {found}, but hidden_size is {llm_hidden}"
        )
    return SpeechConfig(
        hidden=hidden,
        layers=json_int(part, "num_hidden_layers", default=20),
        heads=heads,
        kv_heads=json_int(part, "num_key_value_heads", default=12),
        head_dim=hidden // heads,
        ffn=json_int(part, "intermediate_size", default=3072),
        # The reference hands these two on to nobody: its backbone has LlamaConfig's own.
        rope_theta=10_000.0,
        norm_eps=1e-6,
        max_positions=json_int(part, "max_position_embeddings", default=4096),
        text_vocab=json_int(part, "num_text_tokens", default=21178),
        codes=json_int(part, "num_audio_tokens", default=4097),
        llm_hidden=llm_hidden,
        normalize_hidden=bool(part.get("normalize_projected_hidden", False)),
        audio_bos=json_int(part, "audio_bos_token_id", default=21132),
        text_eos=json_int(part, "text_eos_token_id", default=21133),
    )


def _slices(config: Json, preprocessor: Json) -> SliceConfig:
    part = json_part(config, "slice_config", {"max_slice_nums": 1})
    return SliceConfig(
        patch=json_int(part, "patch_size", default=14),
        resolution=json_int(part, "scale_resolution", default=448),
        max_slices=json_int(part, "max_slice_nums", default=9),
        chat_max_slices=json_int(preprocessor, "max_slice_nums", default=9),
        mean=tuple(float(x) for x in preprocessor.get("norm_mean", (0.5, 0.5, 0.5))),
        std=tuple(float(x) for x in preprocessor.get("norm_std", (0.5, 0.5, 0.5))),
        use_image_id=bool(preprocessor.get("use_image_id", config.get("use_image_id", True))),
    )


def _sampling(generation: Json) -> SamplingConfig:
    eos = generation.get("eos_token_id", ())
    return SamplingConfig(
        temperature=json_float(generation, "temperature", default=0.6),
        top_k=json_int(generation, "top_k", default=20),
        top_p=json_float(generation, "top_p", default=0.95),
        eos=(eos,) if isinstance(eos, int) else tuple(eos),
        samples=json_bool(generation, "do_sample", True),
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
    return json_float(config if "rope_theta" in config else rope, "rope_theta")
