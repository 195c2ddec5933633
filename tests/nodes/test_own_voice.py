"""The omni node with a checkpoint that speaks itself: sound in pieces, and voices by name."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from minicpmo_ros import topics
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.speaker import SpeakerNode
from minicpmo_ros.srv import SetVoice
from tests.nodes.robot import level, tone
from tests.vocoder_assets import write_assets, write_voice

pytest.importorskip("torch", reason="the network needs the extra model")
pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")

SPEAK = 1


@pytest.fixture
def speaking(tiny_checkpoint, tmp_path, monkeypatch):
    """Parameters of a node that speaks, sooner or later, in the voice anna."""
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "engines"))
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "own")
    write_assets(checkpoint)
    for name, pitch_hz in (("anna", 220.0), ("bob", 110.0)):
        write_voice(tmp_path / "voices" / f"{name}.wav", pitch_hz=pitch_hz)
    return {
        "brain": "local",
        "checkpoint": str(checkpoint),
        "kv_capacity": 1024,
        "window_high_tokens": 900,
        "window_low_tokens": 600,
        "forced_listens": 0,
        "listen_scale": 1e-3,
        "image_transport": "none",
        "voices": str(tmp_path / "voices"),
        "speaker": "anna",
        "speech_steps": 2,
    }


def test_speech_comes_in_pieces_and_its_words_are_heard(simulation, speaking):
    simulation.run(SpeakerNode)
    omni = simulation.run(OmniNode, **speaking)
    chunks = simulation.hear(topics.SPEECH)
    decisions = simulation.hear(topics.DECISION)
    simulation.until(lambda: omni.readers(topics.SPEECH) == 2, "the listeners")
    simulation.tick(simulation.now_ns)
    simulation.live(4.0, sound=lambda at_ns: tone(0.1), omni=omni)
    simulation.until(lambda: len(decisions) >= 4, "the decisions")
    assert SPEAK in [d.action for d in decisions]
    units = [chunk.unit for chunk in chunks if len(chunk.data)]
    assert any(units.count(unit) > 1 for unit in units), "a unit's speech came at once"
    assert any(np.any(chunk.data) for chunk in chunks)
    words = [word.text for chunk in chunks for word in chunk.words]
    said = "".join(d.text for d in decisions if d.action == SPEAK).split()
    assert "".join(words) in "".join(said)
    status = simulation.diagnosis("/omni: voice", lambda s: level(s) == 0)
    values = {one.key: one.value for one in status.values}
    assert values["voice"].startswith("voice anna, vocoder in torch")


def test_another_voice_is_chosen_while_it_runs(simulation, speaking):
    omni = simulation.run(OmniNode, **speaking)
    simulation.tick(simulation.now_ns)
    answer = simulation.call(SetVoice, "set_voice", voice="bob")
    assert (answer.success, list(answer.voices)) == (True, ["anna", "bob"])
    simulation.until(lambda: omni.session.brain._primary.voice.startswith("voice bob"), "bob")
    answer = simulation.call(SetVoice, "set_voice", voice="carl")
    assert not answer.success
    assert answer.message == "voice 'carl': the brain 'local' has anna, bob"


def test_without_assets_the_status_says_why_the_voice_is_another(simulation, speaking, tmp_path):
    shutil.rmtree(tmp_path / "own" / "assets")
    simulation.run(OmniNode, **speaking)
    simulation.tick(simulation.now_ns)
    status = simulation.diagnosis("/omni: voice", lambda s: level(s) == 1)
    assert "assets/token2wav" in status.message
