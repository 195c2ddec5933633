"""What every lane of the PNG is painted with: colours, and shapes placed by stamps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minicpmo_ros.messages import NS_PER_S
from minicpmo_ros.replay.report.fitting import Fitter
from minicpmo_ros.replay.report.view import Envelope, ReportView, Span

INK, SOFT, RULE, LOST = "#16202c", "#566372", "#dfe4ea", "#c63d00"
MIC, VOICE, LISTEN, SPEAK = "#0072b2", "#2b8cc4", "#c3ccd6", "#e69f00"
HEARD, UNHEARD, PLAYED = "#4fc3a1", "#9a6b8a", "#00805d"


class Painter:
    """Draws one lane: axes whose x is seconds from the start of the view."""

    def __init__(self, axes: Any, view: ReportView) -> None:
        self.axes, self.view = axes, view
        self.fit = Fitter(axes)

    def s(self, stamp_ns: int) -> float:
        return (stamp_ns - self.view.span.start_ns) / NS_PER_S

    def bars(
        self, spans: Iterable[Span], bottom: float, top: float, colour: str, **style: Any
    ) -> None:
        pieces = [(self.s(span.start_ns), span.ms / 1000) for span in spans]
        style = {"linewidth": 0, "snap": False, **style}  # snapping would drop thin bars
        self.axes.broken_barh(pieces, (bottom, top - bottom), facecolors=colour, **style)

    def hatched(self, spans: Iterable[Span], bottom: float, top: float, colour: str) -> None:
        self.bars(
            spans, bottom, top, "none", hatch="/////", edgecolor=colour, linewidth=0.8, zorder=3
        )

    def label(
        self, text: str, span: Span, y: float, lines: int = 1, on_white: bool = False
    ) -> None:
        """Text inside a span, as much of it as has room."""
        start, stop = self.s(span.start_ns), self.s(span.stop_ns)
        self.fit.label(text, start, stop, y, lines, INK, on_white)

    def outline(self, envelope: Envelope, colour: str) -> None:
        low, high = envelope.low / 32_768, envelope.high / 32_768
        empty = low > high
        low, high = np.where(empty, np.nan, low), np.where(empty, np.nan, high)
        top = max(0.02, float(np.nanmax(np.abs([low, high]))))
        at = self.s(envelope.start_ns) + (np.arange(len(low)) + 0.5) * envelope.bin_ns / NS_PER_S
        y = 0.5 + 0.5 * np.array([low, high]) / top
        self.axes.fill_between(at, y[0], y[1], color=colour, linewidth=0.6)
