"""Reading one token through shapes that never change, so that a CUDA graph can repeat it.

A token takes some hundred kernels, which a CPU launches more slowly than a GPU runs them; a graph
is launched at once. What changes from token to token, the embedding and the position, lies in
buffers that are written before. The cache is read up to a fixed row, and a mask hides what is
behind the position.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.kv import KvCache
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.speech import SpeechDecoder

SMALLEST = 256
"""Rows of the first step; each other has twice as many as the one before."""

Step = Callable[[], Tensor]


class StaticDecode:
    """Reads single tokens into one cache. On a CPU the steps are the same, without graphs.

    A step is made when its rows are first needed, which takes as long as a few tokens. Rows behind
    the length are multiplied with a weight of zero, so no NaN may be there: see `wipe`.
    """

    def __init__(self, decoder: Llm | SpeechDecoder, cache: KvCache) -> None:
        self.decoder = decoder
        self.cache = cache
        device = cache.k.device
        self._embed = torch.zeros(1, decoder.config.hidden, dtype=cache.k.dtype, device=device)
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self._steps: dict[int, Step] = {}
        # Graphs of one pool share their memory for what is inside a step: only one runs at a time.
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    @torch.inference_mode()
    def read(self, embed: Tensor, at: int | None = None) -> Tensor:
        """As `model.decoder.Decoder.extend` with one row: embed [1, hidden] -> [1, hidden].

        Raises:
            KvFullError: there is no row left; nothing was written.
            EngineError: the graph could not be made.
        """
        at = self.cache.start(1, at)
        self._embed.copy_(embed)
        self._position.fill_(at)
        rows = self._rows(at + 1)
        if rows not in self._steps:
            self._steps[rows] = self._make(rows)
        hidden = self._steps[rows]().clone()  # a graph's output is overwritten by its next run
        self.cache.length = max(self.cache.length, at + 1)
        return hidden

    @torch.inference_mode()
    def wipe(self, start: int) -> None:
        """Zeros in all rows in use from `start` on, before they are cut off."""
        for buffer in (self.cache.k, self.cache.v):
            buffer[:, :, start : self.cache.length] = 0

    def _rows(self, needed: int) -> int:
        rows = SMALLEST
        while rows < needed:
            rows *= 2
        return min(rows, self.cache.capacity)

    def _make(self, rows: int) -> Step:
        k, v = self.cache.k[:, :, :rows], self.cache.v[:, :, :rows]
        all_rows = torch.arange(rows, device=k.device)

        def step() -> Tensor:
            mask = all_rows <= self._position.unsqueeze(1)
            return self.decoder(self._embed, self._position, mask, k, v)

        return step if self._pool is None else self._capture(step)

    def _capture(self, step: Step) -> Step:
        device = self._embed.device
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(device):
                side = torch.cuda.Stream(device)
                side.wait_stream(torch.cuda.current_stream(device))
                with torch.cuda.stream(side):
                    step()  # libraries take what they need at the first call, not in a graph
                torch.cuda.current_stream(device).wait_stream(side)
                # Another thread may well use the device meanwhile.
                with torch.cuda.graph(
                    graph, pool=self._pool, stream=side, capture_error_mode="thread_local"
                ):
                    hidden = step()
        except RuntimeError as error:
            raise EngineError(
                f"a CUDA graph of one token could not be made on {device}: {error};"
                " TorchNetwork.load(..., graphs=False) does without"
            ) from error

        def replay() -> Tensor:
            graph.replay()
            return hidden

        return replay
