"""Layers of a Qwen3 with random Q4_0 weights in llama.cpp, to be timed turn about with ours.

They are written as a GGUF file, loaded by llama-cpp-python and given embeddings, as ours are.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import ConfigError, EngineError
from minicpmo_ros.model.part_configs import LlmConfig

Logits = NDArray[np.float32]
# 32 weights: a scale of half precision, then their codes, two a byte.
BLOCK = 32
BLOCK_BYTES = 18
SCALE = 0.004  # codes are spread evenly over -8 to 7: a deviation of 0.02
# The head is computed for every row, and is to cost nothing: a layer has 6,000 times as much.
VOCAB = 8
ERROR = 4  # of llama.cpp's log levels
INSTALL = "pip install 'minicpmo_ros[llamacpp]' compiles it for this machine, in about ten minutes"


class LlamaCpp:
    """Layers of a language model behind `past` tokens.

    Every row that is read comes out as logits of 8 tokens, so that no layer may leave rows out (the
    last one otherwise would), and a call's time over the number of layers is that of a layer. What
    a call costs by itself is in it, as it is in ours.

    Threads of OpenMP spin for some milliseconds after a call: leave them a pause before another
    program's turn. Keys and values are of half precision, llama.cpp's default.

    Attributes:
        embeds: what is read, float32 [past + most, hidden].

    Args:
        config: sizes; `vocab` is not looked at. `layers` as many as are to be made.
        past: tokens that are in the cache when a call begins.
        most: rows that a call reads at most.
        threads: 0: one a core.

    Raises:
        ConfigError: llama-cpp-python or gguf is not installed, or blocks do not divide a size.
        EngineError: llama.cpp cannot load what was written.
    """

    def __init__(
        self, config: LlmConfig, past: int = 512, most: int = 74, threads: int = 0
    ) -> None:
        if (why := missing()) is not None:
            raise ConfigError(why)
        self._lib: Any = importlib.import_module("llama_cpp.llama_cpp")
        self._log = _Log(self._lib)
        self._model = self._context = None
        self.layers, self.past, self.most = config.layers, past, most
        with tempfile.TemporaryDirectory(prefix="minicpmo_llamacpp_") as folder:
            file = Path(folder) / "layers.gguf"
            write_gguf(config, file)
            self._model = self._lib.llama_model_load_from_file(bytes(file), self._model_params())
        if not self._model:
            raise EngineError(f"llama.cpp cannot load the model written for it: {self._log.why}")
        threads = threads or len(os.sched_getaffinity(0))
        self._context = self._lib.llama_init_from_model(
            self._model, self._context_params(past + most, threads)
        )
        if not self._context:
            self.close()
            raise EngineError(f"llama.cpp cannot make a context: {self._log.why}")
        self._memory = self._lib.llama_get_memory(self._context)
        random = np.random.default_rng(0)
        self.embeds = random.standard_normal((past + most, config.hidden)).astype(np.float32)
        self._length = 0
        if past:
            self._read(self.embeds[:past])

    @property
    def about(self) -> str:
        """Version, and what of the processor it was compiled for."""
        version = importlib.import_module("llama_cpp").__version__
        built_for = self._lib.llama_print_system_info().decode()
        return f"llama-cpp-python {version}, {built_for}"

    def prefill(self, rows: int = 74) -> Logits:
        """Read so many rows behind `past`, forgetting what was read there before: logits
        [rows, 8]."""
        self._lib.llama_memory_seq_rm(self._memory, 0, self.past, -1)
        self._length = self.past
        return self._read(self.embeds[self.past : self.past + rows])

    def decode(self) -> Logits:
        """The same with one row."""
        return self.prefill(1)

    def close(self) -> None:
        """Give all memory back."""
        if self._context:
            self._lib.llama_free(self._context)
        if self._model:
            self._lib.llama_model_free(self._model)
        self._model = self._context = None

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, embeds: NDArray[np.float32]) -> Logits:
        rows, hidden = embeds.shape
        batch = self._lib.llama_batch_init(rows, hidden, 1)
        try:
            ctypes.memmove(batch.embd, embeds.ctypes.data, embeds.nbytes)
            batch.n_tokens = rows
            for row in range(rows):
                batch.pos[row] = self._length + row
                batch.n_seq_id[row] = 1
                batch.seq_id[row][0] = 0
                batch.logits[row] = 1
            if self._lib.llama_decode(self._context, batch) != 0:
                raise EngineError(f"llama.cpp cannot read {rows} rows: {self._log.why}")
        finally:
            self._lib.llama_batch_free(batch)
        self._length += rows
        found = self._lib.llama_get_logits(self._context)
        return np.ctypeslib.as_array(found, (rows, VOCAB)).copy()

    def _model_params(self) -> Any:
        params = self._lib.llama_model_default_params()
        # Into memory of its own: pages of a mapped file would come in while it is timed.
        params.load_mode = self._lib.LLAMA_LOAD_MODE_NONE
        params.n_gpu_layers = 0
        return params

    def _context_params(self, rows: int, threads: int) -> Any:
        params = self._lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = rows
        params.n_threads = params.n_threads_batch = threads
        return params


def missing() -> str | None:
    """What keeps llama.cpp from running here and how to install it; None if nothing does."""
    for name in ("llama_cpp", "gguf"):
        try:
            importlib.import_module(name)
        # A library compiled for another processor or system fails in ways of its own.
        except (ImportError, OSError, RuntimeError) as error:
            return f"llama.cpp is not there to compare with ({name}: {error}); {INSTALL}"
    return None


def write_gguf(config: LlmConfig, file: Path) -> None:
    """Write a model of random weights: matrices in Q4_0, gains of one.

    Raises:
        ConfigError: blocks of 32 do not divide a size.
    """
    queries = config.heads * config.head_dim
    for name, size in {"hidden": config.hidden, "ffn": config.ffn, "heads": queries}.items():
        if size % BLOCK:
            raise ConfigError(f"llama.cpp: {name} of {size} values, not a multiple of {BLOCK}")
    import gguf

    writer = gguf.GGUFWriter(file, "qwen3")
    writer.add_block_count(config.layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("no_vocab")
    random = np.random.default_rng(0)
    for name, shape in _tensors(config):
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, np.float32))
        else:
            q4_0 = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(name, _random_q4_0(shape, random), raw_dtype=q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(config: LlmConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names that llama.cpp gives to the weights of a Qwen3; matrices are [outputs, inputs]."""
    hidden, ffn = config.hidden, config.ffn
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    yield "token_embd.weight", (VOCAB, hidden)
    yield "output.weight", (VOCAB, hidden)
    yield "output_norm.weight", (hidden,)
    of_a_layer = {
        "attn_norm": (hidden,),
        "attn_q": (queries, hidden),
        "attn_k": (keys, hidden),
        "attn_v": (keys, hidden),
        "attn_q_norm": (config.head_dim,),
        "attn_k_norm": (config.head_dim,),
        "attn_output": (hidden, queries),
        "ffn_norm": (hidden,),
        "ffn_gate": (ffn, hidden),
        "ffn_up": (ffn, hidden),
        "ffn_down": (hidden, ffn),
    }
    for layer in range(config.layers):
        for name, shape in of_a_layer.items():
            yield f"blk.{layer}.{name}.weight", shape


def _random_q4_0(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.uint8]:
    """Blocks of a matrix [outputs, inputs]: uint8 [outputs, inputs / 32 * 18]."""
    outputs, inputs = shape
    blocks = (
        np.frombuffer(random.bytes(outputs * inputs // BLOCK * BLOCK_BYTES), np.uint8)
        .reshape(-1, BLOCK_BYTES)
        .copy()
    )
    blocks[:, :2] = np.array([SCALE], np.float16).view(np.uint8)
    return blocks.reshape(outputs, -1)


class _Log:
    """llama.cpp's log: its errors are kept, all else is let go."""

    _callback: Any = None

    def __init__(self, lib: Any) -> None:
        self._errors: list[str] = []

        def hear(level: int, text: bytes, _: Any) -> None:
            if level == ERROR:
                self._errors.append(text.decode(errors="replace").strip())

        # Called for as long as the library is loaded: never to be collected.
        _Log._callback = lib.llama_log_callback(hear)
        lib.llama_log_set(_Log._callback, None)

    @property
    def why(self) -> str:
        return "; ".join(self._errors) or "it does not say why"
