"""What an engine's key says of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.tiny import config_json
from minicpmo_ros.runtime.engines import pieces
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_entry import EngineKey
from minicpmo_ros.runtime.engines.recipe import load
from minicpmo_ros.runtime.trt import jobs


@pytest.mark.parametrize("changed", ["graph", "library"])
def test_an_engine_of_an_old_graph_or_library_is_another_one(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx = SimpleNamespace(name="tensorrt_rtx", version="1.7", names_targets=True)
    monkeypatch.setattr(jobs, "library", lambda name: rtx)
    wanted, config = load("rtx"), ModelConfig.from_json(config_json("tiny", 1024))

    def keys() -> list[EngineKey]:
        cache = EngineCache(tmp_path)
        return [
            jobs.engine_job(piece, "mark", config, wanted, cache).key
            for piece in pieces.pieces(config, wanted)
            if not piece.is_table
        ]

    before = keys()
    assert before == keys()
    if changed == "graph":
        monkeypatch.setattr(pieces, "VERSION", f"{pieces.VERSION}+")
    else:
        rtx.version = "1.8"
    after = keys()
    assert not {key.digest for key in before} & {key.digest for key in after}
    # So that `engines clean` removes the old ones.
    assert [key.without_version() for key in before] == [key.without_version() for key in after]
