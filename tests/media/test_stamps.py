"""From device times to stamps."""

import random
from itertools import pairwise

import pytest

from minicpmo_ros.media.stamps import DeviceTime, StampTracker
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S

BLOCK = 320
RATE = 16_000
BLOCK_NS = 20 * NS_PER_MS


def track(tracker: StampTracker, blocks: range, time_of: object) -> list[int]:
    """Observe blocks at time_of(block) and give the stamp of each."""
    stamps = []
    for block in blocks:
        tracker.observe(block * BLOCK, time_of(block))  # type: ignore[operator]
        stamps.append(tracker.stamp(block * BLOCK))
    return stamps


def test_noise_of_milliseconds_does_not_reach_the_stamps() -> None:
    noise = random.Random(1)
    stamps = track(
        StampTracker(RATE, settling=50),
        range(500),
        lambda block: block * BLOCK_NS + round(noise.gauss(0, 2 * NS_PER_MS)),
    )
    steps = [b - a for a, b in pairwise(stamps[60:])]
    assert all(abs(step - BLOCK_NS) <= 5_000 for step in steps)
    assert all(
        abs(stamp - k * BLOCK_NS) < 2 * NS_PER_MS for k, stamp in enumerate(stamps) if k > 60
    )


@pytest.mark.parametrize("ppm", [-100, 50, 150])
def test_a_drifting_sound_card_is_followed(ppm: int) -> None:
    tracker = StampTracker(RATE)
    true = lambda block: block * BLOCK_NS * (1_000_000 + ppm) // 1_000_000  # noqa: E731
    stamps = track(tracker, range(5_000), true)
    assert abs(stamps[-1] - true(4_999)) < NS_PER_MS
    assert tracker.jumps == 0


def test_lost_sound_moves_the_stamps_at_once_and_is_counted() -> None:
    tracker = StampTracker(RATE)
    lost_ns = 200 * NS_PER_MS
    track(tracker, range(100), lambda block: block * BLOCK_NS)
    stamps = track(tracker, range(100, 110), lambda block: block * BLOCK_NS + lost_ns)
    assert stamps[-1] == 109 * BLOCK_NS + lost_ns
    assert (tracker.jumps, tracker.jumped_ns) == (1, lost_ns)


def test_two_wild_measurements_move_nothing() -> None:
    tracker = StampTracker(RATE)
    wild = {50: NS_PER_S, 51: -NS_PER_S}
    stamps = track(tracker, range(100), lambda block: block * BLOCK_NS + wild.get(block, 0))
    assert stamps == [block * BLOCK_NS for block in range(100)]


def test_device_time_is_mapped_by_the_shortest_wait() -> None:
    """Python gets to the callback up to 8 ms after PortAudio has read its clock."""
    noise = random.Random(2)
    now = 0
    device_time = DeviceTime(lambda: now)
    offset_ns = 1_700_000_000 * NS_PER_S
    for block in range(200):
        current_s = 5.0 + block * 0.02
        now = offset_ns + round(current_s * NS_PER_S) + round(noise.uniform(0, 8 * NS_PER_MS))
        mapped = device_time.ros_ns(current_s - 0.03, current_s, 0)
        if block > 20:
            error = mapped - offset_ns - round((current_s - 0.03) * NS_PER_S)
            assert 0 <= error < 2 * NS_PER_MS


@pytest.mark.parametrize(
    ("device_s", "current_s"),
    [(0.0, 7.0), (7.0, 0.0), (1e9, 7.0), (-1.0, 7.0), (float("nan"), 7.0)],
)
def test_a_nonsense_time_falls_back_to_the_callback_and_is_counted(
    device_s: float, current_s: float
) -> None:
    device_time = DeviceTime(lambda: 1_000 * NS_PER_S)
    assert device_time.ros_ns(device_s, current_s, -40 * NS_PER_MS) == 999_960 * NS_PER_MS
    assert device_time.fallbacks == 1


def test_a_clock_set_ahead_is_followed_at_once_and_one_set_back_too() -> None:
    now = 1_000 * NS_PER_S
    device_time = DeviceTime(lambda: now)
    for block in range(100):
        device_time.ros_ns(5.0 + block * 0.02, 5.0 + block * 0.02, 0)
        now += BLOCK_NS
    for jump_ns in (3_600 * NS_PER_S, -7_200 * NS_PER_S):
        now += jump_ns
        assert device_time.ros_ns(7.0, 7.0, 0) == now


def test_a_small_loss_is_believed_when_the_device_reports_one() -> None:
    for reported in (True, False):
        tracker = StampTracker(RATE)
        track(tracker, range(100), lambda block: block * BLOCK_NS)
        if reported:
            tracker.doubt()
        stamps = track(tracker, range(100, 110), lambda block: (block + 1) * BLOCK_NS)
        assert tracker.jumps == reported
        assert (stamps[-1] == 110 * BLOCK_NS) == reported


def test_measurements_that_glide_make_one_jump_when_they_have_come_to_rest() -> None:
    tracker = StampTracker(RATE)
    track(tracker, range(50), lambda block: block * BLOCK_NS)
    track(tracker, range(50, 70), lambda block: block * BLOCK_NS + (block - 50) * BLOCK_NS)
    stamps = track(tracker, range(70, 80), lambda block: (block + 20) * BLOCK_NS)
    assert tracker.jumps == 1
    assert stamps[-1] == 99 * BLOCK_NS


def test_measurements_that_never_come_to_rest_are_believed_after_a_second() -> None:
    noise = random.Random(3)
    tracker = StampTracker(RATE)
    track(tracker, range(50), lambda block: block * BLOCK_NS)
    wild = lambda block: (block + 50) * BLOCK_NS + noise.randint(-1, 1) * 80 * NS_PER_MS  # noqa: E731
    stamps = track(tracker, range(50, 120), wild)
    assert abs(stamps[-1] - 169 * BLOCK_NS) < 100 * NS_PER_MS
