"""The reflex brain: listens while someone speaks, answers after the turn, raises alerts.

It is what a robot falls back to when the model is gone: no model, no clock, no random number, and
no way of failing that stops it. The same units give the same results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from minicpmo_ros.brains.api import (
    AlertNote,
    Brain,
    Capabilities,
    ChatRequest,
    SessionSetup,
    Surroundings,
    UnitResult,
)
from minicpmo_ros.brains.reflex import chat, wording
from minicpmo_ros.brains.reflex.alerts import (
    CAMERA_COVERED,
    CAMERA_LOST,
    CAMERA_UNREADABLE,
    Announcement,
)
from minicpmo_ros.brains.reflex.config import ReflexConfig
from minicpmo_ros.brains.reflex.endpoint import Endpointer, Phase
from minicpmo_ros.brains.reflex.hearing import Hearing, Interval
from minicpmo_ros.brains.reflex.impression import Impression
from minicpmo_ros.brains.reflex.seeing import Seeing
from minicpmo_ros.brains.reflex.voice import Synthesiser, say
from minicpmo_ros.brains.reflex.watches import Watches
from minicpmo_ros.errors import BrainError
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, Action
from minicpmo_ros.timeline.unit import Unit

TOLD_BY_ANSWER = (CAMERA_COVERED, CAMERA_LOST, CAMERA_UNREADABLE)
BRIDGED_GAP_NS = 2 * NS_PER_S
STALE_ALERT_S = 10.0  # an alert that could not be spoken for so long is no news any more


class ReflexBrain(Brain):
    """Implements `Brain` without a model; synthesiser None means that it decides without a voice.

    unreadable_pictures and failed_sentences count since open.
    """

    name = "reflex"
    capabilities = Capabilities(modes=("duplex",), languages=("en",), chats=True)

    def __init__(self, config: ReflexConfig, synthesiser: Synthesiser | None) -> None:
        self._config = config
        self._synthesiser = synthesiser
        self._open = False
        self._begin()

    def open(self, setup: SessionSetup) -> None:
        """Begin a session. Raises `BrainError` for a mode or language it does not have."""
        for field, value, known in (
            ("mode", setup.mode, self.capabilities.modes),
            ("language", setup.language, self.capabilities.languages),
        ):
            if value not in known:
                raise BrainError(
                    f"the reflex brain has no {field} {value!r}; it has {', '.join(known)}"
                )
        self._begin()
        self._open = True

    def close(self) -> None:
        self._open = False

    def _begin(self) -> None:
        config = self._config
        self._endpointer = Endpointer(
            round(config.endpoint_ms * NS_PER_MS), round(config.min_turn_ms * NS_PER_MS)
        )
        self._hearing = Hearing(config.loud_jump_db, config.loud_dbfs)
        self._seeing = Seeing(config.flat_contrast, config.light_jump, config.confirm_units)
        self._watches = Watches(config)
        self._impression = Impression()
        self._unspoken: list[tuple[float, AlertNote]] = []
        self._now_s = 0.0  # length of all units so far: clock jumps do not touch it
        self._last_end_ns: int | None = None
        self._own_until_ns: int | None = None
        self._cut: str | None = None
        self._just_interrupted = False
        self.unreadable_pictures = 0
        self.failed_sentences = 0

    def interrupt(self, heard: str) -> None:
        """The robot was cut off: the voice that did it is a person's, and is waited for."""
        self._cut = heard
        self._just_interrupted = True
        self._own_until_ns = None

    def unit(self, unit: Unit, around: Surroundings) -> UnitResult:
        """Sense, raise alerts, and decide. Raises `BrainError` when no session is open."""
        if not self._open:
            raise BrainError("the reflex brain is not open; call open before unit")
        self._follow_time(unit)
        self._now_s += (unit.end_ns - unit.start_ns) / NS_PER_S
        self._follow_own_voice(unit, around)
        heard = self._hearing.hear(unit, _voiced(unit, around), self._own_sound(unit))
        seen = self._seeing.see(unit)
        self.unreadable_pictures += len(seen.unreadable)
        phase = self._endpointer.follow(
            around.voice, unit.start_ns, unit.end_ns, self._voice_not_before(unit)
        )
        if self._endpointer.begun:
            self._impression.add(unit, around, seen, heard)
        announced = self._watches.follow(self._now_s, unit, around, seen, heard, phase)
        self._remember_unspoken(announced)
        result = self._decide(unit, around, phase)
        self._just_interrupted = False
        remarks = [result.reason]
        remarks += [f"{'raised' if a.note.active else 'cleared'} {a.note.kind}" for a in announced]
        if seen.unreadable:
            remarks.append(f"{len(seen.unreadable)} unreadable: {seen.unreadable[0]}")
        return replace(result, reason="; ".join(remarks), alerts=tuple(a.note for a in announced))

    def chat(self, request: ChatRequest) -> Iterator[str]:
        """One honest sentence about what the request holds, word by word."""
        words = chat.answer(request, self._config).split(" ")
        if request.max_tokens > 0:
            words = words[: request.max_tokens]
        for i, word in enumerate(words):
            yield word if i == 0 else f" {word}"

    def _follow_time(self, unit: Unit) -> None:
        """Units can be missing: a short gap is bridged, after a jump the turn has no known end."""
        gap_ns = 0 if self._last_end_ns is None else unit.start_ns - self._last_end_ns
        self._last_end_ns = unit.end_ns
        if gap_ns:
            self._hearing.forget_tail()
        if 0 <= gap_ns <= BRIDGED_GAP_NS:
            return
        self._endpointer.reset()
        self._impression = Impression()
        self._seeing.forget()
        self._own_until_ns = None

    def _follow_own_voice(self, unit: Unit, around: Surroundings) -> None:
        """Until when the robot's own speech, and its echo, may be in the microphone."""
        tail_ns = round(self._config.own_voice_tail_ms * NS_PER_MS)
        until_ns = self._own_until_ns
        if not around.robot_speaking:
            if until_ns is not None:  # it has ended, or never sounded
                self._own_until_ns = min(until_ns, unit.end_ns + tail_ns)
        elif until_ns is None or until_ns <= unit.end_ns:
            # Speech that was asked of the robot by others, or is late: its end is not known here.
            self._own_until_ns = unit.end_ns + NS_PER_S

    def _own_sound(self, unit: Unit) -> list[Interval]:
        """Where the robot itself may have sounded in the unit."""
        if self._just_interrupted:
            return [(unit.start_ns, unit.end_ns)]
        if self._own_until_ns is None or self._own_until_ns <= unit.start_ns:
            return []
        return [(unit.start_ns, self._own_until_ns)]

    def _voice_not_before(self, unit: Unit) -> int:
        """From when on a voice is a person's; voice activity knows a start only a little later."""
        earliest_ns = unit.start_ns - NS_PER_S
        return earliest_ns if self._own_until_ns is None else max(earliest_ns, self._own_until_ns)

    def _remember_unspoken(self, announced: list[Announcement]) -> None:
        for kind in (a.note.kind for a in announced if not a.note.active):
            self._unspoken = [(at, note) for at, note in self._unspoken if note.kind != kind]
        self._unspoken += [
            (self._now_s, a.note)
            for a in announced
            if a.fresh and self._config.speaks(a.note.severity)
        ]
        self._unspoken = [
            (at, note) for at, note in self._unspoken if self._now_s - at <= STALE_ALERT_S
        ]

    def _decide(self, unit: Unit, around: Surroundings, phase: Phase) -> UnitResult:
        """Listen, answer, or speak of an alert; its alerts and remarks are added by `unit`."""
        sensed, cut = self._impression, self._cut
        if phase in (Phase.ENDED, Phase.TOO_SHORT):
            self._impression, self._cut = Impression(), None
        elif phase is Phase.SILENCE and not self._just_interrupted:
            self._cut = None
        if around.robot_speaking:
            return self._interrupt_itself(unit) or _listen("robot speaks")
        speech_s = self._endpointer.speech_ns / NS_PER_S
        if phase is Phase.VOICE:
            return _listen("voice goes on")
        if phase is Phase.PAUSE:
            return _listen(f"pause of {self._endpointer.silent_ns // NS_PER_MS} ms")
        if phase is Phase.ENDED:
            text = wording.answer(speech_s, sensed, self._config.motion_fraction, cut)
            return self._speak(
                unit,
                [
                    text,
                    *(n.text for _, n in self._unspoken if n.kind not in TOLD_BY_ANSWER),
                ],
                f"end of turn after {speech_s:.1f} s of speech",
            )
        if self._just_interrupted:
            return _listen("interrupted")
        if self._unspoken:
            kinds = ", ".join(note.kind for _, note in self._unspoken)
            return self._speak(unit, [note.text for _, note in self._unspoken], f"alert: {kinds}")
        if phase is Phase.TOO_SHORT:
            return _listen(f"too short for a turn: {speech_s:.1f} s of speech")
        return _listen("microphone muted" if unit.muted else "nothing new")

    def _interrupt_itself(self, unit: Unit) -> UnitResult | None:
        """Speak of an alert that is raised now, if it is severe enough; others go on to wait."""
        urgent = [
            (at, note)
            for at, note in self._unspoken
            if at == self._now_s and self._config.interrupts(note.severity)
        ]
        if not urgent:
            return None
        others = [one for one in self._unspoken if one not in urgent]
        kinds = ", ".join(note.kind for _, note in urgent)
        result = self._speak(unit, [note.text for _, note in urgent], f"alert: {kinds}")
        self._unspoken = others
        return result

    def _speak(self, unit: Unit, sentences: list[str], reason: str) -> UnitResult:
        self._unspoken.clear()
        text = " ".join(sentences)
        speech, failure = say(self._synthesiser, text)
        if failure:
            self.failed_sentences += 1
            reason = f"{reason}; {failure}"
        length_ns = sum(round(len(s.data) * NS_PER_S / s.rate_hz) for s in speech)
        if length_ns:
            tail_ns = round(self._config.own_voice_tail_ms * NS_PER_MS)
            self._own_until_ns = unit.end_ns + length_ns + tail_ns
        return UnitResult(Action.SPEAK, text, end_of_turn=True, reason=reason, speech=speech)


def _listen(reason: str) -> UnitResult:
    return UnitResult(Action.LISTEN, reason=reason)


def _voiced(unit: Unit, around: Surroundings) -> list[Interval]:
    return [
        (span.start_ns, unit.end_ns if span.stop_ns is None else span.stop_ns)
        for span in around.voice
    ]
