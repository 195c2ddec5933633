"""The robot's turns: cut speech into chunks, plan when each sounds, know what has been heard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import reduce

from minicpmo_ros.brains.api import Speech
from minicpmo_ros.media.words import join
from minicpmo_ros.messages import (
    EMPTY_SAMPLES,
    NS_PER_S,
    Playback,
    PlaybackEvent,
    SpeechChunk,
    WordMark,
)


def cut(speech: Speech, longest_s: float) -> Iterator[Speech]:
    """Split speech into pieces of at most longest_s seconds, between words where it can.

    A word longer than a whole piece is cut through; it then belongs to the piece that ends it.
    """
    longest = max(1, int(longest_s * speech.rate_hz))
    total = len(speech.data)
    start = 0
    words = list(speech.words)
    while total - start > longest:
        limit = start + longest
        ends = [w.end_sample for w in words if start < w.end_sample <= limit]
        stop = ends[-1] if ends else limit
        yield _piece(speech, start, stop, words, is_last=False)
        words = [w for w in words if w.end_sample > stop]
        start = stop
    yield _piece(speech, start, total, words, is_last=True)


def _piece(speech: Speech, start: int, stop: int, words: list[WordMark], is_last: bool) -> Speech:
    marks = tuple(
        WordMark(w.text, max(0, w.start_sample - start), w.end_sample - start)
        for w in words
        if is_last or w.end_sample <= stop
    )
    text = reduce(join, (w.text for w in marks), "")
    if not speech.words and start == 0:  # no word times are known: the first piece has it all
        text = speech.text
    return Speech(speech.data[start:stop], text, marks, speech.rate_hz)


@dataclass
class Turn:
    """One robot turn: what was sent to the speaker and how far it has sounded.

    start_ns is the planned time of the first sample; once the speaker has reported, `shift_ns`
    moves the plan to what really happens. While both agree, every answer depends on stamps
    alone and not on when a report arrives, so replay is exact.
    """

    number: int
    epoch: int
    start_ns: int
    rate_hz: int
    samples: int = 0
    sequence: int = 0
    closed: bool = False
    interrupted_ns: int | None = None
    finished_ns: int | None = None
    unit: int = -1
    """Of its last speech."""
    shift_ns: int = 0
    heard_report: str = ""
    whole: bool = False
    """The speaker has reported the end, and every sample sounded."""
    _words: list[tuple[int, str]] = field(default_factory=list)

    def chunk(self, speech: Speech, unit: int, last: bool) -> SpeechChunk:
        """The next chunk of this turn, planned to follow the one before without a gap."""
        made = SpeechChunk(
            stamp_ns=self.start_ns + round(self.samples * NS_PER_S / self.rate_hz),
            epoch=self.epoch,
            turn=self.number,
            sequence=self.sequence,
            unit=unit,
            data=speech.data,
            text=speech.text,
            words=speech.words,
            last=last,
            sample_rate=speech.rate_hz,
        )
        if speech.words:
            self._words += [(self.samples + w.end_sample, w.text) for w in speech.words]
        elif speech.text:
            self._words.append((self.samples + len(speech.data), speech.text))
        self.samples += len(speech.data)
        self.sequence += 1
        self.unit = unit
        self.closed = last
        return made

    @property
    def end_ns(self) -> int:
        """When its last sample so far has sounded, as far as is known."""
        if self.interrupted_ns is not None:
            return self.interrupted_ns
        if self.finished_ns is not None:
            return self.finished_ns
        return self.start_ns + self.shift_ns + round(self.samples * NS_PER_S / self.rate_hz)

    def sounds_at(self, at_ns: int) -> bool:
        return at_ns < self.end_ns

    def heard_at(self, at_ns: int) -> str:
        """Words that have sounded to their end at a time."""
        if self.interrupted_ns is not None:
            at_ns = min(at_ns, self.interrupted_ns)
        sounded = (at_ns - self.start_ns - self.shift_ns) * self.rate_hz // NS_PER_S
        if self.finished_ns is not None and at_ns >= self.finished_ns:
            if not self.whole:
                return self.heard_report
            sounded = self.samples
        return reduce(join, (text for end, text in self._words if end <= sounded), "")

    def report(self, playback: Playback) -> None:
        """Take in what the speaker says about this turn."""
        self.heard_report = playback.heard
        if playback.event in (PlaybackEvent.FINISHED, PlaybackEvent.INTERRUPTED):
            # Even if more was to come: the speaker takes no more of a turn that it has given up.
            self.closed = True
        if playback.event == PlaybackEvent.FINISHED:
            self.finished_ns = playback.stamp_ns
            sounded = playback.turn_samples * self.rate_hz
            self.whole = sounded >= (self.samples - 1) * playback.sample_rate
        elif playback.event == PlaybackEvent.INTERRUPTED:
            self.interrupted_ns = playback.stamp_ns
        else:
            sounded_ns = round(
                (playback.turn_samples + playback.concealed_samples)
                * NS_PER_S
                / playback.sample_rate
            )
            first_ns = playback.stamp_ns - sounded_ns
            late_ns = round(playback.concealed_samples * NS_PER_S / playback.sample_rate)
            shift = first_ns - self.start_ns + late_ns
            # Rounding between sample counts and ns is no news.
            self.shift_ns = shift if abs(shift) > NS_PER_S // self.rate_hz else 0


class Turns:
    """All turns of a session, the epoch, and what sounds when. Pure bookkeeping on stamps."""

    KEPT = 32  # turns remembered for reports that are still on their way

    def __init__(self) -> None:
        self.epoch = 0
        self.count = 0
        self._turns: dict[int, Turn] = {}
        self._own: Turn | None = None

    def reserve(self) -> int:
        """The number of a turn that will be spoken later."""
        self.count += 1
        return self.count

    def get(self, number: int) -> Turn | None:
        return self._turns.get(number)

    @property
    def open_turn(self) -> Turn | None:
        """The turn that more speech is to come for."""
        last = next(reversed(self._turns.values()), None)
        live = last is not None and last.epoch == self.epoch and not last.closed
        return last if live else None

    def begin(self, number: int, start_ns: int, rate_hz: int) -> Turn:
        """A new turn that starts at start_ns, or when the speech before it has ended."""
        free_ns = max((t.end_ns for t in self._current()), default=start_ns)
        turn = Turn(number, self.epoch, max(start_ns, free_ns), rate_hz)
        self._turns[number] = turn
        while len(self._turns) > self.KEPT:
            del self._turns[next(iter(self._turns))]
        return turn

    def speak(
        self, speech: Iterable[Speech], unit: int, start_ns: int, ends: bool, longest_s: float
    ) -> list[SpeechChunk]:
        """Chunks of at most longest_s seconds for the open turn, or a new one that starts at
        start_ns. ends: with this the turn is over; nothing but that makes no new turn.
        """
        pieces = [piece for one in speech for piece in cut(one, longest_s)]
        if not pieces:
            return self.end(unit) if ends else []
        turn = self.open_turn or self.begin(self.reserve(), start_ns, pieces[0].rate_hz)
        self._own = turn
        last = len(pieces) - 1 if ends else None
        return [turn.chunk(piece, unit, i == last) for i, piece in enumerate(pieces)]

    def end(self, unit: int) -> list[SpeechChunk]:
        """No more speech comes for the open turn: an empty last chunk, which tells the speaker."""
        turn = self.open_turn
        if turn is None:
            return []
        return [turn.chunk(Speech(EMPTY_SAMPLES, rate_hz=turn.rate_hz), unit, True)]

    def sounding(self, at_ns: int) -> Turn | None:
        """The turn that sounds at a time, or the next one that will."""
        return next((t for t in self._current() if t.sounds_at(at_ns)), None)

    def interrupt(self, at_ns: int) -> str:
        """Begin a new epoch; returns the words of the cut turn that had been heard."""
        cut_turn = self.sounding(at_ns) or self.open_turn
        for turn in self._current():
            if turn.sounds_at(at_ns) or not turn.closed:
                turn.interrupted_ns = at_ns
        self.epoch += 1
        return cut_turn.heard_at(at_ns) if cut_turn else ""

    def own_heard(self, at_ns: int) -> tuple[str, int]:
        """Of the last turn that the brain spoke in this epoch, the words that have sounded at a
        time, and the unit of its last speech; nothing and -1 where there is none.
        """
        turn = self._own
        if turn is None or turn.epoch != self.epoch:
            return "", -1
        return turn.heard_at(at_ns), turn.unit

    def report(self, playback: Playback) -> None:
        turn = self._turns.get(playback.turn)
        if turn is not None and turn.epoch == playback.epoch:
            turn.report(playback)

    def _current(self) -> list[Turn]:
        return [t for t in self._turns.values() if t.epoch == self.epoch]
