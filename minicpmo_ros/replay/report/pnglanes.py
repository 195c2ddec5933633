"""What each lane of the PNG shows. Every lane says so when it has no data."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minicpmo_ros.messages import NS_PER_S, Action, PlaybackEvent, Severity, State
from minicpmo_ros.replay.report.latency import SHORT
from minicpmo_ros.replay.report.painter import (
    HEARD,
    INK,
    LISTEN,
    LOST,
    MIC,
    PLAYED,
    RULE,
    SOFT,
    SPEAK,
    UNHEARD,
    VOICE,
    Painter,
)
from minicpmo_ros.replay.report.view import ReportView, Span
from minicpmo_ros.replay.report.words import clock, milliseconds

SEVERITY = {
    Severity.INFO: "#56b4e9",
    Severity.NOTICE: "#cfc12a",
    Severity.WARNING: "#e69f00",
    Severity.CRITICAL: "#c63d00",
}
STATE = {
    State.IDLE: "#dfe4ea",
    State.LISTENING: "#b9d9ee",
    State.SPEAKING: "#f3cf87",
    State.FAULT: "#e08a5f",
}
HOPS = ("#0072b2", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#8a7f00", "#d55e00", "#4a4f57")
SYMBOLS = ("o", "s", "D", "^", "P", "X", "*", "v")
_ALERT_ROWS = 4
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600)


@dataclass(frozen=True)
class Lane:
    """name: its heading; height: in proportion to the others; none: what it says without data."""

    name: str
    height: float
    has_data: Callable[[ReportView], bool]
    draw: Callable[[Painter], None]
    none: str


def draw_lane(lane: Lane, axes: Any, view: ReportView) -> None:
    """The lane with its name, grid and the marks of epochs."""
    last = lane.name == "Latency"
    painter = Painter(axes, view)
    length = view.span.ms / 1000
    axes.set_xlim(-0.004 * length, 1.004 * length)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelbottom=last, colors=SOFT)
    axes.set_xlabel("")
    axes.annotate(
        lane.name,
        (0, 0.5),
        xytext=(24, 0),
        xycoords=("figure fraction", "axes fraction"),
        textcoords="offset pixels",
        va="center",
        weight="bold",
        color=INK,
    )
    if not lane.has_data(view):
        axes.text(
            0.5,
            0.5,
            lane.none,
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=SOFT,
            style="italic",
        )
    else:
        if len(view.epochs) <= 30:
            for mark in view.epochs:
                axes.axvline(painter.s(mark.stamp_ns), color=LOST, linewidth=0.9, linestyle=":")
        lane.draw(painter)
    if last:
        step = next((s for s in _STEPS_S if length / s <= 12), length / 12)
        axes.set_xticks(np.arange(0, length * 1.002, step))
        axes.xaxis.set_major_formatter(lambda s, _: clock(s * 1000, tenths=length < 10))


def _pictures(p: Painter) -> None:
    import cv2

    free = -np.inf
    for shot in p.view.pictures.thumbnails:
        at = p.s(shot.stamp_ns)
        width = p.fit.seconds(0.88 * p.fit.height_px * shot.width / shot.height)
        if at < free or at + width > p.axes.get_xlim()[1]:
            continue
        bgr = cv2.imdecode(np.frombuffer(shot.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None  # it was encoded by `thumbnail`
        rgb = bgr[:, :, ::-1]
        p.axes.imshow(
            rgb,
            extent=(at, at + width, 0.12, 1.0),
            aspect="auto",
            zorder=2,
            interpolation="antialiased",
        )
        free = at + width + p.fit.seconds(4)
    p.axes.set_ylim(0, 1)
    stamps = [p.s(shot.stamp_ns) for shot in p.view.pictures.thumbnails]
    p.axes.vlines(stamps, 0, 0.06, color=SOFT, linewidth=0.8)
    p.hatched(p.view.pictures.gaps, 0, 0.1, LOST)


def _mic(p: Painter) -> None:
    if p.view.mic.envelope is not None:
        p.outline(p.view.mic.envelope, MIC)
    p.hatched(p.view.mic.lost, 0, 1, LOST)
    p.hatched(p.view.mic.muted, 0, 1, SOFT)


def _voice(p: Painter) -> None:
    p.bars((v.span for v in p.view.voice), 0.1, 1, VOICE)


def _decisions(p: Painter) -> None:
    edges = p.view.span.ms / 1000 < 250
    style = {"edgecolor": "white", "linewidth": 1 if edges else 0}
    units = p.view.units
    listens = [u.span for u in units if u.decision.action == Action.LISTEN]
    p.bars(listens, 0, 0.42, LISTEN, **style)
    p.bars((u.span for u in units if u.decision.action == Action.SPEAK), 0, 1, SPEAK, **style)
    sure = [u for u in units if np.isfinite(u.decision.p_speak)]
    middles = [p.s((u.span.start_ns + u.span.stop_ns) // 2) for u in sure]
    p.axes.plot(middles, [u.decision.p_speak for u in sure], color=INK, linewidth=1)
    for unit in units:
        text = unit.decision.text or unit.decision.reason
        if unit.decision.action == Action.SPEAK:
            p.label(text, unit.span, 0.5, lines=3)


def _speech(p: Painter) -> None:
    p.bars((t.sounded for t in p.view.turns), 0.03, 0.97, HEARD)
    turns = sorted(p.view.turns, key=lambda turn: turn.sounded.start_ns)
    for turn, following in itertools.zip_longest(turns, turns[1:]):
        said = " ".join(w.text for w in turn.words if w.heard is not False) or turn.text
        p.label(said, turn.sounded, 0.5, lines=4)
        if turn.unheard is None:
            continue
        start, stop = turn.unheard.start_ns, turn.unheard.stop_ns
        if following is not None:  # what was not to be heard any more gives way to the next turn
            stop = max(start, min(stop, following.sounded.start_ns))
        unheard = Span(start, stop)
        p.hatched([unheard], 0.03, 0.97, UNHEARD)
        lost = " ".join(w.text for w in turn.words if w.heard is False)
        p.label(lost, unheard, 0.5, lines=4, on_white=True)


def _playback(p: Painter) -> None:
    if p.view.played.envelope is not None:
        p.outline(p.view.played.envelope, PLAYED)
    else:
        p.bars((t.sounded for t in p.view.turns), 0.3, 0.7, PLAYED)
    shapes = {
        PlaybackEvent.STARTED: (">", INK),
        PlaybackEvent.FINISHED: ("s", INK),
        PlaybackEvent.INTERRUPTED: ("X", LOST),
    }
    size = 60 if len(p.view.playback) < 80 else 12
    for event, (symbol, colour) in shapes.items():
        at = [p.s(mark.stamp_ns) for mark in p.view.playback if mark.event == event]
        p.axes.scatter(
            at,
            [0.5] * len(at),
            marker=symbol,
            color=colour,
            s=size,
            zorder=4,
            edgecolors="white",
            linewidths=0.8,
        )


def _alerts(p: Painter) -> None:
    ends: list[int] = []
    rows: list[int] = []
    for alert in p.view.alerts:
        free = [i for i, end in enumerate(ends) if end <= alert.span.start_ns]
        row = free[0] if free else min(len(ends), _ALERT_ROWS - 1)
        ends[row : row + 1] = [alert.span.stop_ns]
        rows.append(row)
    count = max(2, len(ends))
    placed = list(zip(p.view.alerts, rows, strict=True))
    for i, (alert, row) in enumerate(placed):
        top = 1 - row / count
        p.bars([alert.span], top - 0.9 / count, top - 0.66 / count, SEVERITY[alert.severity])
        following = (a.span.start_ns for a, r in placed[i + 1 :] if r == row)
        text = f"{alert.severity.name.lower()}: {alert.text}"
        room = Span(alert.span.start_ns, next(following, p.view.span.stop_ns))
        p.label(text, room, top - 0.34 / count)


def _state(p: Painter) -> None:
    for state, colour in STATE.items():
        spans = [s.span for s in p.view.states if s.state == state]
        p.bars(spans, 0, 1, colour, edgecolor="white", linewidth=1 if len(spans) < 60 else 0)
    for part in p.view.states:
        text = part.state.name.lower() + (f": {part.detail}" if part.detail else "")
        p.label(text, part.span, 0.5)


def _latency(p: Painter) -> None:
    axes = p.axes
    axes.set_yscale("log")
    slowest, fastest = 10.0, 1.0
    for i, hop in enumerate(p.view.hops):
        shown = np.maximum(hop.ms, 0.1)
        slowest, fastest = max(slowest, shown.max()), min(fastest, shown.min())
        axes.scatter(
            (hop.at_ns - p.view.span.start_ns) / NS_PER_S,
            shown,
            s=11,
            marker=SYMBOLS[i % 8],
            color=HOPS[i % 8],
            linewidths=0,
            label=f"{SHORT.get(hop.name, hop.name)}: {milliseconds(hop.p50_ms)} / "
            f"{milliseconds(hop.p99_ms)} ms",
        )
    axes.set_ylim(fastest / 1.5, slowest * 1.6)
    ticks = [t for t in (0.1, 1, 10, 100, 1_000, 10_000) if fastest / 1.5 <= t <= slowest * 1.6]
    names = {0.1: "≤0.1", 1_000: "1 s", 10_000: "10 s"}
    axes.set_yticks(ticks, [names.get(t, f"{t:g} ms") for t in ticks], fontsize=8)
    axes.minorticks_off()
    axes.tick_params(axis="y", length=0, colors=SOFT)
    legend = axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.005, -0.24),
        ncols=4,
        frameon=False,
        fontsize=8.5,
        title="median / 99th percentile of each hop",
        alignment="left",
        handletextpad=0.3,
        columnspacing=2.0,
        borderaxespad=0,
        title_fontsize=8.5,
        markerscale=1.7,
    )
    legend.get_title().set_color(SOFT)


LANES = (
    Lane("Pictures", 2.1, lambda v: v.pictures.count > 0, _pictures, "no pictures"),
    Lane("Microphone", 1.6, lambda v: v.mic.chunks > 0, _mic, "no microphone sound"),
    Lane("Voice", 0.5, lambda v: bool(v.voice), _voice, "nobody spoke"),
    Lane("Decisions", 1.1, lambda v: bool(v.units), _decisions, "no decisions"),
    Lane("Speech", 1.7, lambda v: bool(v.turns), _speech, "the robot said nothing"),
    Lane(
        "Playback",
        1.1,
        lambda v: bool(v.playback) or v.played.chunks > 0,
        _playback,
        "no playback reports",
    ),
    Lane("Alerts", 1.5, lambda v: bool(v.alerts), _alerts, "no alerts"),
    Lane("State", 0.55, lambda v: bool(v.states), _state, "no session state"),
    Lane("Latency", 1.9, lambda v: bool(v.hops), _latency, "no latency could be measured"),
)
