"""Conversations to calibrate on hold what the network would read, had it lived the recording."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from minicpmo_ros.errors import ConfigError, DeviceError, EngineError, InputError
from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.messages import AudioChunk
from minicpmo_ros.replay.bag import BagWriter, open_bag
from minicpmo_ros.topics import MIC
from tests.replay.live import at

pytest.importorskip("torch", reason="the network needs the extra model")

import torch

from minicpmo_ros.brains.local.pictures import as_float, readable
from minicpmo_ros.duplex.config import DuplexConfig, WindowConfig
from minicpmo_ros.duplex.conversation import Conversation
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.mel import StreamingMel
from minicpmo_ros.model.picture import slices
from minicpmo_ros.model.prompts import duplex_prompt
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.replay.calibration import (
    Script,
    calibration_sequences,
    conversation_of,
    recorded_inputs,
    units_of,
)
from minicpmo_ros.runtime.recording import RecordedContext, RecordingNetwork
from minicpmo_ros.runtime.torch_runtime import TorchNetwork

SECONDS = 9


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that looks at pictures as 56 x 56 pixels: that is quick."""
    from minicpmo_ros.model.tiny import write_checkpoint

    made = write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")
    settings = made / "preprocessor_config.json"
    content = json.loads(settings.read_text()) | {"scale_resolution": 56}
    settings.write_text(json.dumps(content))
    return made


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise to hear, and three pictures of noise a second."""
    path = tmp_path_factory.mktemp("bag") / "bag"
    random = np.random.default_rng(1)
    with BagWriter(path) as bag:
        for i in range(10 * SECONDS):
            if i % 3 == 0:
                picture = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
                bag.write_jpeg(at(i / 10), at(i / 10), encode_jpeg(picture))
            data = random.normal(0, 800, 1600).astype(np.int16)
            bag.write(MIC, at((i + 1) / 10), AudioChunk(at(i / 10), data, 16_000, i))
    return path


def row(checkpoint: Path, token: int) -> np.ndarray:
    table = Checkpoint(checkpoint).read("llm.model.embed_tokens.weight")
    return table[token].numpy()


def test_a_bag_becomes_the_units_of_a_live_session(recording: Path) -> None:
    with open_bag(recording) as bag:
        units = list(units_of(bag))
    assert [unit.index for unit in units] == list(range(SECONDS))
    assert all(len(unit.samples) == 16_000 and not unit.filled for unit in units)
    assert all(len(unit.pictures) == 1 for unit in units)


def test_what_is_recorded_is_what_the_network_reads(checkpoint: Path, recording: Path) -> None:
    """Keys of a conversation with the real network, and of the recorded rows read at once."""
    (recorded,) = calibration_sequences(checkpoint, [recording])
    network, tokenizer = TorchNetwork.load(checkpoint), Tokenizer(checkpoint)
    script = Script(tokenizer)
    config = DuplexConfig(window=WindowConfig("off"), forced_listens=0, speaks=False)
    conversation = Conversation(network, tokenizer, config, sampler=script)
    conversation.open(*duplex_prompt().ids(tokenizer))
    decided = []
    with open_bag(recording) as bag:
        for unit in units_of(bag):
            script.begin_unit()
            outcome = conversation.hear(as_float(unit.samples), readable(unit.pictures)[0])
            # All but the last of what was drawn is read by now.
            decided.append(conversation.context.length - len(outcome.fed))
            conversation.settle()
    assert recorded.embeds.dtype == np.float32
    assert len(recorded.embeds) == conversation.context.length
    assert list(recorded.decisions) == decided
    at_once = network.context(len(recorded.embeds))
    at_once.read(torch.from_numpy(recorded.embeds))
    rows = len(recorded.embeds)
    np.testing.assert_allclose(
        at_once.keys(rows), conversation.context.keys(rows), rtol=1e-3, atol=1e-4
    )


def test_behind_a_decision_stands_what_was_decided(checkpoint: Path, recording: Path) -> None:
    (recorded,) = calibration_sequences(checkpoint, [recording])
    control = Tokenizer(checkpoint).control
    signs = {"listen": row(checkpoint, control.listen), "speak": row(checkpoint, control.speak)}
    found = [
        next(name for name, sign in signs.items() if np.array_equal(recorded.embeds[at + 1], sign))
        for at in recorded.decisions
    ]
    assert found[:4] == ["listen"] * 4 and found[4] == "speak"
    assert set(found) == set(signs) and len(found) == SECONDS


def test_a_turn_is_said_to_its_end(checkpoint: Path) -> None:
    tokenizer = Tokenizer(checkpoint)
    script = Script(tokenizer)
    drawn: list[int] = []
    logits = np.zeros(1, np.float32)
    for _ in range(40):
        script.begin_unit()
        token = -1
        while token not in (tokenizer.control.listen, tokenizer.control.chunk_eos):
            token = script(logits)
            drawn.append(token)
    spoken = [t for t in drawn if t not in set(tokenizer.added.values())]
    text = tokenizer.decode(spoken)
    assert text.startswith("Yes, I can hear you well. I am right here in the room with you.")
    assert drawn.count(tokenizer.control.turn_eos) >= 1


def test_a_recording_ends_where_enough_was_read(checkpoint: Path, recording: Path) -> None:
    (few,) = calibration_sequences(checkpoint, [recording], tokens=300)
    assert 300 <= len(few.embeds) < 400
    assert len(few.decisions) < SECONDS and max(few.decisions) < len(few.embeds)
    with pytest.raises(ConfigError, match="0 tokens to calibrate on"):
        calibration_sequences(checkpoint, [recording], tokens=0)


def test_files_of_sound_are_recordings_too(checkpoint: Path, tmp_path: Path) -> None:
    tone = 0.1 * np.sin(np.arange(32_000) * 0.1)
    soundfile.write(tmp_path / "a.wav", tone, 16_000)
    (found,) = calibration_sequences(checkpoint, [tmp_path / "a.wav"])
    assert len(found.decisions) == 4  # two seconds, and two of silence behind them


def test_a_recording_that_is_not_there_is_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.mcap"):
        calibration_sequences(checkpoint, [tmp_path / "none.mcap"])


def test_without_a_unit_there_is_nothing_to_calibrate_on(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="not one second"):
        conversation_of(iter(()), RecordingNetwork(checkpoint), Tokenizer(checkpoint))


def test_by_default_the_demo_is_lived(checkpoint: Path) -> None:
    try:
        Synthesiser()
    except DeviceError as missing:
        pytest.skip(f"the scene is spoken by espeak-ng: {missing}")
    (found,) = calibration_sequences(checkpoint, tokens=200)
    assert len(found.decisions) >= 2


def test_speech_is_not_recorded(checkpoint: Path) -> None:
    network = RecordingNetwork(checkpoint)
    with pytest.raises(EngineError, match="converse without speech"):
        network.speech()


def test_a_recorded_context_forgets_as_a_cache_does(checkpoint: Path) -> None:
    context = RecordedContext(Checkpoint(checkpoint), 8)
    context.read([0, 1, 2, 3, 4, 5])
    tokens = {token: row(checkpoint, token) for token in range(8)}

    def holds(*wanted: int) -> bool:
        rows = context.embeds[: context.length]
        return np.array_equal(rows, np.stack([tokens[token] for token in wanted]))

    context.remove([(1, 2), (3, 5)])
    assert holds(0, 2, 5)
    context.shift(1, 2)
    context.read([6, 7], at=0)
    assert holds(6, 7, 2, 5)
    context.truncate(3)
    assert holds(6, 7, 2)
    assert context.logits(np.zeros((1, 1))).shape == (1024,) and context.asked == [2]


def test_what_encoders_are_given_is_recorded_with_it(checkpoint: Path, recording: Path) -> None:
    (found,) = recorded_inputs(checkpoint, [recording])
    config = Checkpoint(checkpoint).config
    with open_bag(recording) as bag:
        units = list(units_of(bag))
    mel = StreamingMel(config.audio.mels)
    assert len(found.mels) == SECONDS
    for unit, window in zip(units, found.mels, strict=True):
        assert np.array_equal(mel.push(as_float(unit.samples)), window)
    (first,) = slices(units[0].pictures[0].rgb(), 1, config.slices)
    assert len(found.slices) == SECONDS
    assert np.array_equal(found.slices[0].pixels, first.pixels)
    (same,) = calibration_sequences(checkpoint, [recording])
    assert np.array_equal(found.sequence.embeds, same.embeds)
