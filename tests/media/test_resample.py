"""Rate conversion, whole and as a stream."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.media.resample import StreamResampler, resample

RATES = [(48_000, 16_000), (44_100, 16_000), (8_000, 16_000), (24_000, 48_000), (24_000, 44_100)]


def tone(rate_hz: int, seconds: float = 1.0, hz: float = 300.0) -> np.ndarray:
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.rint(9_000 * np.sin(2 * np.pi * hz * time_s)).astype(np.int16)


def middle(samples: np.ndarray) -> np.ndarray:
    return samples[len(samples) // 5 : -len(samples) // 5].astype(float)


@pytest.mark.parametrize(("in_hz", "out_hz"), RATES)
def test_a_tone_stays_the_tone_it_was(in_hz: int, out_hz: int) -> None:
    converted = resample(tone(in_hz), in_hz, out_hz)
    assert len(converted) == out_hz
    np.testing.assert_allclose(middle(converted), middle(tone(out_hz)), atol=3)


@pytest.mark.parametrize(("in_hz", "out_hz"), RATES)
def test_a_streamed_sample_shows_the_input_where_it_says(in_hz: int, out_hz: int) -> None:
    resampler = StreamResampler(in_hz, out_hz)
    blocks = np.array_split(tone(in_hz), 50)
    pieces = [resampler.process(block) for block in blocks[:-1]]
    pieces.append(resampler.process(blocks[-1], last=True))
    converted = np.concatenate(pieces)
    assert len(converted) == out_hz
    places = np.array([resampler.input_frame(sample) for sample in range(out_hz)])
    wanted = 9_000 * np.sin(2 * np.pi * 300 * places / in_hz)
    np.testing.assert_allclose(middle(converted), middle(wanted), atol=4)


@settings(deadline=None, max_examples=30)
@given(rates=st.sampled_from(RATES), data=st.data())
def test_how_a_stream_is_cut_changes_nothing(rates: tuple[int, int], data: st.DataObject) -> None:
    in_hz, out_hz = rates
    samples = np.random.default_rng(3).integers(-20_000, 20_000, in_hz // 4).astype(np.int16)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(samples)), max_size=12)))
    whole = StreamResampler(in_hz, out_hz).process(samples, last=True)
    cut = StreamResampler(in_hz, out_hz)
    pieces = [cut.process(piece) for piece in np.split(samples, cuts)]
    pieces.append(cut.process(samples[:0], last=True))
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize(("in_hz", "out_hz"), RATES)
def test_little_of_a_stream_is_held_back(in_hz: int, out_hz: int) -> None:
    resampler = StreamResampler(in_hz, out_hz)
    for _ in range(100):
        resampler.process(np.zeros(in_hz // 50, np.int16))
        assert resampler.pending_s <= 0.0301


def test_channels_are_kept_apart() -> None:
    left, right = tone(48_000, hz=300), tone(48_000, hz=500)
    both = StreamResampler(48_000, 16_000, 2).process(np.stack([left, right], axis=1), last=True)
    assert both.shape == (16_000, 2)
    alone = StreamResampler(48_000, 16_000).process(right, last=True)
    np.testing.assert_array_equal(both[:, 1], alone)


def test_full_scale_does_not_wrap_around() -> None:
    square = np.where(tone(48_000, hz=440) >= 0, 32767, -32768).astype(np.int16)
    converted = resample(square, 48_000, 16_000)
    reference = resample((square // 4).astype(np.int16), 48_000, 16_000).astype(float) * 4
    assert np.abs(converted - np.clip(reference, -32768, 32767)).max() < 20


def test_a_new_stream_begins_after_the_last_piece() -> None:
    resampler = StreamResampler(48_000, 16_000)
    first = resampler.process(tone(48_000), last=True)
    np.testing.assert_array_equal(resampler.process(tone(48_000), last=True), first)


def test_the_same_rate_changes_nothing() -> None:
    resampler = StreamResampler(16_000, 16_000)
    np.testing.assert_array_equal(resampler.process(tone(16_000)), tone(16_000))
    assert resampler.pending_s == 0


@pytest.mark.parametrize("rate_hz", [0, -16_000, 10**7])
def test_an_impossible_rate_is_named(rate_hz: int) -> None:
    with pytest.raises(ConfigError, match=f"{rate_hz} Hz"):
        StreamResampler(rate_hz, 16_000)
