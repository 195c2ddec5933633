"""The timeline in a terminal, as it happens: a line for each unit, and one for each event between.

In a terminal the lines are coloured; anywhere else they are plain text without control codes.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

import numpy as np
from rich.console import Console
from rich.text import Text

from minicpmo_ros import topics
from minicpmo_ros.messages import (
    NS_PER_MS,
    NS_PER_S,
    Action,
    Alert,
    AudioChunk,
    Decision,
    Playback,
    PlaybackEvent,
    SessionState,
    Severity,
    State,
    VoiceActivity,
)
from minicpmo_ros.replay.report.builder import Message
from minicpmo_ros.replay.report.words import clock

_STEP_NS = 100 * NS_PER_MS
_STEPS = 10
_KEPT_NS = 10 * NS_PER_S
_FLOOR_DB = -60.0
_BLOCKS, _LETTERS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
_SEVERITY_STYLE = {
    Severity.INFO: "cyan",
    Severity.NOTICE: "yellow",
    Severity.WARNING: "bold yellow",
    Severity.CRITICAL: "bold red",
}


class LiveView:
    """Prints messages as they are added, from whatever thread; knows nothing of ROS or of clocks.

    Columns: time since the first unit began, loudness of the microphone in tenths of the unit,
    voice in the same tenths, pictures, and LISTEN or SPEAK with what was said or why.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        encoding = self._console.encoding.lower()
        self._rich_letters = encoding.startswith("utf")
        self._lock = threading.Lock()
        self._levels: deque[tuple[int, float]] = deque()
        self._voice: deque[tuple[int, int | None]] = deque()
        self._pictures: deque[int] = deque()
        self._start_ns: int | None = None
        self._last_ns: int | None = None
        self._epoch = 0
        self._units = self._turns = self._interruptions = 0
        self._alerts: set[int] = set()

    def __enter__(self) -> LiveView:
        head = f"{'time':>8}  {'mic':<10}  {'voice':<10}  pic  unit"
        self._console.print(Text(head, style="bold"), soft_wrap=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            summary = (
                f"{self._units} units, {self._turns} turns, {self._interruptions} interrupted, "
                f"{len(self._alerts)} alerts"
            )
            self._console.print(Text(summary, style="bold"), soft_wrap=True)

    def add(self, topic: str, log_ns: int, message: Message) -> None:
        """Messages of other kinds than the report's are passed over."""
        with self._lock:
            match message:
                case AudioChunk() if topic == topics.MIC.name:
                    self._hear(message)
                case VoiceActivity():
                    self._take_voice(message)
                case Decision():
                    self._print_unit(message)
                case Alert():
                    self._print_alert(message)
                case Playback():
                    self._print_playback(message)
                case SessionState():
                    self._print_state(message)
                case _ if topic in {picture.name for picture in topics.PICTURES}:
                    self._pictures.append(message.stamp_ns)

    def _hear(self, chunk: AudioChunk) -> None:
        data = chunk.data if chunk.data.ndim == 1 else chunk.data.mean(axis=1)
        step = max(1, chunk.sample_rate * _STEP_NS // NS_PER_S)
        for first in range(0, len(data), step):
            piece = data[first : first + step].astype(np.float64)
            power = float(np.mean(np.square(piece))) / 32_768**2
            level = 10 * np.log10(power) if power > 0 else -np.inf
            middle = chunk.stamp_ns + (first + len(piece) // 2) * NS_PER_S // chunk.sample_rate
            self._levels.append((middle, float(level)))
        self._forget(chunk.stamp_ns)

    def _forget(self, now_ns: int) -> None:
        old = now_ns - _KEPT_NS
        while self._levels and self._levels[0][0] < old:
            self._levels.popleft()
        while self._pictures and self._pictures[0] < old:
            self._pictures.popleft()
        while len(self._voice) > 50:
            self._voice.popleft()

    def _take_voice(self, event: VoiceActivity) -> None:
        if event.speaking:
            self._voice.append((event.stamp_ns, None))
        elif self._voice:
            self._voice[-1] = (self._voice[-1][0], event.stamp_ns)

    def _print_unit(self, decision: Decision) -> None:
        stop = decision.stamp_ns
        start = stop - NS_PER_S
        if self._last_ns is not None and 0 < stop - self._last_ns < 2 * NS_PER_S:
            start = self._last_ns
        self._start_ns = start if self._start_ns is None else self._start_ns
        self._last_ns = stop
        self._units += 1
        seen = sum(start <= stamp < stop for stamp in self._pictures)
        speaks = decision.action == Action.SPEAK
        line = Text(f"{self._time(start)}  ")
        line.append(self._levels_bar(start, stop), style="blue")
        line.append("  ")
        line.append(self._voice_bar(start, stop), style="cyan")
        line.append(f"  {seen or '-':>3}  ", style="" if seen else "dim")
        line.append(f"{decision.action.name:<6} ", style="bold green" if speaks else "dim")
        line.append(
            clean(decision.text if speaks and decision.text else decision.reason),
            style="green" if speaks else "dim",
        )
        if decision.audio_filled_ms:
            line.append(f"  ({decision.audio_filled_ms:.0f} ms of silence filled in)", style="red")
        self._console.print(line, soft_wrap=True)
        self._forget(stop)

    def _levels_bar(self, start: int, stop: int) -> str:
        """A letter for each tenth; "·" or "x" where no sound came."""
        letters = _BLOCKS if self._rich_letters else _LETTERS
        loudest: dict[int, float] = {}
        for stamp, level in self._levels:
            if start <= stamp < stop:
                i = (stamp - start) * _STEPS // (stop - start)
                loudest[i] = max(level, loudest.get(i, level))
        none = "·" if self._rich_letters else "x"
        return "".join(
            _letter(loudest[i], letters) if i in loudest else none for i in range(_STEPS)
        )

    def _voice_bar(self, start: int, stop: int) -> str:
        on, off = ("━", " ") if self._rich_letters else ("#", " ")
        bar = ""
        for i in range(_STEPS):
            middle = start + (2 * i + 1) * (stop - start) // (2 * _STEPS)
            heard = any(a <= middle and (b is None or middle < b) for a, b in self._voice)
            bar += on if heard else off
        return bar

    def _print_alert(self, alert: Alert) -> None:
        if not alert.active:
            self._print_event(alert.stamp_ns, f"alert {alert.number} is over", "dim")
            return
        self._alerts.add(alert.number)
        name = alert.severity.name
        text = f"{name} {clean(alert.text)} ({clean(alert.kind)})"
        self._print_event(alert.stamp_ns, text, _SEVERITY_STYLE[alert.severity])

    def _print_playback(self, report: Playback) -> None:
        seconds = report.turn_samples / report.sample_rate
        if report.event == PlaybackEvent.STARTED:
            self._turns += 1
            self._print_event(report.stamp_ns, f"turn {report.turn} sounds", "green")
        elif report.event == PlaybackEvent.FINISHED:
            text = f"turn {report.turn} was heard to its end, {seconds:.1f} s"
            self._print_event(report.stamp_ns, text, "green")
        elif report.event == PlaybackEvent.INTERRUPTED:
            self._interruptions += 1
            text = f"turn {report.turn} interrupted after {seconds:.1f} s: {clean(report.heard)}"
            self._print_event(report.stamp_ns, text, "bold magenta")

    def _print_state(self, state: SessionState) -> None:
        grown, self._epoch = state.epoch > self._epoch, max(state.epoch, self._epoch)
        detail = f": {clean(state.detail)}" if state.detail else ""
        if state.state == State.FAULT:
            self._print_event(state.stamp_ns, f"FAULT{detail}", "bold red")
        elif grown:
            self._print_event(state.stamp_ns, f"epoch {state.epoch}{detail}", "magenta")

    def _print_event(self, stamp_ns: int, text: str, style: str) -> None:
        line = Text(f"{self._time(stamp_ns)}  {'':<27}  ")
        line.append(f"{'»' if self._rich_letters else '>'} {text}", style=style)
        self._console.print(line, soft_wrap=True)

    def _time(self, stamp_ns: int) -> str:
        if self._start_ns is None:
            return f"{'':>8}"
        return f"{clock((stamp_ns - self._start_ns) / NS_PER_MS):>8}"


def _letter(level_db: float, letters: str) -> str:
    share = (max(level_db, _FLOOR_DB) - _FLOOR_DB) / -_FLOOR_DB
    return letters[min(len(letters) - 1, round(share * (len(letters) - 1)))]


def clean(text: str) -> str:
    """One line without control characters: what a recording says must not steer the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
