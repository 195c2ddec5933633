"""Which files a network becomes under a recipe, what they depend on, and how large they are.

A large decoder becomes several files in a row, so that neither building nor loading ever holds it
twice, and what was built before a build was cut off is kept. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.layout import is_unused, shapes
from minicpmo_ros.runtime.cache_entry import EngineKey
from minicpmo_ros.runtime.int4 import BLOCK
from minicpmo_ros.runtime.recipe import Recipe
from minicpmo_ros.runtime.recipe_rules import TENSORRT

VERSION = "2"
"""Of the graphs and tables: what changes their contents counts it up."""
GRAPH_RUNTIME = "onnx"
GRAPH_FILE = "stage.onnx"
ENGINE_FILE = "stage.engine"
BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0 + 2 / BLOCK, "int4": 0.5 + 2 / BLOCK}


@dataclass(frozen=True)
class Piece:
    """A graph, or a folder of tables.

    name: "vision", "audio", "llm.00" (layers from the first on), "llm.head", "llm.tables",
    "speech", "speech.head", "speech.tables". runtime: what is to run it, of the recipe; "" for
    tables, which numpy reads. precision: of matrices. dtype: of all else, float32 or float16.
    layers: those of a decoder. calibration: what its weights were scaled by; see `calibration`.
    """

    name: str
    runtime: str
    precision: str
    dtype: str = "float32"
    layers: tuple[int, int] = (0, 0)
    calibration: str = ""

    @property
    def part(self) -> str:
        """Of the recipe: vision, audio, llm or speech."""
        return self.name.split(".")[0]

    @property
    def is_table(self) -> bool:
        return self.name.endswith(".tables")

    def key(self, fingerprint: str) -> EngineKey:
        """Of the graph or the tables; engines that are made of a graph have keys of their own."""
        about: dict[str, Any] = {"dtype": self.dtype, "layers": self.layers}
        if self.calibration:
            about["calibration"] = self.calibration
        runtime = "numpy" if self.is_table else GRAPH_RUNTIME
        return EngineKey(fingerprint, self.name, self.precision, about, runtime, VERSION, "any")

    def names(self, config: ModelConfig) -> list[str]:
        """The tensors of a checkpoint that it is made of."""
        return [key for key in shapes(config) if not is_unused(key) and self._has(key, config)]

    def parameters(self, config: ModelConfig) -> int:
        known = shapes(config)
        return sum(math.prod(known[key]) for key in self.names(config))

    def nbytes(self, config: ModelConfig) -> int:
        """About what its files take: all weights of two axes in its precision."""
        known = shapes(config)
        plain = BYTES["fp16" if self.dtype == "float16" else "fp32"]
        total = 0.0
        for key in self.names(config):
            shape = known[key]
            width = BYTES[self.precision] if _in_precision(key, shape, self) else plain
            total += math.prod(shape) * width
        return int(total)

    def memory(self, config: ModelConfig) -> int:
        """About the most that building it takes: its largest weight, in single precision, as codes
        and as codes in another order, beside the process with its libraries."""
        known = shapes(config)
        largest = max((math.prod(known[key]) for key in self.names(config)), default=0)
        return PROCESS_BYTES + 7 * largest

    def _has(self, key: str, config: ModelConfig) -> bool:
        if self.name in _NAMES:
            return key.startswith(_NAMES[self.name])
        prefix = "llm.model." if self.part == "llm" else "tts.model."
        config_part = config.llm if self.part == "llm" else config.speech
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
    "llm.head": ("llm.lm_head.",),
    "llm.tables": ("llm.model.embed_tokens.",),
    "speech.head": ("tts.head_code.",),
    "speech.tables": ("tts.emb_text.", "tts.emb_code.", "tts.projector_semantic."),
}


def pieces(config: ModelConfig, recipe: Recipe, calibration: str = "") -> list[Piece]:
    """All files of a network in the order in which they are built.

    calibration: digest of what the language model's layers are scaled by; "" if they are not.
    """
    llm, speech = recipe.llm, recipe.speech
    found = [
        Piece(name, part.runtime, part.precision, _dtype(part.runtime))
        for name, part in (("vision", recipe.vision), ("audio", recipe.audio))
    ]
    kind = _dtype(llm.runtime)
    for start, stop in groups(config.llm.layers, llm.layers_per_file):
        name = f"llm.{start:02}"
        found.append(Piece(name, llm.runtime, llm.precision, kind, (start, stop), calibration))
    found.append(Piece("llm.head", llm.runtime, llm.head, kind))
    found.append(Piece("llm.tables", "", llm.embeddings))
    kind = _dtype(speech.runtime)
    whole = (0, config.speech.layers)
    found.append(Piece("speech", speech.runtime, speech.precision, kind, whole))
    found.append(Piece("speech.head", speech.runtime, speech.head, kind))
    found.append(Piece("speech.tables", "", speech.embeddings))
    return found


def groups(layers: int, per_file: int) -> Iterator[tuple[int, int]]:
    """First layer and the one behind the last, file by file."""
    for start in range(0, layers, per_file):
        yield start, min(start + per_file, layers)


def _dtype(runtime: str) -> str:
    return "float16" if runtime in TENSORRT else "float32"


def _in_precision(key: str, shape: tuple[int, ...], piece: Piece) -> bool:
    """Whether a weight has the piece's precision; the vision encoder's inner layer is made wider
    until blocks divide it."""
    if piece.is_table:
        return len(shape) == 2
    divides = len(shape) == 2 and (shape[1] % BLOCK == 0 or key.endswith("mlp.fc2.weight"))
    return piece.precision in ("int4", "int8") and divides
