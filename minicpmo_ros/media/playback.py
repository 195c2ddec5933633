"""The queue between speech and the speaker: what sounds when, and what has really been heard.

It knows neither device nor clock: the device's thread takes blocks of samples and says when they
will sound, everyone else pushes speech, interrupts, and collects the account.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from minicpmo_ros.media.tape import DacTime, Fade, PlayedTape
from minicpmo_ros.media.turn import Key, Piece, Turn
from minicpmo_ros.messages import (
    SPEECH_RATE_HZ,
    AudioChunk,
    Playback,
    PlaybackEvent,
    SpeechChunk,
)

REPORT_SAMPLES = SPEECH_RATE_HZ // 10
FADE_SAMPLES = SPEECH_RATE_HZ * 3 // 1000
CAPACITY_SAMPLES = SPEECH_RATE_HZ * 600
# How long a turn that has run dry is waited for: alone, and with another turn behind it.
ABANDON_SAMPLES = SPEECH_RATE_HZ * 10
ABANDON_BLOCKING_SAMPLES = SPEECH_RATE_HZ * 2
# Speech meant for later than this has a wrong stamp, not a plan.
AHEAD_SAMPLES = SPEECH_RATE_HZ * 10
# What nobody collects must not fill the memory: an hour of reports, ten seconds of sound.
_KEPT_REPORTS = 36_000
_KEPT_CHUNKS = 500
_KEPT_KEYS = 1000


@dataclass(frozen=True)
class QueueStats:
    """Counts since construction. refused: pushes answered with False."""

    refused: int = 0
    missing: int = 0
    """Chunks that the sequence numbers say were lost on the way."""
    wrong_stamps: int = 0
    """Turns whose stamp was too far in the future to be meant; they sounded at once."""
    abandoned: int = 0
    """Turns ended because nothing more of them came, nor the chunk marked as last."""
    underruns: int = 0
    """Gaps within turns, of which more came too late."""
    concealed_samples: int = 0
    """Silence that was put there."""
    caught_up_samples: int = 0
    """Silence that was left out of pauses for it."""


class PlayQueue:
    """Speech, int16 mono at 24 kHz: turns sound in the order in which they came.

    The first sample of a turn sounds at its stamp, to the sample, or as soon as it can; the rest
    follows without a gap. A turn that runs dry is concealed by silence until more comes or, after
    10 s (2 s where another turn waits), it is given up. By what was concealed it is late. Once more
    has come in time for 5 s, or all has come, pauses in it are shortened until it is not.

    The same pushes, interrupts and takes give the same samples and the same account; so do takes
    cut into other blocks, as long as pushes fall on the same samples. The lock is held for some
    microseconds at a time, never while waiting for anything.
    """

    def __init__(self, frame_id: str = "") -> None:
        """frame_id: of the speaker, for the chunks that have been played."""
        self._lock = threading.Lock()
        self._turns: list[Turn] = []
        self._epoch = 0
        self._closed: dict[Key, None] = {}
        self._frame = 0
        self._queued = 0
        self._stats = QueueStats()
        self._time = DacTime(SPEECH_RATE_HZ)
        self._fade = Fade(FADE_SAMPLES)
        self._tape = PlayedTape(SPEECH_RATE_HZ, _KEPT_CHUNKS, frame_id)
        self._reports: deque[Playback] = deque(maxlen=_KEPT_REPORTS)

    @property
    def epoch(self) -> int:
        """The oldest epoch that may sound."""
        return self._epoch

    @property
    def queued_samples(self) -> int:
        return self._queued

    @property
    def sounding(self) -> bool:
        """A turn has started and not ended."""
        with self._lock:
            return bool(self._turns) and self._turns[0].started

    @property
    def idle(self) -> bool:
        """A take would give silence and change nothing."""
        with self._lock:
            return not self._turns and not self._fade.left and self._tape.empty

    @property
    def stats(self) -> QueueStats:
        return self._stats

    def push(self, chunk: SpeechChunk) -> bool:
        """Queue a chunk behind the others of its turn.

        False where it will not sound: it is of an older epoch or of a turn that is over, it came
        before, or ten minutes of speech wait already. A chunk of a newer epoch interrupts
        whatever is older. Raises InputError where the chunk is not int16 mono at 24 kHz.
        """
        piece = Piece(chunk)
        with self._lock:
            self._interrupt(chunk.epoch)
            turn = self._turn_of(chunk)
            if turn is None or self._queued + piece.left > CAPACITY_SAMPLES:
                self._stats = replace(self._stats, refused=self._stats.refused + 1)
                return False
            missing = chunk.sequence - turn.next_sequence
            if missing:
                self._stats = replace(self._stats, missing=self._stats.missing + missing)
            if turn not in self._turns:
                self._turns.append(turn)
            turn.add(piece, chunk)
            self._queued += piece.left
            return True

    def interrupt(self, epoch: int) -> None:
        """Drop everything of an older epoch at once; from the next block on it is silent."""
        with self._lock:
            self._interrupt(epoch)

    def clear(self) -> None:
        """Drop everything that waits or sounds, as when the device is gone."""
        with self._lock:
            self._drop()

    def reset(self) -> None:
        """Drop everything and begin anew: whoever speaks has restarted and counts from 0 again."""
        with self._lock:
            self._drop()
            self._epoch = 0
            self._closed.clear()

    def take(self, frames: int, dac_ns: int, out: np.ndarray | None = None) -> np.ndarray:
        """The next block, int16 [frames]; its first sample sounds at dac_ns of ROS time.

        For the device's thread alone. With `out`, int16 [frames], nothing large is allocated.
        """
        block = np.empty(frames, dtype=np.int16) if out is None else out
        with self._lock:
            if self._time.anchor(self._frame, dac_ns):
                # Time passed that no block was taken for, as when a device came back.
                self._tape.flush()
                self._fade.forget()
            done = 0
            while done < frames:
                done += self._step(block[done:])
            # A turn that ends with this block is over now, not when the next block is taken.
            self._finish_ended()
        return block

    def reports(self, until_ns: int | None = None) -> list[Playback]:
        """What happened since the last call, in order; each report is given once.

        A device takes its samples some tens of ms before they sound: with until_ns, reports
        stamped later stay for the next call.
        """
        return _collect(self._reports, until_ns)

    def played(self) -> list[AudioChunk]:
        """What left for the DAC while a turn sounded, in chunks of 20 ms; each is given once."""
        return _collect(self._tape.chunks, None)

    def _turn_of(self, chunk: SpeechChunk) -> Turn | None:
        """The turn that a chunk belongs to, a new one if need be; None where it is refused."""
        key = (chunk.epoch, chunk.turn)
        if chunk.epoch < self._epoch or key in self._closed:
            return None
        turn = next((queued for queued in self._turns if queued.key == key), None)
        if turn is None:
            return Turn(chunk)
        return None if chunk.sequence < turn.next_sequence or turn.ended else turn

    def _interrupt(self, epoch: int) -> None:
        if epoch > self._epoch:
            self._epoch = epoch
            # All that waits is of the epoch until now: push refuses older, and newer come here.
            self._drop()

    def _drop(self) -> None:
        while self._turns:
            self._end(PlaybackEvent.INTERRUPTED)

    def _end(self, event: PlaybackEvent) -> None:
        """The front turn is over; the report is stamped with the end of its last sample."""
        turn = self._turns.pop(0)
        self._closed[turn.key] = None
        if len(self._closed) > _KEPT_KEYS:
            del self._closed[next(iter(self._closed))]
        self._queued -= turn.queued
        stamp_ns = turn.stamp_ns
        if self._time.known:
            stamp_ns = self._time.at(turn.end_frame if turn.started else self._frame)
        self._report(turn, event, stamp_ns, turn.concealed)

    def _report(self, turn: Turn, event: PlaybackEvent, stamp_ns: int, concealed: int) -> None:
        self._reports.append(
            Playback(
                stamp_ns=stamp_ns,
                epoch=turn.epoch,
                turn=turn.turn,
                event=event,
                turn_samples=turn.sounded,
                heard=turn.heard(),
                queued_samples=self._queued,
                concealed_samples=concealed,
            )
        )

    def _step(self, block: np.ndarray) -> int:
        """Fill the beginning of a block with whatever comes next; how many samples that was."""
        turn = self._next_turn()
        if turn is None:
            return self._silence(block)
        if not turn.started:
            if not turn.queued:
                self._end(PlaybackEvent.FINISHED)
                return 0
            ahead = self._frames_until(turn)
            if ahead > 0:
                return self._silence(block[:ahead])
            self._start(turn)
        samples = turn.front()
        if caught_up := turn.catch_up():
            self._queued -= caught_up
            total = self._stats.caught_up_samples + caught_up
            self._stats = replace(self._stats, caught_up_samples=total)
            samples = turn.front()
        if not len(samples) and turn.ended:
            self._end(PlaybackEvent.FINISHED)
            return 0
        room = min(len(block), REPORT_SAMPLES - turn.position % REPORT_SAMPLES)
        return self._sound(turn, samples, block[:room])

    def _next_turn(self) -> Turn | None:
        """The turn that sounds, or else the first that has something to sound or is over."""
        turns = self._turns
        if turns and not turns[0].started:
            ready = next((turn for turn in turns if turn.queued or turn.ended), None)
            if ready is None:
                return None
            turns.remove(ready)
            turns.insert(0, ready)
        return turns[0] if turns else None

    def _start(self, turn: Turn) -> None:
        turn.started = True
        turn.end_frame = self._frame
        self._report(turn, PlaybackEvent.STARTED, self._time.at(self._frame), 0)

    def _frames_until(self, turn: Turn) -> int:
        ahead = self._time.frame_at(turn.stamp_ns) - self._frame
        if ahead > AHEAD_SAMPLES:
            turn.stamp_ns = self._time.at(self._frame)
            self._stats = replace(self._stats, wrong_stamps=self._stats.wrong_stamps + 1)
            return 0
        return ahead

    def _sound(self, turn: Turn, samples: np.ndarray, block: np.ndarray) -> int:
        """A stretch of a started turn, up to the next report: its samples, or concealment."""
        if not len(samples):
            return self._conceal(turn, block)
        block = block[: len(samples)]
        if turn.gap:
            self._stats = replace(
                self._stats,
                underruns=self._stats.underruns + 1,
                concealed_samples=self._stats.concealed_samples + turn.gap,
            )
        self._fade.sound(block, samples[: len(block)], resumed=turn.gap > 0)
        self._queued -= len(block)
        turn.advance(len(block))
        self._put(block, True)
        turn.end_frame = self._frame
        self._report_progress(turn)
        return len(block)

    def _conceal(self, turn: Turn, block: np.ndarray) -> int:
        """Silence within a turn that has run dry, until it is given up."""
        limit = ABANDON_SAMPLES if len(self._turns) == 1 else ABANDON_BLOCKING_SAMPLES
        block = block[: max(1, limit - turn.gap)]
        self._fade.silence(block)
        turn.gap += len(block)
        self._put(block, True)
        if turn.gap >= limit:
            self._stats = replace(self._stats, abandoned=self._stats.abandoned + 1)
            self._end(PlaybackEvent.FINISHED)
        else:
            self._report_progress(turn)
        return len(block)

    def _report_progress(self, turn: Turn) -> None:
        if turn.position % REPORT_SAMPLES == 0:
            stamp_ns = self._time.at(self._frame)
            self._report(turn, PlaybackEvent.PLAYING, stamp_ns, turn.concealed + turn.gap)

    def _finish_ended(self) -> None:
        turn = self._turns[0] if self._turns else None
        if turn is not None and turn.started and turn.ended and not turn.queued:
            self._end(PlaybackEvent.FINISHED)

    def _silence(self, block: np.ndarray) -> int:
        """Silence between turns; the fade that begins it still belongs to the sound."""
        fading = self._fade.left
        count = min(len(block), fading) if fading else len(block)
        self._fade.silence(block[:count])
        self._put(block[:count], fading > 0)
        return count

    def _put(self, block: np.ndarray, sounding: bool) -> None:
        self._tape.add(block, sounding, self._frame, self._time)
        self._frame += len(block)


def _collect(kept: deque, until_ns: int | None) -> list:
    collected = []
    while kept and (until_ns is None or kept[0].stamp_ns <= until_ns):
        collected.append(kept.popleft())
    return collected
