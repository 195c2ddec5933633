"""The timeline: stamped sound and pictures go in, units of one second come out, in order.

It reads no clock. Every call says what time it is (`now_ns`), the clock moves first and then the
data is taken, so what comes out depends on stamps and times of arrival only, not on how often
somebody asks.
"""

from __future__ import annotations

from collections import deque

from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, AudioChunk, Picture
from minicpmo_ros.timeline.config import TimelineConfig
from minicpmo_ros.timeline.pictures import PictureTrack
from minicpmo_ros.timeline.sound import Sound, check_sound, length_of, mono
from minicpmo_ros.timeline.stats import TimelineStats
from minicpmo_ros.timeline.track import SoundTrack
from minicpmo_ros.timeline.unit import Unit
from minicpmo_ros.timeline.watch import Watch

MOST_EVENTS = 256


class Timeline:
    """Cuts streams into units. All times are ns of ROS time; one thread at a time.

    A unit [start, end) closes when sound covers it without a hole, or when the clock is later by
    more than `late_ms` than its end, or than the end of the chunk that should span it (a
    microphone's chunks come whole, and need not end where units do). What comes then is late.

    The first unit begins at start_ns or, where none is given, at the first
    sound; without sound for `start_wait_ms`, at the first picture or reading of the clock.

    events: what the caller should report, newest last, as (kind, text); kinds are gap, late,
    overlap, skip, restart, microphone, camera. The caller takes them out; at most 256 are kept.
    """

    def __init__(self, config: TimelineConfig, start_ns: int | None = None) -> None:
        if start_ns is not None and start_ns <= 0:
            raise ConfigError(
                f"start_ns is {start_ns}; it must be a time after 0, in ns of ROS time"
            )
        self.config = config
        self.stats = TimelineStats()
        self.events: deque[tuple[str, str]] = deque(maxlen=MOST_EVENTS)
        self._late_ns = config.late_ms * NS_PER_MS
        self._jump_ns = config.jump_ms * NS_PER_MS
        self._future_ns = config.future_ms * NS_PER_MS
        self._next_index = 0
        self._now_ns = 0
        self._begin(start_ns)

    def add_audio(self, chunk: AudioChunk, now_ns: int) -> list[Unit]:
        """Take a chunk that arrived at now_ns; the units that closed. Bad chunks: `InputError`."""
        size = self._check_audio(chunk, now_ns)
        units = self.advance(now_ns)
        if not size:
            self.stats.empty_chunks += 1
            return units
        rate = int(chunk.sample_rate)
        self.stats.received[rate] += size
        if now_ns <= 0:
            self.stats.rejected[rate] += size
            return units
        self._microphone.seen(self._now_ns)
        if self._start_ns is None or self._begins_earlier(chunk, now_ns):
            self._start(chunk.stamp_ns, by_sound=True)
        self._sound.add(
            Sound(int(chunk.stamp_ns), rate, mono(chunk.data), int(chunk.sequence), chunk.muted)
        )
        while self._sound.complete():
            units.append(self._close())
        return units

    def add_picture(self, picture: Picture, now_ns: int) -> list[Unit]:
        """Take a picture that arrived at now_ns; the units that closed. Bad stamp: `InputError`."""
        try:
            self._check_stamp("picture", picture.stamp_ns, picture.stamp_ns, now_ns)
        except InputError:
            self.stats.pictures_received += 1
            self.stats.pictures_rejected += 1
            raise
        if self._first_ns is None and now_ns > 0:
            self._see_first(min(picture.stamp_ns, now_ns))
        units = self.advance(now_ns)
        if now_ns <= 0:
            self.stats.pictures_received += 1
            self.stats.pictures_rejected += 1
            return units
        self._camera.seen(self._now_ns)
        self._pictures.add(picture)
        return units

    def advance(self, now_ns: int) -> list[Unit]:
        """It is now now_ns; the units that closed. At 0 (no simulated time yet) it waits."""
        if now_ns <= 0:
            return []
        if now_ns < self._now_ns - self._future_ns:
            back_s = (self._now_ns - now_ns) / NS_PER_S
            self._now_ns = now_ns
            self.reset()
            self.events.append(("restart", f"the clock went back by {back_s:.3f} s; starting anew"))
        self._now_ns = max(self._now_ns, now_ns)
        if self._first_ns is None:
            self._see_first(now_ns)
        self._watch(self._microphone)
        if self.config.pictures_per_unit:
            self._watch(self._camera)
        return self._close_overdue()

    def reset(self) -> None:
        """Drop what is held and begin anew with the next data; unit numbers go on."""
        self.stats.resets += 1
        self._sound.clear()
        self._pictures.clear()
        self._begin(None)

    def mic_lost_ms(self, now_ns: int) -> float:
        """How long no sound has come, 0 while that is less than `lost_ms`."""
        return self._microphone.lost_ms(now_ns)

    def camera_lost_ms(self, now_ns: int) -> float:
        """How long no picture has come, 0 while that is less than `lost_ms` or none is wanted."""
        return self._camera.lost_ms(now_ns) if self.config.pictures_per_unit else 0.0

    def _begin(self, start_ns: int | None) -> None:
        self._start_ns = start_ns
        self._first_ns: int | None = None
        self._number = 0  # of the open unit since the start
        self._in_gap = False
        self._late, self._overlap = self.stats.late.ms, self.stats.overlap.ms
        self._sound = SoundTrack(self.config, self.stats, start_ns or 0)
        self._pictures = PictureTrack(self.config, self.stats, start_ns or 0)
        self._microphone = Watch("microphone", "sound", self.config.lost_ms)
        self._camera = Watch("camera", "picture", self.config.lost_ms)

    def _see_first(self, first_ns: int) -> None:
        self._first_ns = first_ns
        self._microphone.seen(first_ns)
        self._camera.seen(first_ns)
        if self._start_ns is None:
            self._pictures.move_origin(first_ns)

    def _start(self, start_ns: int, by_sound: bool) -> None:
        self._start_ns = start_ns
        self._sound.move_origin(start_ns, may_move=by_sound)
        self._pictures.move_origin(start_ns)

    def _begins_earlier(self, chunk: AudioChunk, now_ns: int) -> bool:
        """Whether this chunk, still in time, comes before the one the first unit began with."""
        return (
            self._sound.may_move
            and self._start_ns is not None
            and chunk.stamp_ns < self._start_ns
            and now_ns <= chunk.end_ns + self._late_ns
        )

    def _end_ns(self) -> int:
        assert self._start_ns is not None
        return self._start_ns + (self._number + 1) * self.config.unit_ns

    def _close_overdue(self) -> list[Unit]:
        units: list[Unit] = []
        if self._start_ns is None:
            assert self._first_ns is not None
            if self._now_ns - self._first_ns <= self.config.start_wait_ms * NS_PER_MS:
                return units
            self._start(self._first_ns, by_sound=False)
        while (overdue_ns := self._overdue_ns()) > 0:
            if overdue_ns > self._jump_ns and not self._holds_data():
                self._skip(-(-overdue_ns // self.config.unit_ns))
                break
            units.append(self._close())
        return units

    def _overdue_ns(self) -> int:
        """By how much the open unit has waited too long, 0 or less if it has not."""
        end_ns = self._end_ns()
        overdue_ns = self._now_ns - end_ns - self._late_ns
        if overdue_ns > 0:
            due_ns = min(self._sound.due_ns(), end_ns + self.config.unit_ns)
            overdue_ns -= max(due_ns - end_ns, 0)
        return overdue_ns

    def _holds_data(self) -> bool:
        return self._sound.waiting() or self._pictures.waiting(self._number)

    def _skip(self, count: int) -> None:
        """Leave out units of which nothing came while the clock leapt."""
        skipped_ms = count * self.config.unit_ms
        self.stats.skipped_ms += skipped_ms
        self.events.append(
            (
                "skip",
                f"the clock leapt forward; {skipped_ms / 1000:.1f} s without data were skipped",
            )
        )
        self._number += count
        self._next_index += count
        self._sound.skip_to(self._number)
        self._pictures.skip_to(self._number)

    def _close(self) -> Unit:
        end_ns = self._end_ns()
        sound = self._sound.take()
        unit = Unit(
            index=self._next_index,
            start_ns=end_ns - self.config.unit_ns,
            end_ns=end_ns,
            samples=sound.samples,
            rate_hz=self.config.rate_hz,
            pictures=self._pictures.take(self._number),
            filled=sound.filled,
            muted=sound.muted,
        )
        self._next_index += 1
        self._number += 1
        self.stats.units += 1
        self._count_gaps(unit)
        self._report_losses(unit.index)
        return unit

    def _count_gaps(self, unit: Unit) -> None:
        gaps = len(unit.filled)
        if gaps and self._in_gap and unit.filled[0][0] == 0:
            gaps -= 1  # it began in the unit before
        self.stats.gaps += gaps
        self._in_gap = bool(unit.filled) and unit.filled[-1][1] == len(unit.samples)
        if gaps:
            text = f"{unit.filled_ms:.1f} ms without sound, filled with silence"
            self.events.append(("gap", f"unit {unit.index}: {text}"))

    def _report_losses(self, index: int) -> None:
        late, overlap = self.stats.late.ms, self.stats.overlap.ms
        if late > self._late:
            text = f"{late - self._late:.1f} ms of sound came too late and was dropped"
            self.events.append(("late", f"unit {index}: {text}; late_ms is {self.config.late_ms}"))
        if overlap > self._overlap:
            text = f"{overlap - self._overlap:.1f} ms of sound came twice or too fast and was cut"
            self.events.append(("overlap", f"unit {index}: {text}"))
        self._late, self._overlap = late, overlap

    def _watch(self, watch: Watch) -> None:
        if change := watch.check(self._now_ns):
            self.events.append((watch.device, change))

    def _check_audio(self, chunk: AudioChunk, now_ns: int) -> int:
        """The frames of a good chunk; a bad one is counted and raises `InputError`."""
        try:
            check_sound(chunk)
            size = len(chunk.data)
            if size:
                self._check_stamp("sound", chunk.stamp_ns, chunk.end_ns, now_ns)
        except InputError:
            self.stats.chunks += 1
            self.stats.rejected_chunks += 1
            if length := length_of(chunk):
                rate, frames = length
                self.stats.received[rate] += frames
                self.stats.rejected[rate] += frames
            raise
        self.stats.chunks += 1
        return size

    def _check_stamp(self, what: str, stamp_ns: int, end_ns: int, now_ns: int) -> None:
        if stamp_ns <= 0:
            raise InputError(f"{what} is stamped {stamp_ns} ns; a time of capture after 0 is right")
        if now_ns <= 0:
            return
        if stamp_ns > now_ns + self._future_ns:
            raise InputError(
                f"{what} is stamped {(stamp_ns - now_ns) / NS_PER_S:.3f} s in the future (at most "
                f"{self.config.future_ms} ms is right); do its machine and this one share a clock?"
            )
        if end_ns < now_ns - self._jump_ns:
            raise InputError(
                f"{what} is stamped {(now_ns - stamp_ns) / NS_PER_S:.3f} s ago (at most "
                f"{self.config.jump_ms} ms is right); do its machine and this one share a clock, "
                "and does a recording play with use_sim_time?"
            )
