"""Decisions, voice, alerts and states while they are read: pairs of events become stretches."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import replace

from minicpmo_ros.messages import (
    NS_PER_MS,
    NS_PER_S,
    Alert,
    Decision,
    SessionState,
    VoiceActivity,
)
from minicpmo_ros.replay.report.view import (
    AlertView,
    EpochMark,
    Span,
    StateSpan,
    UnitMark,
    VoiceSegment,
)


class EventsBuilder:
    """Takes events in the order in which they were logged; spans are asked for at the end."""

    def __init__(self) -> None:
        self._decisions: list[tuple[Decision, int]] = []
        self._decided: dict[int, int] = {}
        self._voice: list[tuple[VoiceActivity, int | None]] = []
        self._alerts: list[tuple[Alert, int | None]] = []
        self._states: list[SessionState] = []

    def add_decision(self, decision: Decision, log_ns: int) -> None:
        self._decisions.append((decision, log_ns))
        self._decided[decision.unit] = log_ns

    def decided_ns(self, unit: int) -> int | None:
        """When the decision on a unit was received."""
        return self._decided.get(unit)

    def add_voice(self, event: VoiceActivity) -> None:
        if event.speaking:
            self._voice.append((event, None))
        elif self._voice and self._voice[-1][1] is None:
            self._voice[-1] = (self._voice[-1][0], event.stamp_ns)
        elif not self._voice:  # somebody spoke already when the recording began
            self._voice.append((event, event.stamp_ns))

    def add_alert(self, alert: Alert) -> None:
        for i in range(len(self._alerts) - 1, -1, -1):
            raised, cleared_ns = self._alerts[i]
            if raised.number != alert.number or cleared_ns is not None:
                continue
            if alert.active:  # said again: it lives longer and may have got worse
                again = replace(alert, stamp_ns=raised.stamp_ns, unit=raised.unit)
                self._alerts[i] = (again, None)
            else:
                self._alerts[i] = (raised, alert.stamp_ns)
            return
        if alert.active:
            self._alerts.append((alert, None))

    def add_state(self, state: SessionState) -> None:
        self._states.append(state)

    def stamps_ns(self) -> list[int]:
        """Stamps of alerts and states."""
        return [a.stamp_ns for a, _ in self._alerts] + [s.stamp_ns for s in self._states]

    def units(self) -> tuple[UnitMark, ...]:
        """Units in time order. A unit begins where the one before it ended; without one, a usual
        unit's length before its end."""
        ordered = sorted(self._decisions, key=lambda d: d[0].stamp_ns)
        steps = [
            b.stamp_ns - a.stamp_ns
            for (a, _), (b, _) in itertools.pairwise(ordered)
            if b.unit == a.unit + 1 and b.stamp_ns > a.stamp_ns
        ]
        usual = round(statistics.median(steps)) if steps else NS_PER_S
        marks = []
        last_ns = None
        for decision, log_ns in ordered:
            start = decision.stamp_ns - usual
            if last_ns is not None and start < last_ns <= decision.stamp_ns:
                start = last_ns
            last_ns = decision.stamp_ns
            late_ms = (log_ns - decision.stamp_ns) / NS_PER_MS
            marks.append(UnitMark(Span(start, decision.stamp_ns), decision, late_ms))
        return tuple(marks)

    def voice(self, span: Span) -> tuple[VoiceSegment, ...]:
        segments = []
        for event, stop in self._voice:
            start = event.stamp_ns if event.speaking else span.start_ns
            whole = Span(start, max(start, span.stop_ns if stop is None else stop))
            segments.append(
                VoiceSegment(
                    whole, event.segment, event.probability, event.loudness, open=stop is None
                )
            )
        return tuple(segments)

    def alerts(self, span: Span) -> tuple[AlertView, ...]:
        """Alerts that were raised; each ends when it is cleared, expires, or the recording ends."""
        views = []
        for alert, cleared in self._alerts:
            ends = [(span.stop_ns, "end of the recording")]
            if alert.expires_ns > alert.stamp_ns:
                ends.append((alert.expires_ns, "expired"))
            if cleared is not None:
                ends.append((cleared, "cleared"))
            stop, ended = min(ends)
            start = max(alert.stamp_ns, span.start_ns)
            if stop < start:  # kept for late joiners, over before the recording began
                continue
            views.append(
                AlertView(
                    Span(start, stop),
                    alert.number,
                    alert.kind,
                    alert.severity,
                    alert.text,
                    alert.unit,
                    ended,
                    alert.expires_ns,
                    alert.evidence,
                )
            )
        return tuple(sorted(views, key=lambda v: v.span.start_ns))

    def states(self, span: Span) -> tuple[StateSpan, ...]:
        ordered = sorted(self._states, key=lambda s: s.stamp_ns)
        ends = [s.stamp_ns for s in ordered[1:]] + [span.stop_ns] * bool(ordered)
        spans = (
            StateSpan(
                Span(max(s.stamp_ns, span.start_ns), min(end, span.stop_ns)),
                s.state,
                s.brain,
                s.mode,
                s.detail,
            )
            for s, end in zip(ordered, ends, strict=True)
        )
        return tuple(s for s in spans if s.span.stop_ns > s.span.start_ns)

    def epochs(self, span: Span) -> tuple[EpochMark, ...]:
        """Where the epoch grew, from the states; from the decisions if there are no states."""
        seen: list[tuple[int, int, str]] = [(s.stamp_ns, s.epoch, s.detail) for s in self._states]
        seen = seen or [(d.stamp_ns, d.epoch, "") for d, _ in self._decisions]
        return tuple(
            EpochMark(now[0], now[1], now[2])
            for before, now in itertools.pairwise(sorted(seen))
            if now[1] > before[1] and span.start_ns <= now[0] <= span.stop_ns
        )
