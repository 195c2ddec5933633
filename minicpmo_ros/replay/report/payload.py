"""A `ReportView` as plain JSON values: the data that the page's script draws.

Times are milliseconds from the start of the view. Text stays as it is: whoever writes it into a
page escapes it there.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

from minicpmo_ros.messages import NS_PER_MS
from minicpmo_ros.replay.report.sound import data_uri
from minicpmo_ros.replay.report.view import Envelope, ReportView, Span, TurnView, UnitMark


class Payload:
    """Turns stamps of one view into milliseconds from its start."""

    def __init__(self, view: ReportView) -> None:
        self._view = view

    def ms(self, stamp_ns: int) -> float:
        return round((stamp_ns - self._view.span.start_ns) / NS_PER_MS, 2)

    def span(self, span: Span) -> list[float]:
        return [self.ms(span.start_ns), self.ms(span.stop_ns)]

    def build(self) -> dict[str, Any]:
        view = self._view
        return {
            "duration": self.ms(view.span.stop_ns),
            "pictures": {
                "count": view.pictures.count,
                "gaps": [self.span(gap) for gap in view.pictures.gaps],
                "thumbnails": [
                    {
                        "t": self.ms(t.stamp_ns),
                        "w": t.width,
                        "h": t.height,
                        "src": data_uri("image/jpeg", t.jpeg),
                    }
                    for t in view.pictures.thumbnails
                ],
            },
            "mic": {
                "envelope": self._envelope(view.mic.envelope),
                "lost": [self.span(lost) for lost in view.mic.lost],
                "muted": [self.span(muted) for muted in view.mic.muted],
            },
            "played": {"envelope": self._envelope(view.played.envelope)},
            "voice": [
                {
                    "span": self.span(v.span),
                    "segment": v.segment,
                    "p": number(v.probability),
                    "loudness": number(v.loudness),
                    "open": v.open,
                }
                for v in view.voice
            ],
            "units": [self._unit(mark) for mark in view.units],
            "turns": [self._turn(i, turn) for i, turn in enumerate(view.turns)],
            "playback": [
                {"t": self.ms(m.stamp_ns), "turn": m.turn, "event": m.event.name}
                for m in view.playback
            ],
            "alerts": [
                {
                    "span": self.span(a.span),
                    "number": a.number,
                    "kind": a.kind,
                    "severity": a.severity.name,
                    "text": a.text,
                    "ended": a.ended,
                }
                for a in view.alerts
            ],
            "states": [
                {"span": self.span(s.span), "state": s.state.name, "detail": s.detail}
                for s in view.states
            ],
            "epochs": [
                {"t": self.ms(e.stamp_ns), "epoch": e.epoch, "detail": e.detail}
                for e in view.epochs
            ],
            "hops": [
                {
                    "name": h.name,
                    "t": [self.ms(int(at)) for at in h.at_ns],
                    "ms": [round(float(ms), 3) for ms in h.ms],
                }
                for h in view.hops
            ],
            "conversation": None
            if view.conversation is None
            else {
                "start": self.ms(view.conversation.start_ns),
                "duration": view.conversation.duration_ms,
            },
        }

    def _envelope(self, envelope: Envelope | None) -> dict[str, Any] | None:
        if envelope is None:
            return None
        return {
            "start": self.ms(envelope.start_ns),
            "bin": envelope.bin_ns / NS_PER_MS,
            "low": int16_base64(envelope.low),
            "high": int16_base64(envelope.high),
        }

    def _unit(self, mark: UnitMark) -> dict[str, Any]:
        decision = mark.decision
        return {
            "span": self.span(mark.span),
            "unit": decision.unit,
            "action": decision.action.name,
            "text": decision.text,
            "reason": decision.reason,
            "turn": decision.turn,
            "pSpeak": number(decision.p_speak),
            "pListen": number(decision.p_listen),
            "filled": decision.audio_filled_ms,
            "late": number(mark.decided_after_ms),
            "kv": [decision.kv_length, decision.kv_capacity],
            "stages": [[t.stage, number(t.ms)] for t in decision.timings],
        }

    def _turn(self, index: int, turn: TurnView) -> dict[str, Any]:
        return {
            "index": index,
            "turn": turn.turn,
            "epoch": turn.epoch,
            "text": turn.text,
            "sounded": self.span(turn.sounded),
            "unheard": None if turn.unheard is None else self.span(turn.unheard),
            "outcome": turn.outcome.value,
            "words": [[w.text, *self.span(w.span), w.heard] for w in turn.words],
            "clip": turn.clip is not None,
        }


def number(value: float | None) -> float | None:
    """The number to four places; None for None, NaN and infinities, which JSON does not have."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), 4)


def int16_base64(values: np.ndarray) -> str:
    """int16 little-endian [n] as base64."""
    return base64.b64encode(np.asarray(values, "<i2").tobytes()).decode("ascii")
