"""Arrays and headers of ROS messages."""

from __future__ import annotations

import numpy as np
import pytest

from minicpmo_ros.nodes.ros_types import TYPES, header, uint8_array

PICTURE = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)


@pytest.mark.parametrize(
    "data",
    [PICTURE, PICTURE[:, ::2], PICTURE.transpose(1, 0, 2), PICTURE[:0], b"bytes"],
    ids=["whole", "with steps", "turned", "empty", "bytes"],
)
def test_bytes_arrive_in_the_order_of_the_picture(data):
    expected = data if isinstance(data, bytes) else data.tobytes()
    assert uint8_array(data).tobytes() == expected


@pytest.mark.parametrize("step", [1, 2, -1])
def test_samples_arrive_as_they_are(step):
    samples = np.array([-32768, -1, 0, 1, 32767], np.int16)[::step]
    assert list(TYPES.int16(samples)) == list(samples)
    assert len(TYPES.int16(samples[:0])) == 0


@pytest.mark.parametrize("at_ns", [0, 1, 999_999_999, 1_700_000_000_123_456_789, -1])
def test_a_header_holds_the_time_to_the_nanosecond(at_ns):
    stamp = header(at_ns, "eye").stamp
    assert stamp.sec * 10**9 + stamp.nanosec == at_ns
    assert 0 <= stamp.nanosec < 10**9
