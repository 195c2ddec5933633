"""A rosbag2 recording as the project sees it: our topics, in log-time order, as dataclasses.

A bag of another robot fits too: topics are matched by their relative names under one namespace,
or by a mapping of names. What cannot be used is named and counted, and the rest goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, final

from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import Picture
from minicpmo_ros.replay.bag_writer import BagWriter
from minicpmo_ros.replay.interfaces import PACKAGE, typestore
from minicpmo_ros.replay.names import Names, match_names
from minicpmo_ros.topics import CAMERA_INFO, Topic
from minicpmo_ros.wire import READERS, Message

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Reader

__all__ = ["Bag", "BagWriter", "Record", "open_bag"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One message as it lies in the bag. log_ns: ROS time at which it was recorded; raw: CDR."""

    topic: Topic
    log_ns: int
    raw: bytes

    def message(self) -> Message | Picture:
        """The message decoded; of a picture only its header. Raises `InputError`."""
        try:
            ros = typestore().deserialize_cdr(self.raw, self.topic.type)
            return READERS[self.topic.type](ros)
        except InputError:
            raise
        except Exception as error:  # rosbags lets struct, numpy and unicode errors through
            raise InputError(
                f"{len(self.raw)} bytes are no {self.topic.type} ({type(error).__name__}: {error})"
            ) from error


@dataclass
class Faults:
    """Messages of a topic that could not be used: how many, and why the first could not."""

    count: int
    first: str


@final
@dataclass
class Bag:
    """An open bag; made by `open_bag`. Iterate as often as you like; close it, or use `with`.

    counts: messages of each of our topics. namespace: "" or such as "/robot1". skipped: why other
    topics of the bag are not used. start_ns and end_ns: log times of the first and last message
    of the whole bag. faults: what `messages` could not decode in its last run, by topic name.
    """

    path: Path
    namespace: str
    counts: dict[Topic, int]
    skipped: dict[str, str]
    start_ns: int
    end_ns: int
    _reader: Reader = field(repr=False)
    _connections: dict[int, tuple[Connection, Topic]] = field(repr=False)
    faults: dict[str, Faults] = field(default_factory=dict)

    @property
    def topics(self) -> tuple[Topic, ...]:
        return tuple(self.counts)

    @property
    def duration_s(self) -> float:
        return max(0, self.end_ns - self.start_ns) / 1e9

    def records(self, topics: Collection[Topic] | None = None) -> Iterator[Record]:
        """Messages of our topics (or of some of them) in log-time order, not decoded.

        Messages of the same time keep the order in which they were recorded. Raises `InputError`
        where the file turns out to be damaged.
        """
        wanted = self.counts.keys() if topics is None else set(topics)
        chosen = {k: (c, t) for k, (c, t) in self._connections.items() if t in wanted}
        if not chosen:
            return
        done = 0
        try:
            for connection, log_ns, raw in self._reader.messages([c for c, _ in chosen.values()]):
                yield Record(chosen[connection.id][1], log_ns, bytes(raw))
                done += 1
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"bag {self.path} is damaged after {done} messages ({error}); "
                "`mcap recover` may save what follows"
            ) from error

    def messages(
        self, topics: Collection[Topic] | None = None
    ) -> Iterator[tuple[Topic, int, Message | Picture]]:
        """(topic, log time in ns, message); camera_info and what cannot be decoded are left out."""
        self.faults.clear()
        for record in self.records(topics):
            if record.topic is CAMERA_INFO:
                continue
            try:
                message = record.message()
            except InputError as error:
                self.count_fault(record.topic, str(error))
                continue
            yield record.topic, record.log_ns, message

    def count_fault(self, topic: Topic, reason: str) -> None:
        """Note a message that could not be used; the first of a topic is logged."""
        known = self.faults.get(topic.name)
        if known is None:
            self.faults[topic.name] = Faults(1, reason)
            log.warning("bag %s: a message on %s is left out: %s", self.path, topic.name, reason)
        else:
            known.count += 1

    def close(self) -> None:
        if self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_bag(
    path: str | Path, remap: Mapping[str, str] | None = None, namespace: str | None = None
) -> Bag:
    """Open a rosbag2 folder or a single .mcap or .db3 file.

    remap: topic of the bag to topic of ours, e.g. {"camera/image": "image_raw"}. namespace: whose
    topics to take where the bag holds several robots'. Raises `InputError` for what is no bag, is
    truncated or damaged, or holds no topic of ours.
    """
    path = Path(path)
    reader = _open_reader(path)
    try:
        found = [(c.topic, c.msgtype) for c in reader.connections]
        names = match_names(found, remap or {}, namespace, str(path))
        bag = _bag_of(path, reader, names)
    except BaseException:
        reader.close()
        raise
    if bag.skipped:
        reasons = "; ".join(f"{topic}: {reason}" for topic, reason in bag.skipped.items())
        log.warning("bag %s: topics left out: %s", path, reasons)
    return bag


def _bag_of(path: Path, reader: Reader, names: Names) -> Bag:
    counts: dict[Topic, int] = {}
    skipped = dict(names.skipped)
    connections: dict[int, tuple[Connection, Topic]] = {}
    for connection in reader.connections:
        topic = names.topics.get((connection.topic, connection.msgtype))
        if topic is None:
            continue
        if not _same_definition(connection):
            skipped[connection.topic] = (
                f"its {connection.msgtype} has other fields than this version of minicpmo_ros"
            )
            continue
        connections[connection.id] = (connection, topic)
        counts[topic] = counts.get(topic, 0) + connection.msgcount
    if not counts:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise InputError(f"bag {path} holds no topic that can be used: {reasons}")
    # rosbags counts the end as one past the last message.
    empty = reader.message_count == 0
    start_ns, end_ns = (0, 0) if empty else (reader.start_time, reader.end_time - 1)
    return Bag(path, names.namespace, counts, skipped, start_ns, end_ns, reader, connections)


def _same_definition(connection: Connection) -> bool:
    """False where a type of ours was recorded with other fields: its bytes would be misread."""
    if not connection.msgtype.startswith(f"{PACKAGE}/"):
        return True
    ours = typestore().hash_rihs01(connection.msgtype)
    if connection.digest:
        return bool(connection.digest == ours)
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    if connection.msgdef.format != MessageDefinitionFormat.MSG:
        return True  # nothing to compare with
    theirs = get_typestore(Stores.EMPTY)
    theirs.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
    return bool(theirs.hash_rihs01(connection.msgtype) == ours)


def _open_reader(path: Path) -> Reader:
    try:
        from rosbags.rosbag2 import Reader
    except ImportError as error:
        raise InputError(f"bags need rosbags ({error}): pip install rosbags") from error
    if not path.exists():
        raise InputError(f"bag {path} does not exist")
    target = path
    if path.is_dir() and not (path / "metadata.yaml").exists():
        files = sorted(path.glob("*.mcap"))
        if not files:
            raise InputError(
                f"{path} is no bag: a folder with metadata.yaml and an .mcap file is wanted, "
                "or the .mcap file itself"
            )
        if len(files) > 1:
            raise InputError(
                f"bag {path} has no metadata.yaml: run `ros2 bag reindex {path}`, or give one of "
                + ", ".join(file.name for file in files)
            )
        target = files[0]  # a recorder that was killed leaves a bag like this
    if target.is_file() and target.suffix not in (".mcap", ".db3"):
        raise InputError(
            f"{path} is no bag: a rosbag2 folder or an .mcap file is wanted; for a video or a "
            f"sound file, make a bag first: `minicpmo bag from-video {path}`"
        )
    try:
        reader = Reader(target)
        reader.open()
    except Exception as error:  # rosbags lets struct, OS and YAML errors through as well
        raise InputError(
            f"bag {path} cannot be read, it is damaged or was cut off while recording ({error}); "
            "`mcap recover` saves what an .mcap file still holds"
        ) from error
    return reader
