"""Times, shares and figures as words, the same on the page, in the picture and in the terminal."""

from __future__ import annotations

from datetime import datetime, timezone

from minicpmo_ros.messages import NS_PER_S
from minicpmo_ros.replay.report.view import ReportView, Summary


def clock(ms: float, tenths: bool = True) -> str:
    """1:02:03.4, or 02:03.4 under an hour."""
    total = round(ms / 100) if tenths else round(ms / 1000) * 10
    sign = "-" if total < 0 else ""
    minutes, rest = divmod(abs(total), 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 10:04.1f}" if tenths else f"{rest // 10:02d}"
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes:02d}"
    return f"{sign}{head}:{seconds}"


def duration(ms: float) -> str:
    """640 ms, 12.3 s, 4:05 min, 1 h 02 min."""
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if ms < 59_950:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes}:{seconds:02d} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def milliseconds(ms: float) -> str:
    """Three digits at most, as in a table of latencies."""
    if abs(ms) < 0.005:
        return "0"
    return f"{ms:.2f}" if abs(ms) < 1 else f"{ms:.1f}" if abs(ms) < 100 else f"{ms:.0f}"


def count(number: int, one: str, many: str = "") -> str:
    """1 turn, 2 turns."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def subtitle(view: ReportView) -> str:
    """When it was, how long and with which brain."""
    when = datetime.fromtimestamp(view.span.start_ns / NS_PER_S, timezone.utc)
    brains = ", ".join(view.summary.brains)
    if not view.span.start_ns:
        return "nothing recorded"
    parts = [f"{when:%Y-%m-%d %H:%M:%S} UTC", duration(view.span.ms)]
    return " · ".join([*parts, f"brain: {brains}"] if brains else parts)


def summary_rows(summary: Summary) -> list[tuple[str, str, str]]:
    """(name, figure, remark) of the table at the top."""
    alerts = sum(number for _, number in summary.alerts)
    kinds = ", ".join(f"{n} {severity.name.lower()}" for severity, n in summary.alerts)
    heard = "not recorded" if summary.words_heard is None else f"{summary.words_heard:,} heard"
    sounded = "" if summary.heard_ms is None else f"{duration(summary.heard_ms)} heard"
    return [
        ("Length", duration(summary.length_ms), count(summary.units, "unit")),
        (
            "Listening",
            f"{summary.listen_share:.0%}" if summary.units else "none",
            count(summary.listen_units, "unit"),
        ),
        (
            "Speaking",
            f"{summary.speak_share:.0%}" if summary.units else "none",
            count(summary.speak_units, "unit"),
        ),
        ("Turns", f"{summary.turns:,}", f"{summary.interruptions} interrupted"),
        ("Words spoken", f"{summary.words_spoken:,}", heard),
        ("Speech", duration(summary.spoken_ms), sounded),
        (
            "Voice heard",
            duration(summary.voice_ms),
            count(summary.voice_segments, "stretch", "stretches"),
        ),
        ("Alerts", str(alerts), kinds),
        ("Pictures", f"{summary.pictures:,}", ""),
        (
            "Silence filled in",
            duration(summary.filled_ms),
            f"{duration(summary.concealed_ms)} at the speaker" if summary.concealed_ms else "",
        ),
    ]
