"""Writes a rosbag2 bag (MCAP) that `ros2 bag`, Foxglove and rosbags read.

The same messages give the same bytes, whatever the bag's folder is called: nothing in the file
depends on the clock, the machine or the name.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.messages import NS_PER_S, Picture
from minicpmo_ros.replay.interfaces import BagTypes, typestore
from minicpmo_ros.topics import IMAGE_COMPRESSED, Topic
from minicpmo_ros.wire import Message, to_ros, type_name

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos

DATA_FILE = "data.mcap"
# Version 9 writes QoS in a way that Humble's reader refuses; 8 is read from Humble to Kilted.
METADATA_VERSION: Literal[8] = 8
JPEG_QUALITY = 85


@final
class BagWriter:
    """A bag being written; it is whole once `close` has returned. Use it with `with`.

    counts: messages written, by topic name. Pictures become CompressedImage (JPEG). An exception
    inside the `with` closes the bag properly as well: what was recorded until then is kept.
    """

    def __init__(self, path: str | Path, namespace: str = "", overwrite: bool = False) -> None:
        """Raises `InputError` where path exists (and overwrite is off) or cannot be made."""
        self.path = Path(path)
        self.namespace = "/" + namespace.strip("/") if namespace.strip("/") else ""
        self.counts: dict[str, int] = {}
        self._types = BagTypes()
        self._store = typestore()
        self._connections: dict[str, Connection] = {}
        if overwrite:
            _remove_bag(self.path)
        if self.path.exists():
            raise InputError(
                f"{self.path} exists already: choose another name, or overwrite it (--force)"
            )
        self._writer = _open_writer(self.path)

    def write(self, topic: Topic, log_ns: int, message: Message | Picture) -> None:
        """Write a message. Raises `InputError` where the topic carries another type."""
        is_picture = isinstance(message, Picture)
        kind = IMAGE_COMPRESSED.type if is_picture else type_name(type(message))
        if kind != topic.type:
            raise InputError(f"topic {topic.name} carries {topic.type}, not {kind}")
        if isinstance(message, Picture):
            jpeg = encode_jpeg(message.rgb(), JPEG_QUALITY)
            self.write_jpeg(log_ns, message.stamp_ns, jpeg, message.frame_id)
        else:
            raw = self._store.serialize_cdr(to_ros(message, self._types), kind)
            self.write_raw(topic, log_ns, raw)

    def write_jpeg(
        self, log_ns: int, stamp_ns: int, jpeg: bytes | np.ndarray, frame_id: str = ""
    ) -> None:
        """Write a picture that is JPEG already."""
        new = self._types.new
        stamp = new(
            "builtin_interfaces/msg/Time", sec=stamp_ns // NS_PER_S, nanosec=stamp_ns % NS_PER_S
        )
        ros = new(
            IMAGE_COMPRESSED.type,
            header=new("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id),
            format="jpeg",
            data=np.frombuffer(jpeg, np.uint8),
        )
        raw = self._store.serialize_cdr(ros, IMAGE_COMPRESSED.type)
        self.write_raw(IMAGE_COMPRESSED, log_ns, raw)

    def write_raw(self, topic: Topic, log_ns: int, raw: bytes | memoryview) -> None:
        """Write a message that is serialised (CDR) already."""
        connection = self._connections.get(topic.name)
        if connection is None:
            connection = self._connections[topic.name] = self._connect(topic)
        try:
            self._writer.write(connection, log_ns, raw)
        except OSError as error:
            raise InputError(f"cannot write to bag {self.path}: {error}") from error
        self.counts[topic.name] = self.counts.get(topic.name, 0) + 1

    def close(self) -> None:
        """Write index and metadata; a second call does nothing."""
        if self._writer.storage is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            raise InputError(f"cannot finish bag {self.path}: {error}") from error

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _connect(self, topic: Topic) -> Connection:
        return self._writer.add_connection(
            f"{self.namespace}/{topic.name}",
            topic.type,
            typestore=self._store,
            offered_qos_profiles=[_qos(topic)],
        )


def _qos(topic: Topic) -> Qos:
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    forever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        topic.depth,
        QosReliability.RELIABLE if topic.reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if topic.latched else QosDurability.VOLATILE,
        deadline=forever,
        lifespan=forever,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )


def _open_writer(path: Path) -> Any:
    from rosbags.rosbag2 import StoragePlugin, Writer

    writer = Writer(path, version=METADATA_VERSION, storage_plugin=StoragePlugin.MCAP)
    try:
        writer.open()
        # rosbags names the file after the folder and puts that name into it; a fixed name keeps
        # the bytes of two bags of the same messages equal. The open file moves along.
        storage = writer.storage
        assert storage is not None
        storage.path = storage.path.rename(path / DATA_FILE)
    except OSError as error:
        raise InputError(f"cannot make bag {path}: {error}") from error
    return writer


def _remove_bag(path: Path) -> None:
    """Remove a bag that is to be overwritten, and never anything else."""
    if not path.exists():
        return
    files = list(path.iterdir()) if path.is_dir() else []
    known = {".mcap", ".db3", ".yaml"}
    if not files or not all(file.is_file() and file.suffix in known for file in files):
        raise InputError(f"{path} is no bag, so it is not overwritten: choose another name")
    shutil.rmtree(path)
