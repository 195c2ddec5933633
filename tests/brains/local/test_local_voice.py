"""The local brain in its own voice: a checkpoint with assets, voices by name, and what it says when
it cannot speak so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.brains.api import SessionSetup, VoiceNotes
from minicpmo_ros.brains.build import OmniSettings, make_brain
from minicpmo_ros.brains.local import LocalBrain
from minicpmo_ros.errors import BrainError, ConfigError, InputError
from minicpmo_ros.messages import Action
from tests.brains.local.robot import NOBODY, Tones, second
from tests.vocoder_assets import write_assets, write_voice


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "engines"))


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's directory in which there is only the vocoder."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_assets(folder)
    return folder


@pytest.fixture
def speaker(assets, prompter, tokenizer, tmp_path):
    """A local brain with a voice file."""
    voice = write_voice(tmp_path / "voices" / "anna.wav")

    def made(synthesiser=None, **settings) -> LocalBrain:
        usual = {
            "checkpoint": str(assets),
            "reference_voice": str(voice),
            "kv_capacity": 1024,
            "window_high_tokens": 900,
            "window_low_tokens": 600,
            "forced_listens": 0,
            "speech_lead_ms": 0,
            "speech_steps": 2,
        }
        wanted = OmniSettings(brain="local", fallback="none", **(usual | settings))
        brain = make_brain(wanted, None)
        return LocalBrain(brain.config, synthesiser, lambda brain: (prompter, tokenizer))

    return made


def all_of(result):
    return [*result.speech, *(result.rest or ())]


def test_a_turn_is_spoken_in_the_models_own_voice(speaker, prompter):
    brain = speaker(Tones())
    brain.open(SessionSetup())
    assert brain.voice.startswith("voice anna, vocoder in torch on cpu")
    assert (brain.voice_trouble, brain.capabilities.speaks) == ("", True)
    assert "voice anna" in brain.about
    prompter.says("Hello the")
    prompter.says("re you", end=True)
    results = []
    for k in range(2):
        result = brain.unit(second(k), NOBODY)
        assert result.action is Action.SPEAK
        # Only what comes first is made before the decision is out.
        assert len(result.speech) == 1
        assert {"speech", "vocoder"} <= {timing.stage for timing in result.timings}
        results.append(all_of(result))
        brain.settle()
    first, last = results
    assert [piece.data.dtype for piece in first] == [np.int16] * 2
    assert [len(piece.data) for piece in first] == [4 * 960, 14 * 960]
    assert max(np.abs(piece.data).max() for piece in first) > 10
    said = [word.text for piece in (*first, *last) for word in piece.words]
    assert said == ["Hello", "there", "you"]
    assert [piece.text for piece in first if piece.text] == ["Hello"]
    for piece in (*first, *last):
        assert all(mark.end_sample <= len(piece.data) for mark in piece.words)


def test_the_second_time_a_voice_is_not_heard_again(speaker, monkeypatch):
    speaker().open(SessionSetup())

    def hear(*_):
        raise AssertionError("it is kept on the disk")

    monkeypatch.setattr("minicpmo_ros.runtime.voices.cache.hear", hear)
    brain = speaker()
    brain.open(SessionSetup())
    assert brain.voice_trouble == ""


def test_of_a_turn_that_was_cut_off_only_what_was_heard_is_remembered(speaker, prompter):
    lengths = []
    for said in ("One two", "One two three four"):
        prompter.script.clear()
        brain = speaker()
        brain.open(SessionSetup())
        prompter.says(said)
        before = brain.unit(second(0), NOBODY).kv_length
        brain.settle()
        brain.interrupt("One two")
        brain.remember("One two", 0)
        lengths.append(brain.unit(second(1), NOBODY).kv_length - before)
    # All but the words behind, of which the longer has read so many more before.
    short, long = lengths
    assert long == short - len(prompter.tokenizer.encode(" three four"))


def test_without_assets_the_synthesiser_speaks_and_the_reason_is_told(speaker, prompter, tmp_path):
    voice = Tones()
    brain = speaker(voice, checkpoint=str(tmp_path))
    brain.open(SessionSetup())
    assert brain.voice_trouble.startswith("the model's own voice is silent: ")
    assert "assets/token2wav is missing" in brain.voice_trouble
    assert brain.voice.startswith("the synthesiser speaks its text: ")
    prompter.says("Hello there", end=True)
    result = brain.unit(second(0), NOBODY)
    assert (voice.said, result.rest) == (["Hello there"], None)


def test_the_synthesiser_can_be_forbidden(speaker, prompter, tmp_path):
    brain = speaker(Tones(), checkpoint=str(tmp_path), synthesiser_fallback=False)
    brain.open(SessionSetup())
    assert not brain.capabilities.speaks
    assert brain.voice.startswith("nothing speaks: ")
    prompter.says("Hello there", end=True)
    result = brain.unit(second(0), NOBODY)
    assert (result.text, result.speech) == ("Hello there", ())
    length = result.kv_length
    brain.settle()
    brain.remember("", -1)  # all of it could be read
    assert brain.unit(second(1), NOBODY).kv_length > length


def test_without_a_voice_to_speak_in_it_says_how_to_give_one(speaker):
    brain = speaker(Tones(), reference_voice="")
    brain.open(SessionSetup())
    assert "set reference_voice to a sound file" in brain.voice_trouble


def test_the_voice_that_comes_with_the_checkpoint_is_taken_if_there_is_no_other(speaker, assets):
    file = write_voice(assets / "assets" / "HT_ref_audio.wav")
    try:
        brain = speaker(reference_voice="")
        brain.open(SessionSetup())
        assert brain.voice.startswith("voice HT_ref_audio")
    finally:
        file.unlink()


def test_in_other_modes_the_synthesiser_speaks_and_the_voice_waits(speaker):
    brain = speaker(Tones())
    brain.open(SessionSetup(mode="streaming"))
    assert brain.voice == (
        "the synthesiser speaks its text: in mode streaming the model gives text only"
    )
    assert brain.voice_trouble == ""
    brain.open(SessionSetup())
    assert brain.voice.startswith("voice anna")


def test_voices_are_chosen_by_name(speaker, prompter, tmp_path):
    write_voice(tmp_path / "voices" / "bob.wav", pitch_hz=110)
    brain = speaker(voices=str(tmp_path / "voices"))
    assert brain.voices() == ("anna", "bob")
    sounds = []
    for name in ("anna", "bob", ""):
        prompter.script.clear()
        prompter.says("Hello there", end=True)
        brain.open(SessionSetup(voice=name))
        assert brain.voice.startswith(f"voice {name or 'anna'}")
        speech = all_of(brain.unit(second(0), NOBODY))
        sounds.append(np.concatenate([piece.data for piece in speech]))
        brain.settle()
    anna, bob, usual = sounds
    assert np.array_equal(anna, usual)
    assert not np.array_equal(anna[:9600], bob[:9600])


def test_what_is_not_well_with_the_recording_of_a_voice_is_told_while_it_speaks(speaker, tmp_path):
    write_voice(tmp_path / "voices" / "phone.wav", rate_hz=8_000, channels=2)
    brain = speaker(voices=str(tmp_path / "voices"))
    brain.open(SessionSetup())
    assert brain.voice_notes == VoiceNotes("anna")
    for _ in range(2):  # heard now, then kept
        brain.open(SessionSetup(voice="phone"))
        mixed, narrow = brain.voice_notes.notes
        assert (brain.voice_notes.voice, mixed) == ("phone", "its 2 channels are mixed down to one")
        assert "recorded at 8000 Hz" in narrow
        brain.open(SessionSetup(voice="phone", mode="streaming"))
        assert brain.voice_notes == VoiceNotes()
        brain = speaker(voices=str(tmp_path / "voices"))


def test_a_voice_of_no_use_leaves_the_one_before(speaker, prompter, tmp_path):
    (tmp_path / "voices" / "noise.wav").write_bytes(b"no sound at all")
    brain = speaker(voices=str(tmp_path / "voices"))
    brain.open(SessionSetup())
    with pytest.raises(ConfigError, match=r"no voice 'carl'.*there is anna, noise"):
        brain.open(SessionSetup(voice="carl"))
    with pytest.raises(InputError, match=r"noise\.wav"):
        brain.open(SessionSetup(voice="noise"))
    prompter.says("Hello", end=True)
    assert all_of(brain.unit(second(0), NOBODY))
    assert brain.voice.startswith("voice anna")
    with pytest.raises(ConfigError, match="give the parameter 'voices' a folder"):
        speaker().open(SessionSetup(voice="anna"))


class Broken:
    """A vocoder that fails with the second chunk of a turn."""

    def stream(self, codes, last):
        if not self.fresh:
            raise BrainError("the vocoder is gone")
        self.fresh = False
        return np.zeros(960, np.float32)

    def reset(self):
        self.fresh = True


def test_speech_that_is_lost_on_its_way_costs_nothing_else(speaker, prompter, monkeypatch):
    brain = speaker()
    monkeypatch.setattr(brain._voices, "vocoder", lambda *_: Broken())
    brain.open(SessionSetup())
    prompter.says("Hello there")
    prompter.says(" you", end=True)
    result = brain.unit(second(0), NOBODY)
    assert len(result.speech[0].data) == 960
    with pytest.raises(BrainError, match="speech of a unit is lost: the vocoder is gone"):
        next(result.rest)
    brain.settle()
    result = brain.unit(second(1), NOBODY)
    assert (result.text, len(result.speech)) == (" you", 1)


@pytest.mark.parametrize("chunks", ["eight", "8 4", "", "8.5"])
def test_chunks_of_no_use_are_refused(speaker, chunks):
    with pytest.raises(ConfigError, match="speech_chunks"):
        speaker(speech_chunks=chunks)
