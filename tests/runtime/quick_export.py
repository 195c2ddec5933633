"""A cache of its own, and an export that takes no time, for tests of what is built and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minicpmo_ros.runtime.engines import build
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.pieces import Piece


class Writer:
    """In place of the export, which takes seconds: a few bytes for each piece.

    made: names of the pieces that were begun. stop: raised in the third.
    """

    def __init__(self) -> None:
        self.made: list[str] = []
        self.configs: list[Any] = []
        self.stop: BaseException | None = None

    def __call__(
        self, read: Any, config: Any, piece: Piece, folder: Path, advance: Any, scales: Any = None
    ) -> None:
        self.made.append(piece.name)
        self.configs.append(config)
        advance(0.5)
        (folder / "stage.onnx").write_text(piece.name)
        (folder / "stage.bin").write_bytes(bytes(1000))
        if self.stop is not None and len(self.made) == 3:
            raise self.stop
        if not piece.is_table:  # of which nobody tells the end
            advance(1.3)  # more weights were written than read

    def again(self) -> list[str]:
        """What was begun since one last asked."""
        made, self.made = self.made, []
        return made


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Writer:
    for module in ("onnx_ir", "onnxscript"):
        pytest.importorskip(module, reason="writing ONNX files needs the extra export")
    writer = Writer()
    monkeypatch.setattr(build, "write_piece", writer)
    return writer


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")
