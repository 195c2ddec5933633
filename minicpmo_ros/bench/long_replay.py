"""A replay without end, in a process of its own: one scene again and again, as one long recording.

Started by `minicpmo_ros.bench.replays`; says on stdout how many seconds of bag time are done.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from minicpmo_ros.messages import NS_PER_S
from minicpmo_ros.replay.bag import Bag, open_bag
from minicpmo_ros.replay.drive import ReplaySummary, drive
from minicpmo_ros.replay.offline import OfflineStage

SAY_EVERY_S = 10.0
_STAMP = struct.Struct("<iI")  # of a std_msgs/Header, which every input begins with
_STAMP_AT = 4  # after the four bytes that say how CDR is encoded


class Repeated:
    """A rosbags reader's messages again and again, each round shifted in time by period_ns."""

    def __init__(self, reader: Any, rounds: int, period_ns: int) -> None:
        self._reader = reader
        self._rounds = rounds
        self._period_ns = period_ns

    def messages(self, connections: Iterable[Any]) -> Iterator[tuple[Any, int, bytes]]:
        for i in range(self._rounds):
            shift_ns = i * self._period_ns
            for connection, log_ns, raw in self._reader.messages(connections):
                yield connection, log_ns + shift_ns, shifted(raw, shift_ns)

    def close(self) -> None:
        self._reader.close()


def shifted(raw: bytes, by_ns: int) -> bytes:
    """A message in CDR, little endian, whose header is stamped later by by_ns."""
    seconds, rest_ns = _STAMP.unpack_from(raw, _STAMP_AT)
    later = bytearray(raw)
    _STAMP.pack_into(later, _STAMP_AT, *divmod(seconds * NS_PER_S + rest_ns + by_ns, NS_PER_S))
    return bytes(later)


def repeated(bag: Bag, seconds: float, length_s: float) -> Bag:
    """The bag as one of `seconds`: whole rounds of length_s, one right behind the other."""
    period_ns = round(length_s * NS_PER_S)
    rounds = max(1, round(seconds / length_s))
    return replace(
        bag,
        end_ns=bag.end_ns + (rounds - 1) * period_ns,
        _reader=Repeated(bag._reader, rounds, period_ns),  # type: ignore[arg-type]
    )


def replay_long(scene: Path, out: Path, seconds: float, length_s: float) -> ReplaySummary:
    """Replay it into out (results only), saying how far it is every ten seconds of bag time."""
    said_s = 0.0

    def say(done_s: float) -> None:
        nonlocal said_s
        if done_s >= said_s + SAY_EVERY_S:
            said_s = done_s
            print(f"{done_s:.1f}", flush=True)

    with open_bag(scene) as bag:
        return drive(
            repeated(bag, seconds, length_s),
            out,
            lambda bag, pictures: OfflineStage.for_bag(bag, pictures, {"brain": "reflex"}),
            copy_inputs=False,
            overwrite=True,
            progress=say,
        )


if __name__ == "__main__":
    from minicpmo_ros.replay.scene import LENGTH_S

    replay_long(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), LENGTH_S)
