"""Which files a network becomes under a recipe, what they depend on, and how large they are.

A large decoder becomes several files in a row, so that neither building nor loading ever holds it
twice, and what was built before a build was cut off is kept. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.flow.solver import table_times
from minicpmo_ros.model.layout import Shapes, is_unused, shapes
from minicpmo_ros.model.vocoder import VocoderConfig
from minicpmo_ros.runtime.engines.cache_entry import EngineKey
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.engines.recipe_rules import TENSORRT
from minicpmo_ros.runtime.int4 import BLOCK, can_quantise

Sizes = ModelConfig | VocoderConfig
VERSION = "2"
"""Of the graphs and tables: what changes their contents counts it up."""
GRAPH_RUNTIME = "onnx"
ANY_MACHINE = "any"
"""Target of what is the same on every machine."""
GRAPH_FILE = "stage.onnx"
ENGINE_FILE = "stage.engine"
BITS = {"fp32": 0, "fp16": 0, "int8": 8, "int4": 4}
"""Of matrices; 0: they are as all else."""
# Of two axes, and looked up or multiplied as they are all the same.
_NO_MATRICES = (
    "embeddings.position_embedding.weight",
    "embed_positions.weight",
    "resampler.query",
    "resampler.proj",
    "input_embedding.weight",
    "linear_pos.weight",
    "pos_bias_u",
    "pos_bias_v",
    "encoder_proj.weight",
    "estimator.in_proj.weight",
    "final_layer.linear.weight",
)
# The gain of a weight norm, which is in the weights once they are read.
_GAIN = "parametrizations.weight.original0"


@dataclass(frozen=True)
class Piece:
    """A graph, or a folder of tables.

    name: "vision", "audio", "llm.00" (layers from the first on), "llm.turn" (keys, when a window
    slides), "llm.head", "llm.tables", "speech", "speech.head", "speech.tables"; of the vocoder
    "flow.encoder", "flow.estimator", "flow.tables", "hift". runtime: what is to run it, of the
    recipe; "" for tables, which numpy reads. precision: of matrices. dtype: of all else, float32 or
    float16. layers: those of a decoder. calibration: what its weights were scaled by; see
    `calibration`.
    """

    name: str
    runtime: str
    precision: str
    dtype: str = "float32"
    layers: tuple[int, int] = (0, 0)
    calibration: str = ""

    @property
    def part(self) -> str:
        """Of the recipe: vision, audio, llm or speech; flow and hift are its vocoder."""
        return self.name.split(".")[0]

    @property
    def is_vocoder(self) -> bool:
        return self.part in ("flow", "hift")

    @property
    def is_table(self) -> bool:
        return self.name.endswith(".tables")

    def key(self, fingerprint: str) -> EngineKey:
        """Of the graph or the tables; engines that are made of a graph have keys of their own."""
        about: dict[str, Any] = {"dtype": self.dtype, "layers": self.layers}
        if self.calibration:
            about["calibration"] = self.calibration
        runtime = "numpy" if self.is_table else GRAPH_RUNTIME
        made = (runtime, VERSION, ANY_MACHINE)
        return EngineKey(fingerprint, self.name, self.precision, about, *made)

    def names(self, config: Sizes) -> list[str]:
        """The tensors of a checkpoint that it is made of."""
        known = _shapes(config)
        if isinstance(config, VocoderConfig):
            return [key for key in known if vocoder_piece(key) == self.name]
        return [key for key in known if not is_unused(key) and self._has(key, config)]

    def parameters(self, config: Sizes) -> int:
        known = _shapes(config)
        return sum(math.prod(known[key]) for key in self.names(config))

    def nbytes(self, config: Sizes) -> int:
        """What the weights in its files take; graphs beside them have some 100 kB."""
        if isinstance(config, VocoderConfig) and self.is_table:
            return _flow_table_bytes(config)
        known = _shapes(config)
        weights = {key: known[key] for key in self.names(config) if not key.endswith(_GAIN)}
        if self.is_table:
            return sum(_table_bytes(key, shape, self) for key, shape in weights.items())
        return sum(_graph_bytes(key, shape, self) for key, shape in weights.items())

    def memory(self, config: Sizes) -> int:
        """About the most that building it takes: its largest weight, in single precision, as codes
        and as codes in another order, beside the process with its libraries."""
        known = _shapes(config)
        largest = max((math.prod(known[key]) for key in self.names(config)), default=0)
        # The assets are read whole, and a pickle of them holds as much again.
        whole = 0
        if isinstance(config, VocoderConfig):
            whole = 8 * sum(math.prod(known[key]) for key in known if key.startswith(self.part))
        # Of a decoder's layer, two of the largest are one in the graph.
        return PROCESS_BYTES + whole + 7 * largest * (2 if self.layers[1] else 1)

    def _has(self, key: str, config: ModelConfig) -> bool:
        if self.name in _NAMES:
            return key.startswith(_NAMES[self.name])
        prefix = "llm.model." if self.part == "llm" else "tts.model."
        config_part = config.llm if self.part == "llm" else config.speech_sizes()
        if not key.startswith(prefix):
            return False
        if key.startswith(f"{prefix}layers."):
            return self.layers[0] <= int(key[len(prefix) :].split(".")[1]) < self.layers[1]
        return key == f"{prefix}norm.weight" and self.layers[1] == config_part.layers


# torch and what it loads.
PROCESS_BYTES = 600 * 10**6
_NAMES: dict[str, tuple[str, ...]] = {
    "vision": ("vpm.", "resampler."),
    "audio": ("apm.", "audio_projection_layer."),
    "llm.turn": (),
    "llm.head": ("llm.lm_head.",),
    "llm.tables": ("llm.model.embed_tokens.",),
    "speech.head": ("tts.head_code.",),
    "speech.tables": ("tts.emb_text.", "tts.emb_code.", "tts.projector_semantic."),
}


def vocoder_piece(key: str) -> str:
    """The piece that a weight of the vocoder goes into."""
    if not key.startswith("flow."):
        return "hift"
    if any(part in key for part in (".t_embedder.", ".adaLN_modulation.", ".spk_embed_")):
        return "flow.tables"
    return "flow.estimator" if key.startswith("flow.decoder.") else "flow.encoder"


def _shapes(config: Sizes) -> Shapes:
    return dict(config.shapes) if isinstance(config, VocoderConfig) else _model_shapes(config)


@lru_cache(maxsize=4)
def _model_shapes(config: ModelConfig) -> Shapes:
    return shapes(config)


def pieces(config: ModelConfig, recipe: Recipe, calibration: str = "") -> list[Piece]:
    """All files of a network in the order in which they are built.

    calibration: digest of what the language model's layers are scaled by, and its head is rounded
    by; "" if they are not.
    """
    llm, speech = recipe.llm, recipe.speech
    found = [
        Piece(name, part.runtime, part.precision, _dtype(recipe, part.runtime))
        for name, part in (("vision", recipe.vision), ("audio", recipe.audio))
    ]
    kind = _dtype(recipe, llm.runtime)
    for start, stop in groups(config.llm.layers, llm.layers_per_file):
        name = f"llm.{start:02}"
        found.append(Piece(name, llm.runtime, llm.precision, kind, (start, stop), calibration))
    if llm.runtime in TENSORRT:  # others need no file for it
        found.append(Piece("llm.turn", llm.runtime, "fp16", kind))
    weighed = calibration if llm.head == "int4" else ""
    found.append(Piece("llm.head", llm.runtime, llm.head, kind, calibration=weighed))
    found.append(Piece("llm.tables", "", llm.embeddings))
    if config.speech is None:
        return found
    kind = _dtype(recipe, speech.runtime)
    whole = (0, config.speech.layers)
    found.append(Piece("speech", speech.runtime, speech.precision, kind, whole))
    found.append(Piece("speech.head", speech.runtime, speech.head, kind))
    found.append(Piece("speech.tables", "", speech.embeddings))
    return found


def vocoder_pieces(recipe: Recipe) -> list[Piece]:
    """All files of a vocoder. Phases are sums over a turn, so HiFT is in single precision."""
    runtime, precision = recipe.vocoder.runtime, recipe.vocoder.precision
    kind = _dtype(recipe, runtime)
    return [
        Piece("flow.encoder", runtime, precision, kind),
        Piece("flow.estimator", runtime, precision, kind),
        Piece("flow.tables", "", "fp32"),
        Piece("hift", runtime, "fp32"),
    ]


def groups(layers: int, per_file: int) -> Iterator[tuple[int, int]]:
    """First layer and the one behind the last, file by file."""
    for start in range(0, layers, per_file):
        yield start, min(start + per_file, layers)


def _dtype(recipe: Recipe, runtime: str) -> str:
    return "float16" if recipe.on_card(runtime) else "float32"


def whole_blocks(inputs: int) -> int:
    """The next number that blocks divide."""
    return -(-inputs // BLOCK) * BLOCK


def _graph_bytes(key: str, shape: tuple[int, ...], piece: Piece) -> int:
    """Of a weight in a graph; the vision encoder's inner layer grows until blocks divide it."""
    plain = 2 if piece.dtype == "float16" else 4
    bits = BITS[piece.precision]
    if bits and key.startswith("vpm.") and key.endswith(("mlp.fc1.weight", "mlp.fc1.bias")):
        shape = (whole_blocks(shape[0]), *shape[1:])
    if bits and key.startswith("vpm.") and key.endswith("mlp.fc2.weight"):
        shape = (shape[0], whole_blocks(shape[1]))
    count = math.prod(shape)
    if not bits or len(shape) != 2 or key.endswith(_NO_MATRICES):
        return count * plain
    if not can_quantise(shape):
        return count * 2  # `writer.Plan.lies_in_half`
    return count * bits // 8 + count // BLOCK * plain


def _flow_table_bytes(config: VocoderConfig) -> int:
    """See `vocoder_stages.FlowTables`."""
    sizes, flow = config.flow.estimator, config.flow
    modulations = len(table_times()) * (9 * sizes.layers + 2) * sizes.hidden
    return 4 * (modulations + (flow.voice + 1) * flow.mels)


def _table_bytes(key: str, shape: tuple[int, ...], piece: Piece) -> int:
    """Of a weight that numpy reads; see `build.PROJECTOR` and `tables.write_table`."""
    count = math.prod(shape)
    bits = BITS[piece.precision]
    if "projector" in key:
        return count * 4
    if bits and can_quantise(shape):
        return count * bits // 8 + count // BLOCK * 2
    return count * (4 if piece.precision == "fp32" else 2)
