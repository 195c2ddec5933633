"""The parts of the page that are plain HTML and work without its script: figures, turns, tables."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from minicpmo_ros.messages import NS_PER_MS
from minicpmo_ros.replay.report.sound import data_uri
from minicpmo_ros.replay.report.view import AlertView, Outcome, ReportView, TurnView
from minicpmo_ros.replay.report.words import clock, duration, milliseconds, summary_rows

_SHORT_OUTCOME = {
    Outcome.FINISHED: "heard to its end",
    Outcome.INTERRUPTED: "interrupted",
    Outcome.NEVER_HEARD: "never heard",
    Outcome.UNFINISHED: "recording ends",
    Outcome.UNKNOWN: "not known if heard",
}


def figures(view: ReportView) -> str:
    """The summary: a name, a figure and a remark each."""
    rows = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(figure)}<small>{escape(remark)}</small></dd></div>"
        for name, figure, remark in summary_rows(view.summary)
    )
    return f'<dl class="figures">{"".join(rows)}</dl>'


def turn_list(view: ReportView) -> str:
    """Every turn with its sound; words that nobody heard are struck through."""
    if not view.turns:
        return '<p class="nothing">The robot said nothing in this recording.</p>'
    return f'<ol class="turns" tabindex="0">{"".join(_turns(view))}</ol>'


def _turns(view: ReportView) -> Iterator[str]:
    for i, turn in enumerate(view.turns):
        start = clock((turn.sounded.start_ns - view.span.start_ns) / NS_PER_MS)
        lengths = duration(turn.spoken_ms)
        if turn.outcome in (Outcome.INTERRUPTED, Outcome.UNFINISHED):
            lengths = f"{duration(turn.heard_ms)} of {lengths} heard"
        if turn.concealed_ms:
            lengths += f", {duration(turn.concealed_ms)} of silence put in"
        button, sound = "", ""
        if turn.clip is not None:
            button = (
                f'<button type="button" class="play" data-turn="{i}" '
                f'aria-label="Play turn {turn.turn}">▶</button>'
            )
            sound = (
                f'<audio id="turn-{i}" preload="none" '
                f'src="{data_uri(turn.clip.mime, turn.clip.data)}"></audio>'
            )
        yield (
            f'<li id="row-{i}">{button or "<span></span>"}<div><p>{spoken_text(turn)}</p>'
            f'<p class="about"><a href="#timeline" data-at="{i}">{start}</a> · turn {turn.turn} · '
            f'<span class="outcome {turn.outcome.name.lower()}">{_SHORT_OUTCOME[turn.outcome]}'
            f"</span> · {escape(lengths)}</p></div>{sound}</li>"
        )


def spoken_text(turn: TurnView) -> str:
    """The turn's words as HTML: heard ones plain, unheard ones in <del>."""
    if not turn.words:
        return escape(turn.text) or '<span class="nothing">no text</span>'
    heard = " ".join(w.text for w in turn.words if w.heard is not False)
    unheard = " ".join(w.text for w in turn.words if w.heard is False)
    parts = [escape(heard)] if heard else []
    if unheard:
        parts.append(f'<del title="nobody heard this">{escape(unheard)}</del>')
    return " ".join(parts)


def alert_table(view: ReportView) -> str:
    """Every alert with its severity, life and evidence."""
    if not view.alerts:
        return '<p class="nothing">No alert was raised in this recording.</p>'
    rows = "".join(_alert_row(view, alert) for alert in view.alerts)
    return (
        '<div class="scroll" tabindex="0"><table><thead><tr><th scope="col">Raised</th>'
        '<th scope="col">Severity</th>'
        '<th scope="col">What</th><th scope="col">Lasted</th><th scope="col">Evidence</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _alert_row(view: ReportView, alert: AlertView) -> str:
    def at(stamp_ns: int) -> str:
        return clock((stamp_ns - view.span.start_ns) / NS_PER_MS)

    name = alert.severity.name.lower()
    return (
        f'<tr><td class="time">{at(alert.span.start_ns)}</td>'
        f'<td><span class="severity {name}">{name}</span></td>'
        f"<td>{escape(alert.text)} <small>{escape(alert.kind)}</small></td>"
        f"<td>{duration(alert.span.ms)}, {escape(alert.ended)}</td>"
        f'<td class="time">{", ".join(map(at, alert.evidence[:4])) or "none"}</td></tr>'
    )


def latency_table(view: ReportView) -> str:
    """Every hop with its percentiles; the swatches are those of the lane."""
    if not view.hops:
        return '<p class="nothing">No latency could be measured in this recording.</p>'
    rows = "".join(
        f'<tr><td><svg class="swatch" data-hop="{i}" viewBox="-8 -8 16 16" aria-hidden="true">'
        f"</svg>{escape(hop.meaning)}</td><td>{hop.count:,}</td>"
        f"<td>{milliseconds(hop.p50_ms)}</td><td>{milliseconds(hop.p99_ms)}</td>"
        f"<td>{milliseconds(hop.max_ms)}</td></tr>"
        for i, hop in enumerate(view.hops)
    )
    return (
        '<div class="scroll" tabindex="0"><table class="numbers"><thead><tr>'
        '<th scope="col">Hop</th><th scope="col">Count</th>'
        '<th scope="col">p50 ms</th><th scope="col">p99 ms</th><th scope="col">max ms</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )
