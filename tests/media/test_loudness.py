"""Levels in dBFS are those of known signals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.media.loudness import SILENCE_DBFS, peak_dbfs, rms_dbfs


def test_a_full_scale_sine_has_minus_3_dbfs_rms_and_0_dbfs_peak():
    sine = np.rint(32767 * np.sin(2 * np.pi * np.arange(1600) / 16)).astype(np.int16)
    assert rms_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert peak_dbfs(sine) == pytest.approx(0.0, abs=0.01)


def test_the_lowest_sample_is_full_scale_and_does_not_overflow():
    lowest = np.full(10, -32768, dtype=np.int16)
    assert rms_dbfs(lowest) == pytest.approx(0.0)
    assert peak_dbfs(lowest) == pytest.approx(0.0)


@pytest.mark.parametrize("samples", [np.zeros(0, np.int16), np.zeros((100, 2), np.int16)])
def test_silence_and_nothing_have_the_level_of_silence(samples):
    assert rms_dbfs(samples) == SILENCE_DBFS
    assert peak_dbfs(samples) == SILENCE_DBFS


@given(st.integers(1, 16_000), st.integers(1, 5_000))
def test_half_the_amplitude_is_6_db_less(amplitude, count):
    loud = np.full(count, 2 * amplitude, dtype=np.int16)
    soft = np.full(count, amplitude, dtype=np.int16)
    assert rms_dbfs(loud) - rms_dbfs(soft) == pytest.approx(6.02, abs=0.01)
    assert peak_dbfs(loud) - peak_dbfs(soft) == pytest.approx(6.02, abs=0.01)


def test_one_loud_sample_moves_the_peak_and_hardly_the_rms():
    click = np.zeros(10_000, dtype=np.int16)
    click[5_000] = 32767
    assert peak_dbfs(click) > -0.1
    assert rms_dbfs(click) == pytest.approx(-40.0, abs=0.1)
