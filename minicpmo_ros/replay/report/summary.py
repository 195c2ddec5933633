"""The figures at the top of a report, counted from everything else in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from minicpmo_ros.messages import NS_PER_MS, Action
from minicpmo_ros.replay.report.view import Outcome, ReportView, Summary


def summarise(view: ReportView) -> ReportView:
    """The same view with its summary filled in."""
    actions = Counter(mark.decision.action for mark in view.units)
    severities = Counter(alert.severity for alert in view.alerts)
    words = [word for turn in view.turns for word in turn.words]
    known = all(turn.outcome is not Outcome.UNKNOWN for turn in view.turns)
    return replace(
        view,
        summary=Summary(
            length_ms=view.span.ms,
            units=len(view.units),
            listen_units=actions[Action.LISTEN],
            speak_units=actions[Action.SPEAK],
            turns=len(view.turns),
            interruptions=sum(t.outcome is Outcome.INTERRUPTED for t in view.turns),
            words_spoken=len(words),
            words_heard=sum(bool(word.heard) for word in words) if known else None,
            spoken_ms=sum(t.spoken_ms for t in view.turns),
            heard_ms=sum(t.heard_ms for t in view.turns) if known else None,
            concealed_ms=sum(t.concealed_ms for t in view.turns),
            voice_segments=len(view.voice),
            voice_ms=sum(v.span.stop_ns - v.span.start_ns for v in view.voice) / NS_PER_MS,
            filled_ms=sum(mark.decision.audio_filled_ms for mark in view.units),
            pictures=view.pictures.count,
            alerts=tuple(sorted(severities.items(), reverse=True)),
            brains=tuple(dict.fromkeys(m.decision.brain for m in view.units if m.decision.brain)),
        ),
    )
