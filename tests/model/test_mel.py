"""Log-mel spectrograms: equal to the reference's, and streamed ones to ones computed anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import InputError
from minicpmo_ros.model.mel import LEAD, SECOND, StreamingMel, log_mel, mel_bands
from tests.model.audio_stage import REFERENCE, seconds_of, wave


def quiet_noise(samples: int, seed: int = 0) -> np.ndarray:
    """So quiet that a click raises the dynamic floor above all of it."""
    rng = np.random.default_rng(seed)
    return (1e-6 * rng.standard_normal(samples)).astype(np.float32)


def mel_computed_anew(remembered: np.ndarray) -> np.ndarray:
    """The whole spectrogram of what a stream remembers, mirrored at both ends, by torch."""
    spectrum = torch.stft(
        torch.from_numpy(remembered).double(),
        n_fft=400,
        hop_length=160,
        window=torch.hann_window(400, dtype=torch.float64),
        return_complex=True,
    )
    power = torch.from_numpy(mel_bands(80)).T @ spectrum[:, :-1].abs() ** 2
    log_power = power.clamp(min=1e-10).log10()
    floor = -10.0 if len(remembered) < 5 * SECOND else log_power.max() - 8
    return ((log_power.clamp(min=floor) + 4) / 4).float().numpy()


def windows_computed_anew(sound: np.ndarray) -> list[np.ndarray]:
    """A window for each second, from the rule as it is written down, without a shortcut."""
    stream = np.concatenate([np.zeros(LEAD, np.float32), sound])
    first_sample, windows = 0, []
    for k in range(len(sound) // SECOND):
        end = 16480 + k * SECOND
        if end - first_sample >= 30 * SECOND:
            first_sample += 10 * SECOND
        mel = mel_computed_anew(stream[first_sample:end])
        start = 100 * k - 2 - first_sample // 160
        window = mel[:, max(start, 0) : start + 104]
        windows.append(np.pad(window, ((0, 0), (104 - window.shape[1], 0))))
    return windows


@pytest.mark.parametrize("second", [0, 4, 31])
def test_windows_of_a_stream_are_the_references(second):
    stream = StreamingMel()
    for sound in seconds_of(wave(45, seed=7))[: second + 1]:
        window = stream.push(sound)
    expected = REFERENCE[f"mel{second}"]  # its first window has no frames in front
    assert np.abs(window[:, -expected.shape[1] :] - expected).max() < 2e-5


def test_first_window_has_two_frames_of_zeros_in_front():
    window = StreamingMel().push(wave(1, seed=1))
    assert window.shape == (80, 104) and window.dtype == np.float32
    assert not window[:, :2].any() and window[:, 2].any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), level=st.floats(1e-6, 1.0), size=st.integers(1, 4))
def test_streamed_equals_whole_while_the_floor_is_fixed(seed, level, size):
    sound = (level * np.random.default_rng(seed).standard_normal(size * SECOND)).astype(np.float32)
    stream = StreamingMel()
    windows = np.concatenate([stream.push(s)[:, 2:102] for s in seconds_of(sound)], axis=1)
    whole = log_mel(np.pad(sound, (LEAD, 0)), floor=-10.0)
    assert np.allclose(windows, whole[:, : windows.shape[1]], atol=1e-6)


def test_windows_equal_those_computed_anew_over_two_slides():
    sound = wave(55, seed=3)
    stream = StreamingMel()
    for second, expected in zip(seconds_of(sound), windows_computed_anew(sound), strict=True):
        assert np.allclose(stream.push(second), expected, atol=1e-5)


@pytest.mark.parametrize(
    "loud_at",
    [
        pytest.param(160_000 + 50, id="mirrored-at-the-new-start"),
        pytest.param(160_000 + 190, id="second-frame-of-the-new-start"),
        pytest.param(159_990, id="just-forgotten"),
        pytest.param(480_480 - 30, id="mirrored-at-the-end"),
        pytest.param(0 + LEAD, id="start-of-the-stream"),
        pytest.param(300_000, id="in-the-middle"),
    ],
)
def test_a_click_sets_the_floor_wherever_it_is(loud_at):
    sound = quiet_noise(33 * SECOND)
    sound[loud_at - LEAD : loud_at - LEAD + 3] = 0.9
    stream = StreamingMel()
    for second, expected in zip(seconds_of(sound), windows_computed_anew(sound), strict=True):
        assert np.allclose(stream.push(second), expected, atol=1e-5)


@pytest.mark.parametrize(
    "samples", [1, 159, 160, 161, 1281, 16_000, 102_407, 479_000, 479_990, 480_000]
)
@pytest.mark.parametrize("floor", [None, -10.0])
def test_a_whole_spectrogram_is_whispers(samples, floor):
    """Whisper's own: padded to 30 s with silence, and cut to the frames that begin in the sound."""
    sound = quiet_noise(samples)
    sound[-1] = 1.0  # a click at the very end is loudest in a frame that is cut off
    padded = np.pad(sound, (0, 480_000 - samples)).astype(np.float64)
    spectrum = torch.stft(
        torch.from_numpy(padded),
        n_fft=400,
        hop_length=160,
        window=torch.hann_window(400, dtype=torch.float64),
        return_complex=True,
    )
    power = torch.from_numpy(mel_bands(80)).T @ spectrum[:, :-1].abs() ** 2
    log_power = power.clamp(min=1e-10).log10()
    log_power = log_power.clamp(min=log_power.max() - 8 if floor is None else floor)
    expected = ((log_power + 4) / 4)[:, : -(-samples // 160)].float().numpy()
    found = log_mel(sound, floor=floor)
    assert found.shape == expected.shape
    assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("mels", [80, 128])
def test_bands_are_slaneys_as_transformers_has_them(mels):
    audio_utils = pytest.importorskip("transformers.audio_utils")
    expected = audio_utils.mel_filter_bank(
        201, mels, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney"
    )
    assert np.allclose(mel_bands(mels), expected, atol=1e-9)


def test_silence_is_the_floor_and_no_error():
    stream = StreamingMel()
    for _ in range(7):
        window = stream.push(np.zeros(SECOND, np.float32))
    assert (window == -1.5).all()


def test_a_reset_stream_is_a_new_one():
    used, new = StreamingMel(), StreamingMel()
    for second in seconds_of(wave(8, seed=1)):
        used.push(second)
    used.reset()
    for second in seconds_of(quiet_noise(8 * SECOND)):
        assert np.array_equal(used.push(second), new.push(second))


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (np.zeros(15_999, np.float32), "15999 samples, not 16000"),
        (np.zeros(0, np.float32), "0 samples, not 16000"),
        (np.zeros((16_000, 2), np.float32), r"shape \(16000, 2\)"),
        (np.zeros(16_000, np.int16), "int16.*divide"),
        (np.full(16_000, np.nan, np.float32), "16000 samples that are NaN"),
        (np.append(np.zeros(15_999, np.float32), np.inf), "1 samples that are NaN or infinite"),
    ],
)
def test_a_bad_second_is_refused_and_the_stream_goes_on(second, says):
    disturbed, undisturbed = StreamingMel(), StreamingMel()
    good, better = seconds_of(wave(2, seed=1))
    disturbed.push(good)
    undisturbed.push(good)
    with pytest.raises(InputError, match=says):
        disturbed.push(second)
    assert np.array_equal(disturbed.push(better), undisturbed.push(better))


@pytest.mark.parametrize("samples", [0, 480_001])
def test_a_spectrogram_of_nothing_or_of_too_much_is_refused(samples):
    with pytest.raises(InputError, match=f"not {samples}"):
        log_mel(np.zeros(samples, np.float32))
