"""The report as one PNG: the same lanes as on the page, drawn by matplotlib without a display."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.replay.report.painter import INK, SOFT
from minicpmo_ros.replay.report.view import ReportView
from minicpmo_ros.replay.report.words import subtitle, summary_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei")


def write_png(
    view: ReportView,
    path: str | Path,
    title: str = "Conversation",
    width: int = 1600,
    height: int = 1000,
) -> Path:
    """Write a picture of width x height pixels and return its path.

    Raises ConfigError without matplotlib, or for a picture too small to be read (800 x 600).
    """
    if width < 800 or height < 600:
        raise ConfigError(f"a picture of {width} x {height} pixels: it must be 800 x 600 or more")
    path = Path(path)
    with warnings.catch_warnings():
        # A machine without a Chinese font draws boxes; a warning for each sign says no more.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = draw(view, title, width, height)
        figure.savefig(path, format="png", dpi=DPI)
    return path


def draw(view: ReportView, title: str, width: int, height: int) -> Figure:
    """The figure, one axes a lane, each labelled with its name (`Axes.get_label`)."""
    matplotlib, figure_class = _matplotlib()
    from minicpmo_ros.replay.report.pnglanes import LANES, draw_lane

    known = set(matplotlib.font_manager.get_font_names())
    fonts = [name for name in _FONTS if name in known]
    with matplotlib.rc_context({"font.family": fonts or ["sans-serif"], "font.size": 9}):
        figure = figure_class(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
        _head(figure, view, title)
        # Room in pixels: text must stay apart whatever the size of the picture.
        left, right, top, bottom = 140 / width, 1 - 22 / width, 1 - 158 / height, 92 / height
        grid = figure.add_gridspec(
            len(LANES),
            1,
            left=left,
            right=right,
            top=top,
            bottom=bottom,
            hspace=0.28,
            height_ratios=[lane.height for lane in LANES],
        )
        shared: Any = None
        for i, lane in enumerate(LANES):
            axes = figure.add_subplot(grid[i], sharex=shared, label=lane.name)
            shared = shared or axes
            draw_lane(lane, axes, view)
    return figure


def _head(figure: Figure, view: ReportView, title: str) -> None:
    width, height = figure.get_size_inches() * DPI

    def put(x: float, y: float, text: str, size: float, colour: str, weight: str = "") -> None:
        figure.text(
            x / width,
            1 - y / height,
            text,
            size=size,
            color=colour,
            weight=weight or "normal",
            va="baseline",
            parse_math=False,
        )

    put(24, 40, title, 17, INK, "bold")
    put(24, 62, subtitle(view), 10, SOFT)
    rows = summary_rows(view.summary)
    step = (width - 48) / len(rows)
    for i, (name, value, remark) in enumerate(rows):
        put(24 + i * step, 92, name, 9, SOFT)
        put(24 + i * step, 114, value, 13, INK, "bold")
        put(24 + i * step, 132, remark, 8.5, SOFT)


def _matplotlib() -> tuple[Any, Any]:
    try:
        import matplotlib
        import matplotlib.backends.backend_agg
        import matplotlib.font_manager
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "the PNG report needs matplotlib, which is not installed: "
            "pip install 'minicpmo_ros[report]'"
        ) from error
    return matplotlib, Figure
