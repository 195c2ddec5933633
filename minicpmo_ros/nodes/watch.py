"""A node that hands every message of the stack to a callback: the live view's eyes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node

from minicpmo_ros import topics
from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import Picture
from minicpmo_ros.nodes.ros_types import message_class, qos
from minicpmo_ros.topics import Topic
from minicpmo_ros.wire import READERS, Message

Watch = Callable[[str, int, "Message | Picture"], None]
# Compressed pictures only: a camera node encodes what somebody listens to.
WATCHED = (topics.MIC, topics.IMAGE_COMPRESSED, *topics.OUTPUTS)


class WatchNode(Node):
    """Calls watch(topic name, ROS time of arrival in ns, message)."""

    def __init__(self, watch: Watch, **options: Any) -> None:
        super().__init__("watch", **options)
        self._watch = watch
        for topic in WATCHED:
            self.create_subscription(
                message_class(topic.type), topic.name, partial(self._take, topic), qos(topic)
            )

    def _take(self, topic: Topic, message: Any) -> None:
        try:
            known = READERS[topic.type](message)
        except InputError as error:
            self.get_logger().warning(f"{topic.name}: {error}")
            return
        self._watch(topic.name, self.get_clock().now().nanoseconds, known)
