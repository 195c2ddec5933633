"""One conversation: stamped streams in; decisions, speech, alerts and state out.

The omni node and the replay without ROS both run this class. It holds the timeline, voice activity,
the barge-in reflex, the epoch and the robot's turns, and it feeds the brain with units. It reads no
clock: every input brings the time, and everything it decides depends on stamps alone. Inputs may
come from any thread; what goes out is handed to `publish` in order.
"""

from __future__ import annotations

import threading
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
)
from minicpmo_ros.brains.barge_in import BargeIn
from minicpmo_ros.brains.brain_queue import BrainQueue, Decided, Loading
from minicpmo_ros.brains.ears import Ears
from minicpmo_ros.brains.publishing import AlertLog, decision_of
from minicpmo_ros.brains.reflex import Synthesiser
from minicpmo_ros.brains.says import Says, Spoken
from minicpmo_ros.brains.settings import Interrupted, SessionConfig, VoiceSense
from minicpmo_ros.brains.setups import in_mode, with_prompt, with_voice
from minicpmo_ros.brains.turns import Turn, Turns, cut
from minicpmo_ros.brains.work import InlineWorker, Worker
from minicpmo_ros.errors import BrainError
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
        self.units_skipped = 0
        self.interruptions = 0
        self._publish = publish
        self._ears = Ears(voice)
        self._synthesiser = synthesiser
        self._queue = BrainQueue(brain, worker or InlineWorker(), report)
        self._report = report
        self._lock = threading.RLock()
        self.barge_in = BargeIn(config.barge_in_ms) if config.barge_in_ms else None
        setup = in_mode(brain, config.setup, config.setup.mode)
        self._setup = with_prompt(brain, setup, setup.prompt, setup.language)
        self._turns = Turns()
        self._alerts = AlertLog()
        self._says = Says(self._turns)
        self._state = SessionState(0, State.IDLE)
        self._now_ns = 0
        self._last_unit = 0
        self._last = Decided(UnitResult(Action.LISTEN), brain.name)
        # Of the unit that was decided last: the epoch of its speech, and whether that ends a turn.
        self._rest_of: tuple[int, bool] | None = None

    # -- life -------------------------------------------------------------------------------

    def open(self, meanwhile: Callable[[], None] = lambda: None, every_s: float = 1.0) -> None:
        """Open the brain on its worker and wait for it; raises BrainError.

        meanwhile is called on this thread every every_s seconds until the brain is open.
        """
        self._queue.open(self._setup, meanwhile, every_s)

    def follow(self, epoch: int, turn: int) -> None:
        """Count on from an earlier session: what that one sent is older than all of this one."""
        with self._lock:
            self._turns.epoch, self._turns.count = epoch, turn

    def start(self, now_ns: int) -> None:
        with self._lock:
            self._now_ns = now_ns
            self.timeline.reset()
            self._ears.reset()
            self._ears.forget()
            self._say_state(State.LISTENING, now_ns, "started")

    def stop(self, now_ns: int) -> None:
        """End the conversation: speech of any epoch so far must not sound any more."""
        with self._lock:
            own = self._turns.own_heard(now_ns)
            self._cut(now_ns)
            self._queue.ask(lambda: self.brain.remember(*own))
            self._say_state(State.IDLE, now_ns, "stopped")

    def close(self, timeout_s: float = 10.0) -> None:
        self._queue.close(timeout_s)

    # -- input ------------------------------------------------------------------------------

    def audio(self, chunk: AudioChunk, now_ns: int) -> None:
        """Sound from the microphone. Raises InputError; the session goes on without the chunk."""
        with self._lock:
            self._watch_clock(now_ns)
            units = self.timeline.add_audio(chunk, now_ns)
            try:
                for event in self._ears.feed(chunk):
                    self._publish(event)
                if self._ears.barge_in(self.barge_in, self._turns.sounding(chunk.end_ns)):
                    self.interrupt("barge-in: somebody speaks", now_ns)
            finally:  # whatever ails the ears, a closed unit must be decided
                self._close_units(units)

    def picture(self, picture: Picture, now_ns: int) -> None:
        """A picture from the camera. Raises InputError for a stamp that cannot be."""
        with self._lock:
            self._watch_clock(now_ns)
            self._close_units(self.timeline.add_picture(picture, now_ns))
            self._queue.picture(picture)

    def clock(self, now_ns: int) -> None:
        """Time goes on: closes units whose sound does not come."""
        with self._lock:
            self._watch_clock(now_ns)
            self._close_units(self.timeline.advance(now_ns))

    def playback(self, playback: Playback) -> None:
        """What the speaker says has been heard."""
        with self._lock:
            self._turns.report(playback)
            self._release_says()

    # -- requests ---------------------------------------------------------------------------

    def interrupt(self, reason: str, now_ns: int) -> Interrupted:
        """Stop the robot's speech: everything of the present epoch is void."""
        with self._lock:
            speaking = self._turns.sounding(now_ns) or self._turns.open_turn
            if not (speaking or self._says.waiting):
                return Interrupted(False, "nothing to stop", self._turns.epoch, "")
            own = self._turns.own_heard(now_ns)
            heard = self._cut(now_ns)
            self.interruptions += 1
            self._say_state(self._rest_state(), now_ns, reason)
            self._queue.ask(lambda: self._tell_cut(heard, own))
            return Interrupted(True, reason, self._turns.epoch, heard)

    def say(self, text: str, now_ns: int, interrupt: bool = False) -> int:
        """Speak a text; returns its turn. Raises BrainError without a synthesiser."""
        if self._synthesiser is None:
            raise BrainError("no speech synthesiser: install espeak-ng (apt install espeak-ng)")
        with self._lock:
            if interrupt:
                self.interrupt("say", now_ns)
            number = self._says.reserve()
            self._says.hold(number, partial(self._speak_text, text, number, self._turns.epoch))
            self._release_says()
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
        return self._reopen(in_mode(self.brain, self._setup, mode), now_ns)

    def set_prompt(self, prompt: str, language: str, now_ns: int) -> str:
        """New instructions, new session. Raises ConfigError when the brain takes none."""
        return self._reopen(with_prompt(self.brain, self._setup, prompt, language), now_ns)

    def set_voice(self, voice: str, now_ns: int) -> str:
        """Another voice, and a new session; none: the brain's own. Raises ConfigError for one that
        there is not."""
        return self._reopen(with_voice(self.brain, self._setup, voice), now_ns)

    def reset(self, now_ns: int) -> str:
        """Forget the conversation."""
        return self._reopen(self._setup, now_ns)

    def chat(self, request: ChatRequest, done: Callable[[Iterator[str]], None]) -> None:
        """Answer a question on the brain's thread: `done` gets the pieces as they come."""
        if not self.brain.capabilities.chats:
            raise BrainError(f"the brain '{self.brain.name}' cannot chat")
        self._queue.ask(lambda: done(self._pieces(request)))

    @property
    def epoch(self) -> int:
        return self._turns.epoch

    @property
    def backlog(self) -> int:
        """Units that wait for the brain, the one in work included."""
        return self._queue.units

    @property
    def busy(self) -> bool:
        """Something that was asked of the brain is not finished, be it a unit or else."""
        return self._queue.busy

    @property
    def loading(self) -> Loading | None:
        """How far the brain is while it is being opened."""
        return self._queue.loading

    @property
    def brain_failures(self) -> int:
        """How often the brain raised."""
        return self._queue.failures

    @property
    def has_voice(self) -> bool:
        """There is a speech synthesiser."""
        return self._synthesiser is not None

    @property
    def fault(self) -> str:
        """Why the brain does not answer; empty when it does."""
        return self._last.fault

    @property
    def trouble(self) -> str:
        """Why the brain answers, but not as it should; empty when all is well."""
        return self._last.trouble

    # -- inside -----------------------------------------------------------------------------

    def _pieces(self, request: ChatRequest) -> Iterator[str]:
        """Whoever takes them meets what the brain raises, be it at once or later."""
        yield from self.brain.chat(request)

    def _tell_cut(self, heard: str, own: tuple[str, int]) -> None:
        self.brain.interrupt(heard)
        self.brain.remember(*own)

    def _watch_clock(self, now_ns: int) -> None:
        if now_ns < self._now_ns - NS_PER_S:
            # Time was set back: what was planned for the old time will never come.
            self._report("clock", f"time went back by {(self._now_ns - now_ns) / NS_PER_S:.1f} s")
            own = self._turns.own_heard(self._now_ns)
            self._cut(now_ns)
            self._queue.ask(lambda: self.brain.remember(*own))
            self._alerts.forget()  # what would expire at a time of the old clock
            self._ears.reset()
            self._ears.forget()
            self._say_state(self._rest_state(), now_ns, "the clock went back")
        self._now_ns = now_ns
        self._release_says()
        if self._state.state is State.SPEAKING and not (
            self._turns.sounding(now_ns) or self._turns.open_turn
        ):
            self._say_state(self._rest_state(), now_ns, "the turn has been heard")

    def _close_units(self, units: list[Unit]) -> None:
        events = self.timeline.events
        while events:
            self._report(*events.popleft())
        for unit in units:
            if self.timeline.mic_lost_ms(unit.end_ns) > 0:
                for event in self._ears.lose():
                    self._publish(event)
            around = Surroundings(
                voice=self._ears.voice_in(unit),
                robot_speaking=self._turns.sounding(unit.end_ns) is not None,
                camera_lost_ms=self.timeline.camera_lost_ms(unit.end_ns),
                mic_lost_ms=self.timeline.mic_lost_ms(unit.end_ns),
            )
            epoch = self._turns.epoch
            waiting = self._queue.units
            if waiting >= self.config.backlog:
                self.units_skipped += 1
                reason = f"skipped: {waiting} units wait for the brain"
                self._report("brain", f"unit {unit.index} {reason}")
                skipped = UnitResult(Action.LISTEN, reason=reason)
                made = replace(self._last, result=skipped, ms=0.0)
                self._settle_unit(unit, epoch, made, skipped=True)
                continue
            self._queue.unit(
                unit, around, partial(self._settle_unit, unit, epoch), partial(self._more, unit)
            )

    def _settle_unit(self, unit: Unit, epoch: int, made: Decided, *, skipped: bool = False) -> None:
        """Publish what came of a unit; speech of an epoch that has passed is dropped. skipped: the
        brain never saw it, and may still be speaking for one before."""
        with self._lock:
            before, self._last = self._last, made
            self._last_unit = max(self._last_unit, unit.index)
            result = made.result
            valid = epoch == self._turns.epoch
            speaks = valid and result.action is Action.SPEAK
            if not valid and result.action is Action.SPEAK:
                result = replace(result, reason=f"{result.reason} (not spoken: interrupted)")
            cut = self._cut_for_alert(unit, result, speaks=speaks) if valid else ""
            if cut and speaks:
                epoch = self._turns.epoch
            # Whoever decides now does not go on with a turn that another began, or failed in.
            broken = bool(made.fault) or made.brain != before.brain
            end = self._turns.end(unit.index) if broken else []
            ends = result.end_of_turn and result.rest is None
            chunks = self._speak(unit, result.speech, ends=ends) if speaks else []
            turn = chunks[0].turn if chunks else 0
            timings = made.ms if self.config.timings else None
            self._publish(
                decision_of(unit, epoch, turn, result, made.brain, self._setup.mode, timings)
            )
            for alert in self._alerts.apply(unit, epoch, result.alerts):
                self._publish(alert)
            if made.trouble and made.trouble != before.trouble:
                self._report("brain", made.trouble)
            if chunks:
                # One state, not two in a row: readers keep the newest alone.
                self._say_state(State.SPEAKING, unit.end_ns, cut or result.reason)
            elif cut:
                self._say_state(self._rest_state(), self._now_ns, cut)
            elif self._state.state is not State.SPEAKING:
                self._say_state(self._rest_state(), unit.end_ns, self._detail(before))
            for chunk in [*end, *chunks]:
                self._publish(chunk)
            if not skipped:
                self._rest_of = (self._turns.epoch, result.end_of_turn) if speaks else None
            self._release_says()

    def _cut_for_alert(self, unit: Unit, result: UnitResult, *, speaks: bool) -> str:
        """Cut off what is being said for an alert that is severe enough; why, or "" if it was not.

        A brain that speaks of the alert in the same unit has gone on already, and is told nothing.
        """
        lowest = self.config.interrupting_severity
        news = self._alerts.news(unit, result.alerts)
        kinds = [note.kind for note in news if lowest is not None and note.severity >= lowest]
        if not kinds:
            return ""
        reason = f"alert: {', '.join(kinds)}"
        if not speaks:
            return reason if self.interrupt(reason, self._now_ns).success else ""
        if not (self._turns.sounding(self._now_ns) or self._turns.open_turn or self._says.waiting):
            return ""
        self._cut(self._now_ns)
        self.interruptions += 1
        return reason

    def _more(self, unit: Unit, piece: Speech | None) -> bool:
        """Publish more speech of the unit that was decided last; false where it is not wanted."""
        with self._lock:
            epoch, ends = self._rest_of or (-1, False)
            if epoch != self._turns.epoch:
                return False
            if piece is None:
                chunks = self._turns.end(unit.index) if ends else []
            else:
                chunks = self._speak(unit, (piece,), ends=False)
                self._say_state(State.SPEAKING, unit.end_ns, self._state.detail)
            for chunk in chunks:
                self._publish(chunk)
            self._release_says()
            return True

    def _release_says(self) -> None:
        if (job := self._says.release(self._now_ns)) is not None:
            self._queue.beside(job)

    def _detail(self, before: Decided) -> str:
        """What to say of a state in which nobody speaks."""
        if wrong := self._last.fault or self._last.trouble:
            return wrong
        was_wrong = before.fault or before.trouble
        return f"the brain '{self._last.brain}' answers again" if was_wrong else self._state.detail

    def _speak(self, unit: Unit, speech: tuple[Speech, ...], *, ends: bool) -> list[SpeechChunk]:
        start_ns = unit.end_ns + self.config.playback_delay_ms * NS_PER_MS
        return self._turns.speak(speech, unit.index, start_ns, ends, self.config.chunk_s)

    def _speak_text(self, text: str, number: int, epoch: int) -> None:
        assert self._synthesiser is not None
        try:
            spoken = self._synthesiser.speak(text)
        except Exception as error:
            self._report("speech", f"cannot say {text!r}: {error}")
            self._says.settled(number)
            return
        speech = Speech(spoken.data, spoken.text, spoken.words, spoken.rate_hz)
        self._speak_made(speech, number, epoch)

    def _speak_made(self, speech: Speech, number: int, epoch: int) -> None:
        with self._lock:
            if epoch == self._turns.epoch and not self._says.free(self._now_ns):
                # The brain has begun a turn since.
                again = partial(self._speak_made, speech, number, epoch)
                self._says.hold(number, again, first=True)
                return
            if not self._says.settled(number) or epoch != self._turns.epoch:
                return  # taken back, or cut off, before it began
            start_ns = self._now_ns + self.config.playback_delay_ms * NS_PER_MS
            turn = self._turns.begin(number, start_ns, speech.rate_hz)
            pieces = list(cut(speech, self.config.chunk_s))
            self._say_state(State.SPEAKING, self._now_ns, "say")
            for i, piece in enumerate(pieces):
                self._publish(turn.chunk(piece, self._last_unit, i == len(pieces) - 1))
            self._release_says()

    def _cut(self, now_ns: int) -> str:
        self._says.drop()
        return self._turns.interrupt(now_ns)

    def _reopen(self, setup: SessionSetup, now_ns: int) -> str:
        with self._lock:
            self._setup = setup
            self._cut(now_ns)
            self._alerts.forget()
            self._ears.forget()
            self._say_state(self._rest_state(), now_ns, "a new session begins")
            self._queue.reopen(setup)
        return f"a new session in mode {setup.mode}"

    def _rest_state(self) -> State:
        return State.FAULT if self._last.fault else State.LISTENING

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
        # The same state at another time, or after another unit, is no news.
        if replace(new, stamp_ns=self._state.stamp_ns, unit=self._state.unit) != self._state:
            self._state = new
            self._publish(new)
