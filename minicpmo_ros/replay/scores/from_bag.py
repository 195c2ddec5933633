"""A session as a bag tells it: what really sounded, the voice that was heard, the alerts."""

from __future__ import annotations

from pathlib import Path

from minicpmo_ros import topics
from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import NS_PER_S, AudioChunk
from minicpmo_ros.replay.bag import Bag, open_bag
from minicpmo_ros.replay.progress import Progress, no_progress
from minicpmo_ros.replay.report import ReportBuilder, ReportLimits, ReportView
from minicpmo_ros.replay.report.view import Outcome, Span
from minicpmo_ros.replay.scores.labels import Labels
from minicpmo_ros.replay.scores.overlap import AGENT_GAP_S, joined
from minicpmo_ros.replay.scores.session import AgentSegment, Alert, Session, UserSegment

_READ = (
    topics.MIC,
    topics.PLAYED,
    topics.DECISION,
    topics.SPEECH,
    topics.PLAYBACK,
    topics.VOICE,
    topics.ALERT,
)
_NO_SOUND = ReportLimits(sound_s=1e-3)  # of the report its turns, voice and alerts are wanted


def session_of_bag(
    path: str | Path, labels: Labels | None = None, progress: Progress = no_progress
) -> Session:
    """The session of a bag, in seconds from the first sound of its microphone.

    The robot's speech is what the speaker reported (`playback`), turn by turn; without reports,
    what left the speaker (`audio/played`, silence and gaps of more than 0.5 s aside); without that,
    what was planned (`audio/speech`). The person's speech is what `voice` says, all of it as turns:
    a pause in it that ends a voice segment makes two. Alerts are named by their kind; one that
    was raised before the recording began is left out. Labels replace the voice, and say which
    events there were to report; without them alerts are not judged. Raises `InputError` where the
    bag cannot be used or holds neither.
    """
    labels = labels or Labels()
    with open_bag(path) as bag:
        view, played = _read(bag, progress)
    if labels.user is None and not (view.voice or view.turns or played):
        raise InputError(
            f"bag {path} has no speech to score: it needs voice, playback, audio/played or "
            "audio/speech; replay it first (minicpmo replay)"
        )
    mic = view.mic.envelope
    start_ns = view.span.start_ns if mic is None else mic.start_ns

    def seconds(at_ns: int) -> float:
        return (at_ns - start_ns) / NS_PER_S

    heard = tuple(
        UserSegment(seconds(v.span.start_ns), seconds(v.span.stop_ns))
        for v in view.voice
        if v.span.start_ns < v.span.stop_ns
    )
    alerts = tuple(
        Alert(seconds(a.span.start_ns), a.kind)
        for a in view.alerts
        if a.span.start_ns > view.span.start_ns
    )
    return Session(
        seconds(view.span.stop_ns),
        heard if labels.user is None else labels.user,
        _agent(view, played, start_ns),
        labels.events,
        alerts,
    )


def _read(bag: Bag, progress: Progress) -> tuple[ReportView, list[Span]]:
    """The bag's report, and where the speaker gave sound."""
    builder = ReportBuilder(_NO_SOUND)
    played: list[Span] = []
    for topic, log_ns, message in bag.messages(_READ):
        builder.add(topic.name, log_ns, message)
        if topic is topics.PLAYED:
            assert isinstance(message, AudioChunk)
            if message.data.any():
                played.append(Span(message.stamp_ns, message.end_ns))
        progress((log_ns - bag.start_ns) / NS_PER_S)
    view = builder.build()
    whole = view.span  # a chunk stamped elsewhere was left out of the report, too
    return view, [p for p in played if whole.start_ns <= p.start_ns < whole.stop_ns]


def _agent(view: ReportView, played: list[Span], start_ns: int) -> tuple[AgentSegment, ...]:
    reported = any(turn.outcome is not Outcome.UNKNOWN for turn in view.turns)
    if played and not reported:
        seconds = [
            ((p.start_ns - start_ns) / NS_PER_S, (p.stop_ns - start_ns) / NS_PER_S) for p in played
        ]
        return tuple(AgentSegment(start, stop) for start, stop in joined(seconds, AGENT_GAP_S))
    return tuple(
        AgentSegment(
            (turn.sounded.start_ns - start_ns) / NS_PER_S,
            (turn.sounded.stop_ns - start_ns) / NS_PER_S,
            turn.heard_text or turn.text,
            finished=turn.outcome is Outcome.FINISHED,
        )
        for turn in view.turns
        if turn.sounded.start_ns < turn.sounded.stop_ns
    )
