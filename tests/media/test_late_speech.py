"""Speech that comes too late: gaps, the delay that they leave, and when it is caught up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.media.playback import PlayQueue
from minicpmo_ros.media.tape import Fade
from tests.media.test_playback import FINISHED, RATE, Device, ns, ramp, speech


def arrive(lateness: list[int], *, pause: int = 0, block: int = 2_400) -> Device:
    """Pieces of a second, each so many samples later than a turn without gaps needs it, and all of
    their sound. Sound that resumes is not faded."""
    device = Device(PlayQueue(), block)
    device.queue._fade = Fade(0)
    for number, late in enumerate([0, *lateness]):
        sound = ramp(RATE, first=1 + number * RATE)
        sound[RATE // 2 : RATE // 2 + pause] = 0
        device.play(number * RATE + late - device.frame)
        device.queue.push(speech(sound, sequence=number, last=number == len(lateness)))
    return device.play((2 + len(lateness)) * RATE + max(lateness) - device.frame)


def test_what_is_late_again_and_again_makes_one_gap() -> None:
    device = arrive([2_400, -7_200] * 5, pause=9_600)
    assert device.queue.stats.underruns == 1
    # Only once all has come, nothing can be late any more.
    delays = [r.concealed_samples for r in device.reports if ns(1.1 * RATE) <= r.stamp_ns]
    assert delays == sorted(delays, reverse=True)
    assert (delays[:85], delays[-1]) == ([2_400] * 85, 0)


@pytest.mark.parametrize(("seconds", "caught_up"), [(4, 0), (6, 4_800)])
def test_what_was_late_once_is_caught_up_when_it_was_in_time_for_five_seconds(
    seconds: int, caught_up: int
) -> None:
    device = arrive([4_800] + [-7_200] * 8, pause=9_600)
    late_s = 1.2
    at_ns = ns((late_s + seconds) * RATE)
    concealed = next(r.concealed_samples for r in device.reports if r.stamp_ns >= at_ns)
    assert concealed == 4_800 - caught_up


@settings(max_examples=100, deadline=None)
@given(
    lateness=st.lists(
        st.integers(-3, 4).map(lambda tenths: tenths * 2_400), min_size=1, max_size=12
    ),
    pause=st.sampled_from([0, 2_400, 12_000]),
)
def test_no_delay_is_longer_than_the_worst_lateness_and_nothing_sounds_twice(
    lateness: list[int], pause: int
) -> None:
    device = arrive(lateness, pause=pause)
    sounded = device.samples[device.samples != 0]
    whole = np.concatenate([ramp(RATE, 1 + k * RATE) for k in range(len(lateness) + 1)])
    places = np.arange(len(whole)) % RATE - RATE // 2
    np.testing.assert_array_equal(sounded, whole[(places < 0) | (places >= pause)])
    worst = [max(0, *lateness[: number + 1]) for number in range(len(lateness))]
    assert max(r.concealed_samples for r in device.reports) == worst[-1]
    assert device.report(FINISHED).turn_samples == len(whole)
    stats = device.queue.stats
    late = stats.concealed_samples - stats.caught_up_samples
    assert device.report(FINISHED).concealed_samples == late
    if not pause:
        # Each that is later than all before it makes a gap.
        assert stats.underruns == len({0, *worst}) - 1
        assert stats.concealed_samples == worst[-1]
