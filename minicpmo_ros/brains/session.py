"""One conversation: stamped streams in; decisions, speech, alerts and state out.

The omni node and the replay without ROS both run this class. It holds the timeline, voice activity,
the barge-in reflex, the epoch and the robot's turns, and it feeds the brain with units. It reads no
clock: every input brings the time, and everything it decides depends on stamps alone. Inputs may
come from any thread; what goes out is handed to `publish` in order.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from minicpmo_ros.brains.api import (
    Brain,
    ChatRequest,
    SessionSetup,
    Speech,
    Surroundings,
    UnitResult,
    VoiceSpan,
)
from minicpmo_ros.brains.barge_in import BargeIn
from minicpmo_ros.brains.publishing import AlertLog, decision_of
from minicpmo_ros.brains.reflex import Synthesiser
from minicpmo_ros.brains.says import Says, Spoken
from minicpmo_ros.brains.settings import Interrupted, SessionConfig, VoiceSense
from minicpmo_ros.brains.turns import Turn, Turns, cut
from minicpmo_ros.brains.work import InlineWorker, Worker
from minicpmo_ros.errors import BrainError, ConfigError
from minicpmo_ros.messages import (
    NS_PER_MS,
    NS_PER_S,
    Action,
    AudioChunk,
    Picture,
    Playback,
    SessionState,
    SpeechChunk,
    State,
    VoiceActivity,
)
from minicpmo_ros.timeline.timeline import Timeline
from minicpmo_ros.timeline.unit import Unit
from minicpmo_ros.wire import Message


class OmniSession:
    """See the module's first lines. `report(kind, text)` gets every problem, for the log and
    diagnostics.
    """

    def __init__(
        self,
        brain: Brain,
        config: SessionConfig,
        publish: Callable[[Message], None],
        voice: VoiceSense,
        synthesiser: Synthesiser | None = None,
        worker: Worker | None = None,
        report: Callable[[str, str], None] = lambda kind, text: None,
    ) -> None:
        self.brain = brain
        self.config = config
        self.timeline = Timeline(config.timeline)
        self.brain_ms: deque[float] = deque(maxlen=600)
        self.brain_failures = 0
        self.units_skipped = 0
        self.interruptions = 0
        self._publish = publish
        self._voice = voice
        self._synthesiser = synthesiser
        self._worker = worker or InlineWorker()
        self._report = report
        self._lock = threading.RLock()
        self.barge_in = BargeIn(config.barge_in_ms) if config.barge_in_ms else None
        self._setup = config.setup
        self._turns = Turns()
        self._alerts = AlertLog()
        self._spans: deque[VoiceSpan] = deque(maxlen=64)
        self._says = Says(self._turns)
        self._state = SessionState(0, State.IDLE)
        self._now_ns = 0
        self._units = 0
        self._last_unit = 0
        self._fault = ""
        self._early = type(brain).picture is not Brain.picture
        self._check_mode(self._setup.mode)

    # -- life -------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the brain; raises BrainError."""
        self.brain.open(self._setup)

    def follow(self, epoch: int, turn: int) -> None:
        """Count on from an earlier session: what that one sent is older than all of this one."""
        with self._lock:
            self._turns.epoch, self._turns.count = epoch, turn

    def start(self, now_ns: int) -> None:
        with self._lock:
            self._now_ns = now_ns
            self.timeline.reset()
            self._voice.reset()
            self._say_state(State.LISTENING, now_ns, "started")

    def stop(self, now_ns: int) -> None:
        """End the conversation: speech of any epoch so far must not sound any more."""
        with self._lock:
            self._cut(now_ns)
            self._say_state(State.IDLE, now_ns, "stopped")

    def close(self, timeout_s: float = 10.0) -> None:
        if not self._worker.close(timeout_s):
            self._report("brain", f"the brain did not finish within {timeout_s:.0f} s")
        self.brain.close()

    # -- input ------------------------------------------------------------------------------

    def audio(self, chunk: AudioChunk, now_ns: int) -> None:
        """Sound from the microphone. Raises InputError; the session goes on without the chunk."""
        with self._lock:
            self._watch_clock(now_ns)
            units = self.timeline.add_audio(chunk, now_ns)
            try:
                for event in self._voice.feed(chunk):
                    self._note_voice(event)
                self._stop_for_voice(chunk, now_ns)
            finally:  # whatever ails the ears, a closed unit must be decided
                self._close_units(units)

    def picture(self, picture: Picture, now_ns: int) -> None:
        """A picture from the camera. Raises InputError for a stamp that cannot be."""
        with self._lock:
            self._watch_clock(now_ns)
            self._close_units(self.timeline.add_picture(picture, now_ns))
            if self._early:
                self._worker.submit(lambda: self._guard(lambda: self.brain.picture(picture)))

    def clock(self, now_ns: int) -> None:
        """Time goes on: closes units whose sound does not come."""
        with self._lock:
            self._watch_clock(now_ns)
            self._close_units(self.timeline.advance(now_ns))

    def playback(self, playback: Playback) -> None:
        """What the speaker says has been heard."""
        with self._lock:
            self._turns.report(playback)

    # -- requests ---------------------------------------------------------------------------

    def interrupt(self, reason: str, now_ns: int) -> Interrupted:
        """Stop the robot's speech: everything of the present epoch is void."""
        with self._lock:
            speaking = self._turns.sounding(now_ns) or self._turns.open_turn
            if not (speaking or self._says.waiting):
                return Interrupted(False, "nothing to stop", self._turns.epoch, "")
            heard = self._cut(now_ns)
            self.interruptions += 1
            self._say_state(self._rest_state(), now_ns, reason)
            self._worker.submit(lambda: self._guard(lambda: self.brain.interrupt(heard)))
            return Interrupted(True, reason, self._turns.epoch, heard)

    def say(self, text: str, now_ns: int, interrupt: bool = False) -> int:
        """Speak a text; returns its turn. Raises BrainError without a synthesiser."""
        if self._synthesiser is None:
            raise BrainError("no speech synthesiser: install espeak-ng (apt install espeak-ng)")
        with self._lock:
            if interrupt:
                self.interrupt("say", now_ns)
            number = self._says.reserve()
            job = partial(self._speak_text, text, number, self._turns.epoch)
            if self._says.ready(job):
                self._worker.submit(job)
            return number

    def spoken(self, turn: int) -> Spoken:
        """What became of a turn, as the speaker reports it."""
        with self._lock:
            return self._says.spoken(turn)

    def unsay(self, turn: int) -> bool:
        """Take a text back that was given to `say`; false where it sounds already, or is over."""
        with self._lock:
            return self._says.settled(turn)

    def turn(self, number: int) -> Turn | None:
        """A turn of the robot that is still remembered."""
        return self._turns.get(number)

    def set_mode(self, mode: str, now_ns: int) -> str:
        """Raises ConfigError when the brain cannot do it."""
        self._check_mode(mode)
        return self._reopen(replace(self._setup, mode=mode), now_ns)

    def set_prompt(self, prompt: str, language: str, now_ns: int) -> str:
        """New instructions, new session. Raises ConfigError when the brain takes none."""
        can = self.brain.capabilities
        language = language or self._setup.language
        if prompt and not can.takes_prompt:
            raise ConfigError(f"the brain '{self.brain.name}' takes no prompt")
        if language not in can.languages:
            raise ConfigError(f"language '{language}' is not one of {', '.join(can.languages)}")
        return self._reopen(replace(self._setup, prompt=prompt, language=language), now_ns)

    def reset(self, now_ns: int) -> str:
        """Forget the conversation."""
        return self._reopen(self._setup, now_ns)

    def chat(self, request: ChatRequest, done: Callable[[Iterator[str]], None]) -> None:
        """Answer a question on the brain's thread: `done` gets the pieces as they come."""
        if not self.brain.capabilities.chats:
            raise BrainError(f"the brain '{self.brain.name}' cannot chat")
        self._worker.submit(lambda: self._guard(lambda: done(self.brain.chat(request))))

    @property
    def epoch(self) -> int:
        return self._turns.epoch

    @property
    def backlog(self) -> int:
        """Jobs that wait for the brain."""
        return self._worker.waiting

    @property
    def has_voice(self) -> bool:
        """There is a speech synthesiser."""
        return self._synthesiser is not None

    @property
    def fault(self) -> str:
        """Why the brain does not answer; empty when it does."""
        return self._fault

    # -- inside -----------------------------------------------------------------------------

    def _watch_clock(self, now_ns: int) -> None:
        if now_ns < self._now_ns - NS_PER_S:
            # Time was set back: what was planned for the old time will never come.
            self._report("clock", f"time went back by {(self._now_ns - now_ns) / NS_PER_S:.1f} s")
            self._cut(now_ns)
            self._voice.reset()
            self._spans.clear()
            self._say_state(self._rest_state(), now_ns, "the clock went back")
        self._now_ns = now_ns
        if self._state.state is State.SPEAKING and not (
            self._turns.sounding(now_ns) or self._turns.open_turn
        ):
            self._say_state(self._rest_state(), now_ns, "the turn has been heard")

    def _note_voice(self, event: VoiceActivity) -> None:
        if event.speaking:
            self._spans.append(VoiceSpan(event.stamp_ns, None))
        elif self._spans and self._spans[-1].stop_ns is None:
            self._spans[-1] = VoiceSpan(self._spans[-1].start_ns, event.stamp_ns)
        self._publish(event)

    def _stop_for_voice(self, chunk: AudioChunk, now_ns: int) -> None:
        since = self._voice.speaking_since_ns
        turn = self._turns.sounding(chunk.end_ns)
        if self.barge_in is None or since is None or turn is None:
            return
        if self.barge_in.stops(since, self._voice.voiced_until_ns, turn.start_ns + turn.shift_ns):
            self.interrupt("barge-in: somebody speaks", now_ns)

    def _close_units(self, units: list[Unit]) -> None:
        events = self.timeline.events
        while events:
            self._report(*events.popleft())
        for unit in units:
            around = Surroundings(
                voice=self._voice_in(unit),
                robot_speaking=self._turns.sounding(unit.end_ns) is not None,
                camera_lost_ms=self.timeline.camera_lost_ms(unit.end_ns),
                mic_lost_ms=self.timeline.mic_lost_ms(unit.end_ns),
            )
            epoch = self._turns.epoch
            if self._worker.waiting >= self.config.backlog:
                self.units_skipped += 1
                waiting = self._worker.waiting
                reason = f"skipped: {waiting} units wait for the brain"
                self._report("brain", f"unit {unit.index} {reason}")
                self._settle_unit(unit, epoch, UnitResult(Action.LISTEN, reason=reason))
                continue
            self._worker.submit(partial(self._think, unit, around, epoch))

    def _voice_in(self, unit: Unit) -> tuple[VoiceSpan, ...]:
        return tuple(
            span
            for span in self._spans
            if span.start_ns < unit.end_ns
            and (span.stop_ns is None or span.stop_ns > unit.start_ns)
        )

    def _think(self, unit: Unit, around: Surroundings, epoch: int) -> None:
        began = time.perf_counter()
        try:
            result = self.brain.unit(unit, around)
            fault = ""
        except Exception as error:  # a brain must never take the other streams down
            fault = f"{type(error).__name__}: {error}"
            result = UnitResult(Action.LISTEN, reason=f"brain failed: {fault}")
        ms = (time.perf_counter() - began) * 1000.0
        with self._lock:
            self.brain_ms.append(ms)
            if fault:
                self.brain_failures += 1
                self._report("brain", f"unit {unit.index}: {fault}")
            self._fault = fault
            self._settle_unit(unit, epoch, result, ms)
        if not fault:
            self._guard(self.brain.settle)

    def _settle_unit(self, unit: Unit, epoch: int, result: UnitResult, ms: float = 0.0) -> None:
        """Publish what came of a unit; speech of an epoch that has passed is dropped."""
        self._units += 1
        self._last_unit = max(self._last_unit, unit.index)
        valid = epoch == self._turns.epoch
        speaks = valid and result.action is Action.SPEAK
        if not valid and result.action is Action.SPEAK:
            result = replace(result, reason=f"{result.reason} (not spoken: interrupted)")
        chunks = self._emit(unit, result) if speaks else []
        turn = chunks[0].turn if chunks else 0
        timings = ms if self.config.timings else None
        self._publish(
            decision_of(unit, epoch, turn, result, self.brain.name, self._setup.mode, timings)
        )
        for alert in self._alerts.apply(unit, epoch, result.alerts):
            self._publish(alert)
        if chunks:
            self._say_state(State.SPEAKING, unit.end_ns, result.reason)
        elif self._state.state is not State.SPEAKING:
            detail = self._fault or self._state.detail
            self._say_state(self._rest_state(), unit.end_ns, detail)
        for chunk in chunks:
            self._publish(chunk)

    def _emit(self, unit: Unit, result: UnitResult) -> list[SpeechChunk]:
        """The unit's speech as chunks of the open turn, or of a new one."""
        pieces = [piece for one in result.speech for piece in cut(one, self.config.chunk_s)]
        turn = self._turns.open_turn
        if turn is None:
            if not pieces:
                return []
            start_ns = unit.end_ns + self.config.playback_delay_ms * NS_PER_MS
            turn = self._turns.begin(self._turns.reserve(), start_ns, pieces[0].rate_hz)
        last = len(pieces) - 1 if result.end_of_turn else None
        chunks = [turn.chunk(piece, unit.index, i == last) for i, piece in enumerate(pieces)]
        if result.end_of_turn:
            turn.closed = True
            for job in self._says.release():
                self._worker.submit(job)
        return chunks

    def _speak_text(self, text: str, number: int, epoch: int) -> None:
        assert self._synthesiser is not None
        try:
            spoken = self._synthesiser.speak(text)
        except Exception as error:
            self._report("speech", f"cannot say {text!r}: {error}")
            self._says.settled(number)
            return
        speech = Speech(spoken.data, spoken.text, spoken.words, spoken.rate_hz)
        with self._lock:
            if not self._says.settled(number) or epoch != self._turns.epoch:
                return  # taken back, or cut off, before it began
            start_ns = self._now_ns + self.config.playback_delay_ms * NS_PER_MS
            turn = self._turns.begin(number, start_ns, speech.rate_hz)
            pieces = list(cut(speech, self.config.chunk_s))
            self._say_state(State.SPEAKING, self._now_ns, "say")
            for i, piece in enumerate(pieces):
                self._publish(turn.chunk(piece, self._last_unit, i == len(pieces) - 1))

    def _cut(self, now_ns: int) -> str:
        self._says.drop()
        return self._turns.interrupt(now_ns)

    def _reopen(self, setup: SessionSetup, now_ns: int) -> str:
        with self._lock:
            self._setup = setup
            self._cut(now_ns)
            self._alerts.forget()
            self._spans.clear()
            self._say_state(self._rest_state(), now_ns, "a new session begins")
            self._worker.submit(lambda: self._guard(lambda: self.brain.open(setup)))
        return f"a new session in mode {setup.mode}"

    def _check_mode(self, mode: str) -> None:
        modes = self.brain.capabilities.modes
        if mode not in modes:
            raise ConfigError(
                f"mode '{mode}': the brain '{self.brain.name}' can do {', '.join(modes)}"
            )

    def _guard(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            with self._lock:
                self.brain_failures += 1
                self._report("brain", f"{type(error).__name__}: {error}")

    def _rest_state(self) -> State:
        return State.FAULT if self._fault else State.LISTENING

    def _say_state(self, state: State, at_ns: int, detail: str) -> None:
        new = SessionState(
            at_ns,
            state,
            self._turns.epoch,
            self._turns.count,
            self._last_unit,
            self._setup.mode,
            self.brain.name,
            detail,
        )
        old = self._state
        if (new.state, new.epoch, new.turn, new.mode, new.detail) != (
            old.state,
            old.epoch,
            old.turn,
            old.mode,
            old.detail,
        ):
            self._state = new
            self._publish(new)
