"""The omni node with a checkpoint that speaks itself: sound in pieces, and voices by name."""

from __future__ import annotations

import shutil
from itertools import pairwise

import numpy as np
import pytest

from minicpmo_ros import topics
from minicpmo_ros.messages import NS_PER_S, PlaybackEvent
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.speaker import SpeakerNode
from minicpmo_ros.srv import SetVoice
from tests.nodes.robot import level, tone, values
from tests.vocoder_assets import write_assets, write_voice

pytest.importorskip("torch", reason="the network needs the extra model")
pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")

SPEAK = 1
TEXT = "Hello there, dear friend of mine."


@pytest.fixture
def speaking(tiny_checkpoint, tmp_path, monkeypatch):
    """Parameters of a node that speaks in the voice anna."""
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
        "image_transport": "none",
        "voices": str(tmp_path / "voices"),
        "speaker": "anna",
        "speech_steps": 2,
    }


@pytest.fixture
def prompter(tiny_checkpoint, monkeypatch):
    """Tells the network of the node which words to say; how they sound is its own."""
    from minicpmo_ros.brains.local import LocalBrain
    from minicpmo_ros.model.tokenizer import Tokenizer
    from minicpmo_ros.runtime.torch_runtime import TorchNetwork
    from tests.directed_network import DirectedNetwork

    tokenizer = Tokenizer(tiny_checkpoint)
    directed = DirectedNetwork(TorchNetwork.load(tiny_checkpoint), tokenizer)
    monkeypatch.setattr(LocalBrain, "_load_checkpoint", lambda brain: (directed, tokenizer))
    return directed


@pytest.fixture
def conversation(simulation, speaking):
    """Both nodes, and lists that fill with decisions, speech and what the speaker says of it."""
    simulation.run(SpeakerNode)
    omni = simulation.run(OmniNode, **speaking)
    lists = [simulation.hear(one) for one in (topics.DECISION, topics.SPEECH, topics.PLAYBACK)]
    simulation.until(lambda: omni.readers(topics.SPEECH) == 2, "the listeners")
    simulation.tick(simulation.now_ns)
    return omni, *lists


def heard_of(playbacks: list, event: PlaybackEvent) -> list[str]:
    return [playback.heard for playback in playbacks if playback.event == event]


def test_speech_comes_in_pieces_and_its_words_are_heard_one_after_the_other(
    simulation, prompter, conversation
):
    omni, decisions, chunks, playbacks = conversation
    prompter.says("Hello there, dear")
    prompter.says(" friend of mine.", end=True)
    simulation.live(
        6.0,
        until=lambda: heard_of(playbacks, PlaybackEvent.FINISHED),
        sound=lambda at_ns: tone(0.1, level=0.0),
        omni=omni,
    )
    spoken = [decision for decision in decisions if decision.action == SPEAK]
    assert "".join(decision.text for decision in spoken) == TEXT
    units = [chunk.unit for chunk in chunks if len(chunk.data)]
    assert any(units.count(unit) > 1 for unit in units), "a unit's speech came at once"
    assert any(np.any(chunk.data) for chunk in chunks)
    assert [word.text for chunk in chunks for word in chunk.words] == TEXT.split()
    growing = list(dict.fromkeys(heard_of(playbacks, PlaybackEvent.PLAYING)))
    assert len(growing) > 3, "the words were heard at once"
    assert all(later.startswith(sooner) for sooner, later in pairwise(growing))
    assert heard_of(playbacks, PlaybackEvent.FINISHED) == [TEXT]
    status = simulation.diagnosis("/omni: voice", lambda s: level(s) == 0)
    assert values(status)["voice"].startswith("voice anna, vocoder in torch")
    assert "about its recording" not in values(status)


def test_of_a_turn_that_the_user_interrupts_it_remembers_the_words_that_were_heard(
    simulation, prompter, conversation
):
    omni, decisions, _, playbacks = conversation
    for said in ("One two three", " four five six", " seven eight nine"):
        prompter.says(said, end=said.endswith("nine"))
    talks_ns = simulation.now_ns + round(2.4 * NS_PER_S)  # into the middle of a word
    simulation.live(
        6.0,
        until=lambda: heard_of(playbacks, PlaybackEvent.INTERRUPTED),
        sound=lambda at_ns: tone(0.1, level=8000.0 if at_ns >= talks_ns else 0.0),
        omni=omni,
    )
    (heard,) = heard_of(playbacks, PlaybackEvent.INTERRUPTED)
    assert "".join(d.text for d in decisions) == "One two three four five six seven eight nine"
    before = len(decisions)
    simulation.live(1.0, sound=lambda at_ns: tone(0.1, level=0.0), omni=omni)
    simulation.until(lambda: len(decisions) > before, "another decision")
    memory = omni.session.brain._primary._mode.conversation.window
    kept = prompter.tokenizer.decode([token for unit in memory.units for token in unit.said])
    assert kept.startswith("One")
    assert "nine" not in kept
    assert kept == heard


def test_another_voice_is_chosen_while_it_runs(simulation, speaking):
    omni = simulation.run(OmniNode, **speaking)
    simulation.tick(simulation.now_ns)
    answer = simulation.call(SetVoice, "set_voice", voice="bob")
    assert (answer.success, list(answer.voices)) == (True, ["anna", "bob"])
    simulation.until(lambda: omni.session.brain._primary.voice.startswith("voice bob"), "bob")
    answer = simulation.call(SetVoice, "set_voice", voice="carl")
    assert not answer.success
    assert answer.message == "voice 'carl': the brain 'local' has anna, bob"


def test_what_is_not_well_with_a_voice_file_is_in_the_log_once_and_in_the_diagnostics(
    simulation, speaking, tmp_path, capfd
):
    for name in ("fax", "phone"):
        write_voice(tmp_path / "voices" / f"{name}.wav", rate_hz=8_000, channels=2)
    told = "about its recording"
    simulation.run(OmniNode, **(speaking | {"speaker": "phone"}))
    simulation.tick(simulation.now_ns)
    status = simulation.diagnosis("/omni: voice", lambda s: told in values(s))
    assert "2 channels are mixed down" in values(status)[told]
    assert "recorded at 8000 Hz" in values(status)[told]
    # One after the other, as somebody tries them out.
    for name in ("fax", "fax", "anna"):
        assert simulation.call(SetVoice, "set_voice", voice=name).success
        simulation.tick(simulation.now_ns)
        speaks = f"voice {name}"
        status = simulation.diagnosis(
            "/omni: voice", lambda s, speaks=speaks: values(s)["voice"].startswith(speaks)
        )
        assert (told in values(status)) == (name != "anna")
    log = capfd.readouterr().err.splitlines()
    for name in ("fax", "phone"):
        (line,) = (line for line in log if f"voice {name}: its 2 channels are mixed" in line)
        assert "WARN" in line and "recorded at 8000 Hz" in line


def test_without_assets_the_status_says_why_the_voice_is_another(simulation, speaking, tmp_path):
    shutil.rmtree(tmp_path / "own" / "assets")
    simulation.run(OmniNode, **speaking)
    simulation.tick(simulation.now_ns)
    status = simulation.diagnosis("/omni: voice", lambda s: level(s) == 1)
    assert "assets/token2wav" in status.message
