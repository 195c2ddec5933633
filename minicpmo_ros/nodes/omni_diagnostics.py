"""What the omni node says about itself: hops of the data, losses, the brain, the voice."""

from __future__ import annotations

from minicpmo_ros.brains.session import OmniSession
from minicpmo_ros.brains.turns import Turn
from minicpmo_ros.messages import (
    NS_PER_MS,
    AudioChunk,
    Decision,
    Picture,
    Playback,
    PlaybackEvent,
    SessionState,
)
from minicpmo_ros.nodes.diagnostics import ERROR, OK, WARN, Latency, Sequence, Status
from minicpmo_ros.wire import Message


class OmniDiagnostics:
    """Is told of what comes and goes, and makes the node's statuses of it."""

    def __init__(self) -> None:
        self._sound, self._picture = Latency(), Latency()
        self._decision, self._brain, self._speech = Latency(), Latency(), Latency()
        self._chunks = Sequence()
        self._state = ""

    def heard(self, chunk: AudioChunk, now_ns: int) -> None:
        """A chunk was taken; of one that is refused the stamp may be anything."""
        self._chunks.add(chunk.sequence)
        self._sound.add_ns(now_ns - chunk.end_ns)

    def saw(self, picture: Picture, now_ns: int) -> None:
        self._picture.add_ns(now_ns - picture.stamp_ns)

    def played(self, playback: Playback, turn: Turn | None) -> None:
        if playback.event is PlaybackEvent.STARTED and turn is not None:
            self._speech.add_ns(playback.stamp_ns - turn.start_ns)

    def sent(self, message: Message, now_ns: int) -> None:
        if isinstance(message, SessionState):
            self._state = message.state.name
        elif isinstance(message, Decision):
            brain_ms = next((t.ms for t in message.timings if t.stage == "brain"), 0.0)
            brain_ns = round(brain_ms * NS_PER_MS)
            self._brain.add_ns(brain_ns)
            self._decision.add_ns(now_ns - message.stamp_ns - brain_ns)

    def statuses(self, session: OmniSession, now_ns: int, speakers: int) -> list[Status]:
        """speakers: how many listen to the robot's speech."""
        return [
            self._timeline_status(session, now_ns),
            Status("latency", OK, "ok", self._hops()),
            self._brain_status(session),
            _voice_status(session, speakers),
        ]

    def _timeline_status(self, session: OmniSession, now_ns: int) -> Status:
        silent_ms = {
            "sound": session.timeline.mic_lost_ms(now_ns),
            "picture": session.timeline.camera_lost_ms(now_ns),
        }
        lost = [f"no {what} for {ms / 1000:.1f} s" for what, ms in silent_ms.items() if ms]
        values: dict[str, object] = {"chunks of sound lost on the way": self._chunks.lost}
        values.update(session.timeline.stats.summary())
        return Status("timeline", WARN if lost else OK, "; ".join(lost) or "ok", values)

    def _hops(self) -> dict[str, object]:
        return {
            **self._sound.values("capture to omni, sound"),
            **self._picture.values("capture to omni, picture"),
            **self._decision.values("unit end to decision without brain"),
            **self._brain.values("brain"),
            **self._speech.values("planned to first sample"),
        }

    def _brain_status(self, session: OmniSession) -> Status:
        values: dict[str, object] = {
            "brain": session.brain.name,
            "state": self._state,
            "epoch": session.epoch,
            "queue depth": session.backlog,
            "units skipped": session.units_skipped,
            "failures": session.brain_failures,
            "interruptions": session.interruptions,
        }
        if session.brain.about:
            values["about"] = session.brain.about
        if session.fault:
            return Status("brain", ERROR, session.fault, values)
        wrong = [session.trouble] if session.trouble else []
        if session.backlog >= session.config.backlog:
            wrong.append(f"{session.backlog} units wait for the brain")
        loading = session.loading
        said = [*wrong, str(loading)] if loading is not None else wrong
        return Status("brain", WARN if wrong else OK, "; ".join(said) or "ok", values)


def _voice_status(session: OmniSession, speakers: int) -> Status:
    """Whether what the robot says can be heard."""
    values: dict[str, object] = {"speakers": speakers}
    brain = session.brain
    if brain.voice:
        values["voice"] = brain.voice
    if brain.voice_notes.notes:
        values["about its recording"] = brain.voice_notes
    if brain.voice_trouble:
        return Status("voice", WARN, brain.voice_trouble, values)
    if not session.has_voice and not (brain.voice and brain.capabilities.speaks):
        problem = "no speech synthesiser: install espeak-ng, or check the parameter 'voice'"
        return Status("voice", WARN, problem, values)
    if not speakers:
        return Status("voice", WARN, "nobody listens to the robot's speech", values)
    return Status("voice", OK, "ok", values)
