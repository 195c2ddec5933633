"""What is heard of a reference voice: equal to the published code, at any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.errors import InputError
from minicpmo_ros.model.mel import mel_bands, mirrored_log_mel
from minicpmo_ros.model.voice_features import fbank, prompt_mel
from minicpmo_ros.parity.inputs import wave

REFERENCE = np.load(Path(__file__).parent / "data" / "voice.npz")


def heard() -> np.ndarray:
    """Speech-like sound with a pause of digital silence and a click at the very end."""
    sound = wave(1.3, seed=11)[:20_777].copy()
    sound[3000:7000] = 0.0
    sound[-1] = 0.9
    return sound


@pytest.mark.parametrize(
    ("name", "feature", "tolerance"),
    [("fbank", fbank, 1e-3), ("prompt_mel", prompt_mel, 1e-4), ("log_mel", mirrored_log_mel, 1e-4)],
)
def test_features_are_those_of_the_published_code(name, feature, tolerance):
    found = feature(heard())
    assert found.dtype == np.float32
    assert found.shape == REFERENCE[name].shape
    assert np.abs(found - REFERENCE[name]).max() < tolerance


@pytest.mark.parametrize("samples", [480 * 40, 480 * 40 + 1, 480 * 41 - 1])
def test_each_whole_hop_has_its_frame(samples):
    sound = wave(2, seed=1)[:samples]
    assert prompt_mel(sound).shape == (samples // 480, 80)
    assert mirrored_log_mel(sound).shape == (128, samples // 160)
    assert fbank(sound).shape == ((samples - 400) // 160 + 1, 80)


def test_the_filter_bank_does_not_know_how_loud_it_was():
    """Its mean is taken off, so a factor is, too, for what is above the floor."""
    sound = np.random.default_rng(2).uniform(-1, 1, 16_000).astype(np.float32)
    assert np.allclose(fbank(sound), fbank(0.25 * sound), atol=1e-4)
    assert np.abs(fbank(sound).mean(axis=0)).max() < 1e-5


def test_bands_that_end_below_half_the_rate_leave_the_rest_out():
    bands = mel_bands(80, 1920, 24_000, 8_000)
    hz = np.linspace(0, 12_000, 961)
    assert bands.shape == (961, 80)
    assert not bands[hz >= 8_000].any()
    assert (bands.sum(axis=0) * 12.5 == pytest.approx(1.0, abs=0.1)) and bands[640 - 5, -1] > 0


@pytest.mark.parametrize(
    ("feature", "shortest"), [(fbank, 400), (prompt_mel, 721), (mirrored_log_mel, 201)]
)
def test_a_sound_too_short_for_one_frame_is_refused(feature, shortest):
    assert feature(wave(1, seed=0)[:shortest]).size
    with pytest.raises(InputError, match=f"not {shortest - 1}"):
        feature(wave(1, seed=0)[: shortest - 1])


def test_a_tokenizers_spectrogram_is_of_no_more_than_30_seconds():
    assert mirrored_log_mel(wave(30, seed=0)).shape == (128, 3000)
    with pytest.raises(InputError, match="480001"):
        mirrored_log_mel(np.zeros(480_001, np.float32))
