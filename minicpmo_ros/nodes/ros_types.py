"""rclpy's side of the wire: message classes by name, arrays, and quality of service."""

from __future__ import annotations

from array import array
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from minicpmo_ros.messages import NS_PER_S
from minicpmo_ros.topics import Topic


@lru_cache(maxsize=64)
def message_class(name: str) -> Any:
    """The class of "package/kind/Name"."""
    package, kind, leaf = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), leaf)


class RosTypes:
    """`minicpmo_ros.wire.Types` for rclpy."""

    def new(self, name: str, /, **fields: Any) -> Any:
        return message_class(name)(**fields)

    def int16(self, samples: np.ndarray) -> array:
        # rclpy copies an array.array in microseconds and anything else in milliseconds.
        packed = array("h")
        packed.frombytes(np.ascontiguousarray(samples, np.int16).reshape(-1).view(np.uint8))
        return packed


TYPES = RosTypes()


def uint8_array(data: bytes | np.ndarray) -> array:
    """What a uint8[] field takes at no cost."""
    packed = array("B")
    # As it lies: tobytes() would copy a picture once more, which took 2 ms.
    packed.frombytes(data if isinstance(data, bytes) else np.ascontiguousarray(data))
    return packed


def header(at_ns: int, frame_id: str) -> Any:
    time = TYPES.new("builtin_interfaces/msg/Time", sec=at_ns // NS_PER_S, nanosec=at_ns % NS_PER_S)
    return TYPES.new("std_msgs/msg/Header", stamp=time, frame_id=frame_id)


def qos(topic: Topic) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=topic.depth,
        reliability=ReliabilityPolicy.RELIABLE if topic.reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE,
    )
