"""A decoder with its cache in onnxruntime on a CPU, from files that `runtime.export` wrote.

No torch is imported. Embeddings and hidden states are float32 numpy arrays. Inputs are handed to
onnxruntime as they lie in memory, so a cache is read where it is, and only the rows of new tokens
are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.model.config import LlmConfig, SpeechConfig
from minicpmo_ros.runtime.api import Logits, Part, Rows
from minicpmo_ros.runtime.kv import KvRows

Array = NDArray[np.float32]
PREFILL_BLOCK = 512


# It would make a product and the sum behind it one, and four-bit weights of such a product are not
# kept packed: of each layer, those of o_proj and down_proj.
DISABLED = ("MatMulAddFusion",)


def session(file: Path, threads: int = 0, save: Path | None = None) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        threads: 0: one a core. They sleep while they wait: a robot has other work for its cores.
        save: where to write the graph as it is run, to look at.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Products with four-bit weights round their inputs to eight bits: twice as fast.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
    options.log_severity_level = 3
    if save is not None:
        options.optimized_model_filepath = str(save)
    return onnxruntime.InferenceSession(
        file, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(DISABLED)
    )


class OrtContext:
    """See `runtime.api.Context`.

    Args:
        step, head: sessions of the decoder and of what makes logits.
        table: embeddings of tokens, [vocab, hidden] of any floating type.
    """

    def __init__(
        self,
        step: Any,
        head: Any,
        table: NDArray[Any],
        config: LlmConfig | SpeechConfig,
        capacity: int,
    ) -> None:
        self._step, self._head, self._table = step, head, table
        self._kv = KvRows(
            config.layers, config.kv_heads, capacity, config.head_dim, config.rope_theta
        )
        self._names = [f"cache.{index}" for index in range(2 * config.layers)]

    @property
    def length(self) -> int:
        return self._kv.length

    @property
    def capacity(self) -> int:
        return self._kv.capacity

    @property
    def nbytes(self) -> int:
        return self._kv.nbytes

    def read(self, *parts: Part, at: int | None = None) -> Array:
        embeds = np.concatenate([self._embedded(part) for part in parts])
        at = self.length if at is None else at
        if not 0 <= at <= self.length:
            raise ValueError(f"row {at} is not behind the {self.length} rows in use")
        self._kv.check_room(len(embeds), at)
        hidden = []
        for start in range(0, len(embeds), PREFILL_BLOCK):
            block = embeds[start : start + PREFILL_BLOCK]
            feed = dict(zip(self._names, self._kv.buffers, strict=True))
            found, *rows = self._step.run(
                None, {"embeds": block, "past": np.array([at], np.int64), **feed}
            )
            self._kv.write(rows, at)
            at += len(block)
            hidden.append(found)
        return np.concatenate(hidden) if len(hidden) > 1 else hidden[0]

    def logits(self, hidden: Rows) -> Logits:
        found: Logits = self._head.run(None, {"hidden": hidden[-1:]})[0][0]  # type: ignore[index]
        return found

    def check_room(self, rows: int) -> None:
        self._kv.check_room(rows)

    def truncate(self, length: int) -> None:
        self._kv.truncate(length)

    def remove(self, spans: Iterable[tuple[int, int]]) -> None:
        self._kv.remove(spans)

    def shift(self, start: int, to: int) -> None:
        self._kv.shift(start, to)

    def keys(self, last: int) -> Array:
        stop = self.length
        return np.stack([k[:, stop - last : stop] for k in self._kv.buffers[0::2]])

    def _embedded(self, part: Part) -> Array:
        if isinstance(part, np.ndarray):
            return part
        return self._table[np.asarray(part, np.int64)].astype(np.float32)
