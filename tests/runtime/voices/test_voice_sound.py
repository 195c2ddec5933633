"""Sound files that become voices: what is made of them, and which are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.sound_file import at_rate
from minicpmo_ros.runtime.voices import sound as module
from minicpmo_ros.runtime.voices.sound import read_voice_sound
from tests.runtime.voices.sounds import speech, spoken, written

LONGEST = 270_080 + 159  # 16.88 s and what is no whole hop of 10 ms


@pytest.mark.parametrize("rate_hz", [16_000, 24_000, 44_100])
def test_a_good_file_is_taken_whole_at_both_rates(tmp_path: Path, rate_hz: int) -> None:
    samples = speech(2.5, rate_hz)
    voice = read_voice_sound(written(tmp_path / "a.wav", samples, rate_hz))
    assert np.allclose(voice.at_16k, at_rate(samples, rate_hz, 16_000), atol=1e-6)
    assert np.allclose(voice.at_24k, at_rate(samples, rate_hz, 24_000), atol=1e-6)
    assert voice.notes == ()


@pytest.mark.parametrize("ending", [".flac", ".ogg"])
def test_other_kinds_of_files_hold_the_same_sound(tmp_path: Path, ending: str) -> None:
    voice = read_voice_sound(spoken(tmp_path / f"a{ending}"))
    assert np.abs(voice.at_16k - speech(3.0)).max() < 0.1


def test_channels_are_mixed_down_and_it_says_so(tmp_path: Path) -> None:
    left, right = speech(2, seed=1), speech(2, seed=2)
    voice = read_voice_sound(written(tmp_path / "a.wav", np.stack([left, right], axis=1)))
    assert np.allclose(voice.at_16k, (left + right) / 2, atol=1e-6)
    assert voice.notes == ("its 2 channels are mixed down to one",)


def test_a_file_from_the_telephone_is_taken_and_it_says_what_is_missing(tmp_path: Path) -> None:
    voice = read_voice_sound(spoken(tmp_path / "a.wav", 2, 8000))
    assert (len(voice.at_16k), len(voice.at_24k)) == (32_000, 48_000)
    (note,) = voice.notes
    assert "recorded at 8000 Hz" in note and "nothing above 4000 Hz" in note


@pytest.mark.parametrize("channels", [1, 2])
def test_a_clipped_file_is_taken_and_it_says_how_much_is(tmp_path: Path, channels: int) -> None:
    loud = np.clip(8 * speech(2), -1, 1)
    share = np.mean(np.abs(loud) == 1)
    quiet = 0.01 * loud
    sound = np.stack([loud, quiet][:channels], axis=1)
    voice = read_voice_sound(written(tmp_path / "a.wav", sound))
    assert voice.notes[-1].startswith(f"it is clipped: {share / channels:.1%} of its samples")


def test_a_loud_file_that_is_not_clipped_has_no_note(tmp_path: Path) -> None:
    loud = speech(2)
    loud *= 1 / np.abs(loud).max()
    assert read_voice_sound(written(tmp_path / "a.wav", loud)).notes == ()


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (speech(0.2), r"0\.20 s long; 1 to 60 s are taken"),
        (speech(60.5, 4000), r"60\.50 s long; 1 to 60 s are taken"),
        (np.zeros(32_000, np.float32), r"silent \(-180 dBFS\)"),
        (1e-4 * speech(2), "silent"),
        (np.full(32_000, np.nan, np.float32), "NaN"),
    ],
    ids=["short", "long", "silent", "quiet", "nan"],
)
def test_what_is_no_voice_is_refused_by_name(tmp_path: Path, samples, says: str) -> None:
    rate_hz = 4000 if len(samples) > 200_000 else 16_000
    with pytest.raises(InputError, match=rf"a\.wav: the reference voice .*{says}"):
        read_voice_sound(written(tmp_path / "a.wav", samples, rate_hz))


def test_channels_that_cancel_each_other_are_silence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="silent"):
        read_voice_sound(written(tmp_path / "a.wav", np.stack([speech(2), -speech(2)], axis=1)))


def test_what_is_no_sound_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is no sound")
    for name, reason in (("text.wav", "cannot be read as sound"), ("gone.wav", "does not exist")):
        with pytest.raises(InputError, match=f"{name} {reason}"):
            read_voice_sound(tmp_path / name)


def test_hours_of_sound_are_refused_before_they_are_read(tmp_path: Path, monkeypatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(7_200_000, np.int16), 1000)
    monkeypatch.setattr(module, "read_channels", None)
    with pytest.raises(InputError, match=r"7200\.00 s long"):
        read_voice_sound(tmp_path / "a.wav")


# -- too long for the vocoder, but not for an ear ---------------------------------------------


def test_the_longest_voice_is_taken_whole_and_a_longer_one_is_not(tmp_path: Path) -> None:
    whole = read_voice_sound(written(tmp_path / "a.wav", speech(20)[:LONGEST]))
    assert len(whole.at_16k) == LONGEST and whole.notes == ()
    cut = read_voice_sound(written(tmp_path / "b.wav", speech(20)[: LONGEST + 1]))
    assert len(cut.at_16k) < LONGEST and len(cut.notes) == 1


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("pause_s", [11.6, 14.0, 16.5])
def test_a_long_file_ends_in_a_pause(tmp_path: Path, pause_s: float, rate_hz: int) -> None:
    sound = speech(25, rate_hz)
    # A longer, deeper pause that comes too early and one that comes too late are none.
    for start_s, length_s in ((5.0, 1.0), (pause_s, 0.2), (18.0, 1.0)):
        sound[round(start_s * rate_hz) : round((start_s + length_s) * rate_hz)] *= 0.01
    voice = read_voice_sound(written(tmp_path / "a.wav", sound, rate_hz))
    assert pause_s < len(voice.at_16k) / 16_000 < pause_s + 0.2
    assert len(voice.at_16k) % 640 == 0  # whole speech tokens
    assert np.allclose(voice.at_16k, at_rate(sound, rate_hz, 16_000)[: len(voice.at_16k)])
    assert np.allclose(voice.at_24k, at_rate(sound, rate_hz, 24_000)[: len(voice.at_24k)])
    assert 2 * len(voice.at_24k) == 3 * len(voice.at_16k)
    end = f"{len(voice.at_16k) / 16_000:.2f}"
    (note,) = voice.notes
    assert note.startswith(f"of 25.00 s, those from 0.00 to {end} are used") and "16.88" in note


def test_of_two_pauses_the_quieter_one_is_taken_and_of_two_silences_the_later(
    tmp_path: Path,
) -> None:
    for factors, expected in (((0.01, 0.1), 12.0), ((0.1, 0.01), 15.0), ((0.0, 0.0), 15.0)):
        sound = speech(30)
        for start_s, factor in zip((12.0, 15.0), factors, strict=True):
            sound[round(start_s * 16_000) : round((start_s + 0.3) * 16_000)] *= factor
        voice = read_voice_sound(written(tmp_path / "a.wav", sound))
        assert expected < len(voice.at_16k) / 16_000 < expected + 0.3


@pytest.mark.parametrize("seconds", [17.0, 23.456, 60.0])
def test_without_a_pause_it_still_ends_in_time(tmp_path: Path, seconds: float) -> None:
    voice = read_voice_sound(spoken(tmp_path / "a.wav", seconds))
    assert 11.2 * 16_000 < len(voice.at_16k) <= LONGEST


@pytest.mark.parametrize(("silence_s", "starts_s"), [(0.1, 0.0), (3.0, 2.8), (40.0, 39.8)])
def test_silence_in_front_of_a_long_file_is_no_part_of_the_voice(
    tmp_path: Path, silence_s: float, starts_s: float
) -> None:
    sound = np.concatenate([np.zeros(round(silence_s * 16_000), np.float32), speech(20)])
    voice = read_voice_sound(written(tmp_path / "a.wav", sound))
    start = np.flatnonzero(voice.at_16k)[0] / 16_000
    assert start == pytest.approx(silence_s - starts_s, abs=0.11)
    assert len(voice.at_16k) / 16_000 > 11.2


def test_a_few_words_at_the_end_of_a_long_silence_are_a_voice(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(16_000 * 50, np.float32), speech(4)])
    voice = read_voice_sound(written(tmp_path / "a.wav", sound))
    assert len(voice.at_16k) / 16_000 == pytest.approx(4.2, abs=0.15)
    assert np.allclose(voice.at_16k[-1000:], sound[-1000:], atol=0.5) and voice.at_16k[-1]
