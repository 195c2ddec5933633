"""The report as one HTML file that needs no network: lanes on one time axis, sound, tables.

Everything that a recording says (speech, alerts, reasons) is foreign text and is escaped: here by
`html.escape`, in the script by text nodes, in the embedded data by hiding every "<".
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.replay.report.payload import Payload
from minicpmo_ros.replay.report.tables import alert_table, figures, latency_table, turn_list
from minicpmo_ros.replay.report.view import ReportView
from minicpmo_ros.replay.report.words import subtitle

_PAGE = Path(__file__).with_name("page")
_SCRIPTS = ("figure.js", "timeline.js", "readout.js", "player.js", "pointer.js")


def write_html(view: ReportView, path: str | Path, title: str = "Conversation") -> Path:
    """Write the page and return its path. Raises ConfigError without plotly."""
    path = Path(path)
    path.write_text(render(view, title), encoding="utf-8")
    return path


def render(view: ReportView, title: str = "Conversation") -> str:
    """The whole page as text. Raises ConfigError without plotly."""
    page = Template((_PAGE / "report.html").read_text(encoding="utf-8"))
    scripts = "\n".join((_PAGE / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return page.substitute(
        title=escape(title),
        subtitle=escape(subtitle(view)),
        notes="".join(f"<p>{escape(note)}</p>" for note in view.notes),
        figures=figures(view),
        player=_player(view),
        turns=turn_list(view),
        alerts=alert_table(view),
        latency=latency_table(view),
        style=(_PAGE / "report.css").read_text(encoding="utf-8"),
        plotly=_plotly_js(),
        data=embedded_json(Payload(view).build()),
        script=scripts,
    )


def embedded_json(value: Any) -> str:
    """JSON that no text inside can end early: "<", ">" and "&" are written as escapes."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _player(view: ReportView) -> str:
    if view.conversation is None:
        return '<p class="nothing">No sound of the whole conversation in this report.</p>'
    from minicpmo_ros.replay.report.sound import data_uri

    clip = view.conversation
    return (
        '<audio id="conversation" controls preload="metadata" '
        f'src="{data_uri(clip.mime, clip.data)}"></audio>'
        "<span>The whole conversation: microphone left, robot right.</span>"
    )


def _plotly_js() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ConfigError(
            "the HTML report needs plotly, which is not installed: "
            "pip install 'minicpmo_ros[report]'"
        ) from error
    return str(get_plotlyjs())
