"""Voices of nano's episodes: the same words sound the same, and one knows when each is heard."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from minicpmo_ros.errors import ConfigError, DeviceError
from minicpmo_ros.media.espeak_library import EspeakEvent, fresh_library
from minicpmo_ros.nano.espeak_phonemes import OTHER, PHONEMES, phoneme_index, place_phonemes
from minicpmo_ros.nano.other_synthesisers import OtherSynthesisers
from minicpmo_ros.nano.voices import (
    HELD_OUT_ACCENT,
    HELD_OUT_FLITE,
    HELD_OUT_VOICES,
    OTHER_VOICES,
    TRAINING_FLITE,
    TRAINING_VOICES,
    Speaker,
    Voice,
    random_voice,
)

SENTENCE = "Tell me when the red ball appears, please."
WORDS = ["Tell", "me", "when", "the", "red", "ball", "appears,", "please."]
RATE_HZ = 16_000


def has_espeak() -> bool:
    try:
        with fresh_library():
            return True
    except DeviceError:
        return False


espeak = pytest.mark.skipif(not has_espeak(), reason="libespeak-ng is not installed")


def needs(program: str) -> pytest.MarkDecorator:
    missing = shutil.which(program) is None
    return pytest.mark.skipif(missing, reason=f"{program} is not installed")


@pytest.fixture
def speaker(tmp_path) -> Speaker:
    return Speaker(tmp_path)


def accent_of(name: str) -> str:
    return name.split("+")[0]


def variant_of(name: str) -> str:
    return name.split("+")[1]


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


def test_no_voice_that_is_measured_with_is_trained_with():
    assert not set(TRAINING_VOICES) & set(HELD_OUT_VOICES)
    assert not set(TRAINING_FLITE) & set(HELD_OUT_FLITE)
    trained = {variant_of(name) for name in TRAINING_VOICES}
    held_out = {variant_of(name) for name in HELD_OUT_VOICES}
    assert not trained & held_out
    assert len(held_out) >= 8
    assert not any(name.startswith(HELD_OUT_ACCENT) for name in TRAINING_VOICES)
    assert any(name.startswith(HELD_OUT_ACCENT) for name in HELD_OUT_VOICES)


def test_voices_by_chance_are_of_their_split_and_repeat_with_their_seed():
    allowed = {
        "train": {("espeak", name) for name in TRAINING_VOICES}
        | {("flite", name) for name in TRAINING_FLITE},
        "espeak": {("espeak", name) for name in HELD_OUT_VOICES},
        "flite": {("flite", name) for name in HELD_OUT_FLITE},
        "other": {("festival", name) for name in OTHER_VOICES},
    }
    for split, names in allowed.items():
        one, again = (np.random.default_rng(3) for _ in range(2))
        voices = [random_voice(one, split, flite=0.3) for _ in range(200)]
        assert voices == [random_voice(again, split, flite=0.3) for _ in range(200)]
        drawn = {(voice.engine, voice.name) for voice in voices}
        assert drawn <= names
        assert len(drawn) >= min(50, len(names))
        assert split == "train" or all(voice.warp == 1.0 for voice in voices)
    rng = np.random.default_rng(3)
    assert {random_voice(rng).engine for _ in range(100)} == {"espeak"}


@espeak
def test_the_same_text_and_voice_are_the_same_whatever_was_spoken_before(speaker):
    voice = Voice("espeak", "en-us+f5", warp=1.1)
    first = speaker.say(SENTENCE, voice)
    speaker.say("Something else.", Voice("espeak", "en-gb-scotland+klatt2", rate=220, pitch=70))
    again = speaker.say(SENTENCE, voice)
    assert np.array_equal(first.samples, again.samples)
    assert (first.words, first.phonemes) == (again.words, again.phonemes)


@espeak
@pytest.mark.parametrize("warp", [0.88, 1.0, 1.14])
@pytest.mark.parametrize("name", ["en-us+m3", "en-gb+linda", "en-us-nyc+Alex"])
def test_words_sound_where_they_are_said_to(speaker, name, warp):
    said = speaker.say(SENTENCE, Voice("espeak", name, warp=warp))
    assert said.samples.dtype == np.float32 and said.samples.ndim == 1
    assert np.abs(said.samples).max() <= 1.0
    assert [word for word, _, _ in said.words] == WORDS
    previous = 0.0
    for _, start, stop in said.words:
        assert previous <= start < stop <= said.seconds
        assert rms(said.samples[round(start * RATE_HZ) : round(stop * RATE_HZ)]) > 0.01
        previous = stop
    # The pause at the comma belongs to no word.
    pause = said.samples[round(said.words[6][2] * RATE_HZ) : round(said.words[7][1] * RATE_HZ)]
    assert len(pause) > 0.05 * RATE_HZ
    assert rms(pause) < 0.001


@espeak
def test_phonemes_are_in_order_within_the_sound_and_those_of_the_words(speaker):
    said = speaker.say("me see, shoe", Voice("espeak", "en-us"))
    assert [PHONEMES[index] for index, _, _ in said.phonemes] == ["m", "i:", "s", "i:", "S", "u:"]
    previous = 0.0
    for _, start, stop in said.phonemes:
        assert previous <= start < stop <= said.seconds
        previous = stop
    spans = {
        PHONEMES[index]: said.samples[round(start * RATE_HZ) : round(stop * RATE_HZ)]
        for index, start, stop in said.phonemes
    }

    def high(samples: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        return float(power[len(power) * 3 // 8 :].sum() / power.sum())

    assert high(spans["s"]) > 0.5 > 0.1 > high(spans["m"])


@espeak
def test_silence_at_both_ends_is_cut(speaker):
    said = speaker.say("Pick it up, please", Voice("espeak", "en-us+m3"))
    loud = np.flatnonzero(np.abs(said.samples) > 0.001)
    assert loud[0] <= 0.025 * RATE_HZ
    assert len(said.samples) - loud[-1] <= 0.025 * RATE_HZ
    # The times are those of what is left.
    assert said.words[0][1] == 0.0
    assert said.words[-1][2] == pytest.approx(loud[-1] / RATE_HZ, abs=0.004)


@espeak
def test_a_warped_voice_is_faster_and_so_are_its_words(speaker):
    voice = Voice("espeak", "en-us+m3")
    plain = speaker.say(SENTENCE, voice)
    warped = speaker.say(SENTENCE, replace(voice, warp=1.1))
    assert len(warped.samples) == pytest.approx(len(plain.samples) / 1.1, abs=2)
    for before, after in zip(plain.words, warped.words, strict=True):
        assert after[1] == pytest.approx(before[1] / 1.1, abs=1e-3)


@espeak
def test_every_voice_listed_is_there_and_sounds_like_itself(speaker):
    names = {accent_of(name) for name in TRAINING_VOICES + HELD_OUT_VOICES}
    names |= {f"en-us+{variant_of(name)}" for name in TRAINING_VOICES + HELD_OUT_VOICES}
    spoken: dict[int, str] = {}
    for name in sorted(names):
        said = speaker.say("Which boy heard the church bell?", Voice("espeak", name))
        assert rms(said.samples) > 0.01, name
        assert OTHER not in [phoneme for phoneme, _, _ in said.phonemes], name
        same = spoken.setdefault(hash(said.samples.tobytes()), name)
        assert same == name


@espeak
def test_voices_do_not_depend_on_the_folder_of_links(speaker, tmp_path):
    (tmp_path / "file").write_text("")
    without = Speaker(tmp_path / "file" / "folder")
    for name in ("en-gb+f2", "en-029+m1", "en-gb-x-gbclan+f3", "en-us-nyc+m4", "de+f1"):
        voice = Voice("espeak", name)
        one, other = speaker.say(SENTENCE, voice), without.say(SENTENCE, voice)
        assert np.array_equal(one.samples, other.samples), name


@espeak
def test_what_cannot_be_spoken_is_no_sound(speaker):
    for text in ("", " \n", "..."):
        said = speaker.say(text, Voice("espeak", "en-us"))
        assert (len(said.samples), said.words, said.phonemes) == (0, (), ())


def test_phonemes_end_where_the_next_begins_or_the_clause_is_over():
    events = [
        EspeakEvent(7, 0, 100, "t"),
        EspeakEvent(1, 0, 150),
        EspeakEvent(7, 0, 200, "i:"),
        EspeakEvent(7, 0, 300, "_:"),
        EspeakEvent(7, 0, 400, "unheard of"),
        EspeakEvent(5, 0, 500),
        EspeakEvent(7, 0, 600, "u:"),
    ]
    t, i, u = (phoneme_index(name) for name in ("t", "i:", "u:"))
    expected = [(t, 100, 200), (i, 200, 300), (OTHER, 400, 500), (u, 600, 650)]
    assert place_phonemes(events, 650) == expected


@pytest.mark.parametrize(
    "fields, wrong",
    [
        ({"engine": "mbrola"}, "engine is 'mbrola'"),
        ({"rate": 20}, "rate is 20"),
        ({"pitch": 100}, "pitch is 100"),
        ({"range": -1}, "range is -1"),
        ({"warp": 3.0}, "warp is 3.0"),
    ],
)
def test_a_voice_out_of_range_is_refused(fields, wrong):
    with pytest.raises(ConfigError, match=wrong):
        Voice(**({"engine": "espeak", "name": "en-us"} | fields))


def test_a_split_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"'test'.*train, espeak, flite, other"):
        random_voice(np.random.default_rng(0), "test")


@espeak
def test_a_voice_that_espeak_does_not_have_is_refused(speaker):
    for name in ("xx-klingon", "en-us+nobody"):
        with pytest.raises(ConfigError, match=r"no such voice|no variant 'nobody'"):
            speaker.say("Hello.", Voice("espeak", name))


def test_a_synthesiser_that_is_missing_is_named_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    others = OtherSynthesisers(tmp_path)
    with pytest.raises(DeviceError, match="apt-get install flite"):
        others.say("flite", "slt", 170, "Hello.")
    with pytest.raises(ConfigError, match="'nobody': festival's are"):
        others.say("festival", "nobody", 170, "Hello.")


def fake(path, script: str) -> None:
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def test_what_was_spoken_once_is_kept_and_what_is_damaged_is_spoken_again(tmp_path, monkeypatch):
    import soundfile

    tone = (np.arange(800) % 50 * 200).astype(np.int16)
    soundfile.write(tmp_path / "tone.wav", tone, RATE_HZ)
    programs = tmp_path / "programs"
    programs.mkdir()
    # The last argument of flite is the file that it writes.
    script = f'echo >> {tmp_path}/calls; for f; do :; done; /bin/cp {tmp_path}/tone.wav "$f"'
    fake(programs / "flite", script)
    monkeypatch.setenv("PATH", str(programs))
    others = OtherSynthesisers(tmp_path / "cache")

    def calls() -> int:
        return len((tmp_path / "calls").read_text().splitlines())

    for _ in range(2):
        assert np.array_equal(others.say("flite", "slt", 170, "Hello.").pcm, tone)
    assert calls() == 1
    others.say("flite", "slt", 190, "Hello.")
    assert calls() == 2
    for entry in (tmp_path / "cache").rglob("*.npz"):
        entry.write_bytes(b"damaged")
    assert np.array_equal(others.say("flite", "slt", 170, "Hello.").pcm, tone)
    assert calls() == 3


def test_a_synthesiser_that_fails_says_why(tmp_path, monkeypatch):
    fake(tmp_path / "festival", "echo no such voice >&2; exit 3")
    monkeypatch.setenv("PATH", str(tmp_path))
    others = OtherSynthesisers(tmp_path / "cache")
    with pytest.raises(DeviceError, match=r"festvox-kdlpc16k.*no such voice"):
        others.say("festival", "ked_diphone", 170, "Hello.")


@needs("flite")
@espeak
@pytest.mark.parametrize("name", TRAINING_FLITE + HELD_OUT_FLITE)
def test_flite_speaks(speaker, name):
    slow = speaker.say("Where is the ball?", Voice("flite", name, rate=150))
    fast = speaker.say("Where is the ball?", Voice("flite", name, rate=190))
    assert rms(slow.samples) > 0.01
    assert 0.7 < fast.seconds < slow.seconds < 3.0
    assert [word for word, _, _ in slow.words] == ["Where", "is", "the", "ball?"]
    names = [PHONEMES[index] for index, _, _ in slow.phonemes]
    assert names[0] == "w"
    assert names[-3:] == ["b", "O:", "l"]
    for spans in (slow.words, slow.phonemes):
        times = [when for _, *span in spans for when in span]
        assert times == sorted(times)
        assert times[0] < 0.3  # some of its voices begin with a breath
        assert slow.seconds - 0.3 < times[-1] <= slow.seconds


@needs("flite")
@espeak
def test_flite_tells_times_of_what_was_kept_and_of_what_is_warped(speaker):
    plain = Voice("flite", "rms", rate=150)
    first, again = (speaker.say("Where is the ball?", plain) for _ in range(2))
    assert first.words == again.words
    warped = speaker.say("Where is the ball?", replace(plain, warp=1.1))
    for (_, start, stop), (_, begin, end) in zip(first.words, warped.words, strict=True):
        assert begin == pytest.approx(start / 1.1, abs=0.03)
        assert end == pytest.approx(stop / 1.1, abs=0.03)


@needs("festival")
@espeak
@pytest.mark.parametrize("name", OTHER_VOICES)
def test_festival_speaks_and_takes_no_text_for_a_command(speaker, name):
    try:
        said = speaker.say("Where is the ball?", Voice("festival", name))
    except DeviceError as error:
        pytest.skip(str(error))
    assert rms(said.samples) > 0.01
    assert 0.7 < said.seconds < 3.0
    assert len(speaker.say('ball") (quit) ("', Voice("festival", name)).samples)
