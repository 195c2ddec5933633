"""Sound files read as a whole, at the rate that is wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.sound_file import open_sound, read_sound


def tone(seconds: float, rate_hz: int, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(
        np.float32
    )


def frequency(samples: np.ndarray, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate_hz / len(samples)


@pytest.mark.parametrize(("suffix", "subtype", "tolerance"), [
    (".wav", "FLOAT", 0.0), (".wav", "PCM_16", 2**-15), (".wav", "PCM_24", 2**-23),
    (".flac", "PCM_16", 2**-15), (".ogg", "VORBIS", 0.05),
])  # fmt: skip
def test_a_file_at_the_wanted_rate_is_given_as_it_is(tmp_path, suffix, subtype, tolerance):
    path = tmp_path / f"sound{suffix}"
    soundfile.write(path, tone(1, 16_000), 16_000, subtype=subtype)
    samples = read_sound(path, 16_000)
    assert samples.dtype == np.float32
    assert samples.shape == (16_000,)
    assert np.abs(samples - tone(1, 16_000)).max() <= tolerance


@given(
    rate_hz=st.sampled_from([8000, 11_025, 22_050, 44_100, 48_000]), length_ms=st.integers(200, 900)
)
@settings(max_examples=20)
def test_another_rate_keeps_length_and_pitch(tmp_path_factory, rate_hz, length_ms):
    path = tmp_path_factory.mktemp("sound") / "sound.wav"
    soundfile.write(path, tone(length_ms / 1000, rate_hz, 1000.0), rate_hz)
    samples = read_sound(path, 16_000)
    assert samples.dtype == np.float32
    assert abs(len(samples) - 16 * length_ms) <= 1
    assert frequency(samples, 16_000) == pytest.approx(1000.0, abs=2 * 1000 / length_ms)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_what_the_wanted_rate_cannot_hold_is_filtered_not_folded(tmp_path):
    path = tmp_path / "high.wav"
    soundfile.write(path, tone(1, 48_000, 13_000.0), 48_000)
    assert np.abs(read_sound(path, 16_000)[1000:-1000]).max() < 0.005


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_channels_are_averaged(tmp_path, rate_hz):
    left, right = tone(1, rate_hz, 300.0), tone(1, rate_hz, 700.0)
    soundfile.write(tmp_path / "both.wav", np.stack([left, right], 1), rate_hz, subtype="FLOAT")
    soundfile.write(tmp_path / "mean.wav", (left + right) / 2, rate_hz, subtype="FLOAT")
    both, mean = (read_sound(tmp_path / f"{name}.wav", 16_000) for name in ("both", "mean"))
    np.testing.assert_allclose(both, mean, atol=1e-6)
    assert np.abs(both).max() > 0.3


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_what_is_no_sound_file_is_refused_by_name(tmp_path):
    for path in (
        tmp_path / "gone.wav",
        tmp_path,
        written(tmp_path / "text.wav", b"this is no sound"),
        written(tmp_path / "nothing.wav", b""),
        written(tmp_path / "head.wav", b"RIFF\x00\x00\x00\x00WAVE"),
    ):
        with pytest.raises(
            InputError, match=r"(cannot be read as sound|gone\.wav does not exist).*wav, flac"
        ) as raised:
            read_sound(path, 16_000)
        assert str(path) in str(raised.value)


def test_a_file_without_samples_is_refused(tmp_path):
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0, np.float32), 16_000)
    for read in (open_sound, lambda path: read_sound(path, 16_000)):
        with pytest.raises(InputError, match=r"empty\.wav holds no sound: it has no samples"):
            read(path)


def test_a_file_that_is_damaged_further_on_is_refused_by_name(tmp_path):
    path = tmp_path / "sound.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32)
    soundfile.write(path, noise, 16_000)
    path.write_bytes(path.read_bytes()[:20_000] + bytes(500) + path.read_bytes()[20_500:40_000])
    with pytest.raises(InputError, match=r"sound\.flac cannot be read as sound to its end"):
        read_sound(path, 16_000)


def test_a_path_may_be_a_text(tmp_path):
    soundfile.write(tmp_path / "sound.wav", tone(0.1, 8000), 8000)
    with open_sound(str(tmp_path / "sound.wav")) as file:
        assert (file.samplerate, file.frames) == (8000, 800)
