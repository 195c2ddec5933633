"""Names and shapes of the tensors in a checkpoint, as its sizes imply them.

`Checkpoint` holds the files against this, `tiny` writes files from it. The names are those of the
published files, and the parameters of our modules bear the same below the prefix of their part.
"""

from __future__ import annotations

from collections.abc import Iterable

from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.part_configs import (
    AudioConfig,
    LlmConfig,
    ResamplerConfig,
    SpeechConfig,
    VisionConfig,
)

Shapes = dict[str, tuple[int, ...]]

# The parts of a checkpoint, by the prefix of their tensors.
PARTS = {
    "llm.": "language model",
    "vpm.": "vision encoder",
    "resampler.": "resampler",
    "apm.": "audio encoder",
    "audio_projection_layer.": "audio projection",
    "tts.": "speech decoder",
}

# In the published files, though nothing computes with them: speech has no speaker embedding in any
# of our modes, and the speech decoder's backbone is fed embeddings only.
UNUSED = ("tts.projector_spk.", "tts.model.embed_tokens.")
_BACKBONE_VOCAB = 32_000  # LlamaConfig's, which the speech decoder never changes


def is_unused(key: str) -> bool:
    return key.startswith(UNUSED)


def shapes(config: ModelConfig) -> Shapes:
    """Every tensor of a checkpoint with these sizes, `UNUSED` included."""
    parts = {
        "llm.": _llm(config.llm),
        "vpm.": _vision(config.vision),
        "resampler.": _resampler(config.resampler),
        "apm.": _audio(config.audio),
        "audio_projection_layer.": _mlp(config.audio.hidden, config.audio.llm_hidden),
    }
    if config.speech is not None:
        parts["tts."] = _speech(config.speech)
    return {prefix + name: shape for prefix, part in parts.items() for name, shape in part.items()}


def count_layers(keys: Iterable[str], prefix: str) -> int:
    """How many layers there are below a prefix such as `vpm.encoder.layers.`."""
    return len({key[len(prefix) :].split(".")[0] for key in keys if key.startswith(prefix)})


def _below(prefix: str, tensors: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in tensors.items()}


def _linear(inputs: int, outputs: int, bias: bool = True) -> Shapes:
    return {"weight": (outputs, inputs)} | ({"bias": (outputs,)} if bias else {})


def _norm(width: int) -> Shapes:
    return {"weight": (width,), "bias": (width,)}


def _mlp(inputs: int, outputs: int) -> Shapes:
    return _below("linear1", _linear(inputs, outputs)) | _below(
        "linear2", _linear(outputs, outputs)
    )


def _decoder(config: LlmConfig | SpeechConfig, vocab: int) -> Shapes:
    """A Llama-shaped decoder without its head."""
    queries = config.heads * config.head_dim
    keys = config.kv_heads * config.head_dim
    layer: Shapes = {
        "input_layernorm.weight": (config.hidden,),
        "post_attention_layernorm.weight": (config.hidden,),
        "self_attn.q_proj.weight": (queries, config.hidden),
        "self_attn.k_proj.weight": (keys, config.hidden),
        "self_attn.v_proj.weight": (keys, config.hidden),
        "self_attn.o_proj.weight": (config.hidden, queries),
        "mlp.gate_proj.weight": (config.ffn, config.hidden),
        "mlp.up_proj.weight": (config.ffn, config.hidden),
        "mlp.down_proj.weight": (config.hidden, config.ffn),
    }
    if isinstance(config, LlmConfig):
        layer["self_attn.q_norm.weight"] = layer["self_attn.k_norm.weight"] = (config.head_dim,)
    found: Shapes = {
        "model.embed_tokens.weight": (vocab, config.hidden),
        "model.norm.weight": (config.hidden,),
    }
    for index in range(config.layers):
        found |= _below(f"model.layers.{index}", layer)
    return found


def _llm(config: LlmConfig) -> Shapes:
    return _decoder(config, config.vocab) | {"lm_head.weight": (config.vocab, config.hidden)}


def _vision(config: VisionConfig) -> Shapes:
    layer = _below("layer_norm1", _norm(config.hidden)) | _below(
        "layer_norm2", _norm(config.hidden)
    )
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        layer |= _below(f"self_attn.{name}", _linear(config.hidden, config.hidden))
    layer |= _below("mlp.fc1", _linear(config.hidden, config.ffn))
    layer |= _below("mlp.fc2", _linear(config.ffn, config.hidden))
    found: Shapes = {
        "embeddings.patch_embedding.weight": (config.hidden, 3, config.patch, config.patch),
        "embeddings.patch_embedding.bias": (config.hidden,),
        "embeddings.position_embedding.weight": (config.side**2, config.hidden),
    }
    for index in range(config.layers):
        found |= _below(f"encoder.layers.{index}", layer)
    return found | _below("post_layernorm", _norm(config.hidden))


def _resampler(config: ResamplerConfig) -> Shapes:
    width = config.hidden
    found: Shapes = {
        "query": (config.queries, width),
        "proj": (width, width),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
    }
    if config.kv_hidden != width:
        found["kv_proj.weight"] = (width, config.kv_hidden)
    found |= _below("attn.out_proj", _linear(width, width))
    for name in ("ln_q", "ln_kv", "ln_post"):
        found |= _below(name, _norm(width))
    return found


def _audio(config: AudioConfig) -> Shapes:
    width = config.hidden
    layer = _below("self_attn.k_proj", _linear(width, width, bias=False))
    for name in ("q_proj", "v_proj", "out_proj"):
        layer |= _below(f"self_attn.{name}", _linear(width, width))
    layer |= _below("self_attn_layer_norm", _norm(width))
    layer |= _below("final_layer_norm", _norm(width))
    layer |= _below("fc1", _linear(width, config.ffn)) | _below("fc2", _linear(config.ffn, width))
    found: Shapes = {
        "conv1.weight": (width, config.mels, 3),
        "conv1.bias": (width,),
        "conv2.weight": (width, width, 3),
        "conv2.bias": (width,),
        "embed_positions.weight": (config.max_positions, width),
    }
    for index in range(config.layers):
        found |= _below(f"layers.{index}", layer)
    return found | _below("layer_norm", _norm(width))


def _speech(config: SpeechConfig) -> Shapes:
    found = _decoder(config, _BACKBONE_VOCAB)
    for name in ("projector_semantic", "projector_spk"):
        found |= _below(name, _mlp(config.llm_hidden, config.hidden))
    # The head is weight-normed: a gain and a direction for each code.
    head = "head_code.0.parametrizations.weight"
    return found | {
        "emb_text.weight": (config.text_vocab, config.hidden),
        "emb_code.0.weight": (config.codes, config.hidden),
        f"{head}.original0": (config.codes, 1),
        f"{head}.original1": (config.codes, config.hidden),
    }
