"""Text that stays inside its box in the PNG: measured, wrapped, and cut with "…" where it must."""

from __future__ import annotations

from typing import Any

_SIZE = 8.5
_INSET_PX = 4.0


class Fitter:
    """Places labels in the axes of one lane; knows pixels, seconds and the width of words."""

    def __init__(self, axes: Any) -> None:
        from matplotlib.font_manager import FontProperties

        self._axes = axes
        self._renderer = axes.figure.canvas.get_renderer()
        self._font = FontProperties(size=_SIZE)
        self._widths: dict[str, float] = {}

    @property
    def height_px(self) -> float:
        return float(self._axes.bbox.height)

    def seconds(self, pixels: float) -> float:
        """How much time so many pixels are."""
        first, last = self._axes.get_xlim()
        return float(pixels * (last - first) / self._axes.bbox.width)

    def width_px(self, text: str) -> float:
        if text not in self._widths:
            size = self._renderer.get_text_width_height_descent(text, self._font, False)
            self._widths[text] = float(size[0])
        return self._widths[text]

    def label(
        self,
        text: str,
        start_s: float,
        stop_s: float,
        y: float,
        lines: int,
        colour: str,
        on_white: bool = False,
    ) -> None:
        """Text from start_s on, at most to stop_s; nothing where not even a word has room."""
        room = (stop_s - start_s) / self.seconds(1) - 2 * _INSET_PX
        rows = self.wrapped(" ".join(text.split()), room, lines)
        box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5}
        if rows:
            self._axes.text(
                start_s + self.seconds(_INSET_PX),
                y,
                "\n".join(rows),
                size=_SIZE,
                color=colour,
                va="center",
                ha="left",
                linespacing=1.15,
                parse_math=False,
                zorder=5,
                clip_on=True,
                bbox=box if on_white else None,
            )

    def wrapped(self, text: str, room_px: float, lines: int) -> list[str]:
        """Rows of at most room_px; the last one is cut where more was to come."""
        words = text.split()
        rows: list[str] = []
        if room_px < 34:
            return []
        while words and len(rows) < lines:
            row = words.pop(0)
            while words and self.width_px(f"{row} {words[0]}") <= room_px:
                row = f"{row} {words.pop(0)}"
            if words and len(rows) == lines - 1:
                row = f"{row} {' '.join(words[:12])}"
            short = self.shortened(row, room_px)
            if not short:
                break
            rows.append(short)
            if short != row:
                return rows
        if rows and (words or len(" ".join(rows)) < len(text)):
            rows[-1] += "…"
        return rows

    def shortened(self, text: str, room_px: float) -> str:
        """The text, or as much of it as has room with "…"; empty if that is hardly anything."""
        if self.width_px(text) <= room_px:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self.width_px(text[:middle] + "…") <= room_px:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip() + "…" if low >= 3 else ""
