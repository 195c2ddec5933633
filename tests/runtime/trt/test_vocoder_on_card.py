"""A vocoder's engines take what a stream gives them; on a card that onnxruntime plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.flow.stream import FlowOptions, FlowStream
from minicpmo_ros.model.flow.tiny import TINY
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.pieces import Piece
from minicpmo_ros.runtime.engines.recipe import of
from minicpmo_ros.runtime.trt.card import Card
from minicpmo_ros.runtime.trt.library import Library
from minicpmo_ros.runtime.trt.profiles import vocoder_profiles
from minicpmo_ros.runtime.trt.stage import TrtStage
from minicpmo_ros.runtime.vocoder import VocoderNetworks
from minicpmo_ros.runtime.vocoder_load import assemble_vocoder, ensure_vocoder
from minicpmo_ros.runtime.vocoder_stages import FlowTables, StagedFlow, StagedVocoder
from minicpmo_ros.runtime.voices.sound import MOST_TOKENS
from tests.model.audio_stage import relative_error
from tests.model.flow_network import voice
from tests.runtime.trt.fake_cuda import FakeCuda
from tests.runtime.trt.fake_trt import fake_module, write_engine
from tests.runtime.vocoders import HIFT, spoken, write_assets

CPU = of({"precision": "fp32", "threads": 1})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, engines: Path) -> dict[Piece, Path]:
    return ensure_vocoder(
        write_assets(tmp_path_factory.mktemp("vocoder")), CPU, EngineCache(engines)
    )


@pytest.fixture
def card(files: dict[Piece, Path], tmp_path: Path) -> VocoderNetworks:
    cuda = FakeCuda()
    library, card = Library("tensorrt_rtx", fake_module(cuda, rtx=True)), Card(cuda=cuda)
    stages = {
        piece.name: TrtStage(
            library,
            card,
            write_engine(tmp_path / piece.name, file, vocoder_profiles(piece.name, TINY)),
        )
        for piece, file in files.items()
        if not piece.is_table
    }
    (tables,) = (file for piece, file in files.items() if piece.is_table)
    flow = StagedFlow(
        TINY, stages["flow.encoder"], stages["flow.estimator"], FlowTables.load(tables)
    )
    return VocoderNetworks(flow, StagedVocoder(stages["hift"]), HIFT)


def test_a_turn_sounds_as_in_onnxruntime(card: VocoderNetworks, files: dict[Piece, Path]) -> None:
    frames, samples = spoken(card)
    expected_frames, expected = spoken(assemble_vocoder(CPU, files, 1))
    assert relative_error(frames, expected_frames) < 1e-5
    assert relative_error(samples, expected) < 1e-4


def test_the_longest_and_the_shortest_voice_and_chunks_of_any_size_have_their_place(
    card: VocoderNetworks,
) -> None:
    for tokens in (1, MOST_TOKENS):
        stream = FlowStream(card.flow, voice(tokens), FlowOptions(steps=1))
        for count in (4, 53, 1, 30):
            assert np.isfinite(stream.push(np.arange(count), last=count == 30)).all()
    with pytest.raises(EngineError, match="was not built for"):
        FlowStream(card.flow, voice(MOST_TOKENS + 1), FlowOptions(steps=1))
