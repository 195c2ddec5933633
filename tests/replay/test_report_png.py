"""The picture of a report: its size, its lanes, and text that keeps inside them."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.messages import Action, Decision
from minicpmo_ros.replay.report import ReportBuilder, ReportView
from tests.replay.report_conversation import at, conversation

matplotlib = pytest.importorskip("matplotlib", reason="the PNG needs the extra 'report'")

from minicpmo_ros.replay.report.png import draw, write_png  # noqa: E402 - needs matplotlib

LANES = [
    "Pictures", "Microphone", "Voice", "Decisions", "Speech", "Playback", "Alerts", "State",
    "Latency",
]  # fmt: skip


def view_of(logged) -> ReportView:
    builder = ReportBuilder()
    for topic, log_ns, message in logged:
        builder.add(topic, log_ns, message)
    return builder.build()


@pytest.fixture(scope="module")
def view() -> ReportView:
    return view_of(conversation())


def pixels(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3]


def colours_in(image: np.ndarray, box) -> int:
    """How many pixels of a lane have a colour, which ink, grid and paper have not."""
    height = image.shape[0]
    part = image[height - int(box.y1) : height - int(box.y0), int(box.x0) : int(box.x1)].astype(int)
    return int((part.max(axis=2) - part.min(axis=2) > 60).sum())


@pytest.mark.parametrize("size", [(1600, 1000), (1000, 700)])
def test_the_file_is_a_png_of_the_size_asked_for(view, tmp_path, size):
    import cv2

    path = write_png(view, tmp_path / "report.png", "A conversation", *size)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert cv2.imread(str(path)).shape == (size[1], size[0], 3)


def test_every_lane_is_drawn_and_an_empty_recording_draws_none(view):
    full, empty = draw(view, "full", 1600, 1000), draw(view_of([]), "empty", 1600, 1000)
    for figure, drawn in ((full, True), (empty, False)):
        image = pixels(figure)
        lanes = {axes.get_label(): axes for axes in figure.axes}
        assert list(lanes) == LANES
        for name, axes in lanes.items():
            seen = colours_in(image, axes.bbox)
            assert seen > 100 if drawn else seen == 0, name


def test_every_lane_without_data_says_so():
    for axes in draw(view_of([]), "empty", 1600, 1000).axes:
        assert any(
            text.get_text().startswith(("no", "the robot said nothing")) for text in axes.texts
        ), axes.get_label()


def text_boxes(figure):
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [*figure.texts, *(t for axes in figure.axes for t in axes.texts)]
    latency = figure.axes[-1]
    first, last = latency.get_xlim()
    ticks = [t for t in latency.get_xticklabels() if first <= t.get_position()[0] <= last]
    ticks += latency.get_yticklabels() if latency.get_yscale() == "log" else []
    shown = [t for t in (*texts, *ticks) if t.get_text().strip()]
    return [(t.get_text(), t.get_window_extent(renderer)) for t in shown]


def busy() -> ReportView:
    """A minute in which every unit speaks a long sentence."""
    text = "words that have no room in a single second of this lane whatever its width is"
    return view_of(
        [
            ("decision", at(i + 1), Decision(at(i + 1), i, 0, Action.SPEAK, i + 1, text))
            for i in range(60)
        ]
    )


@pytest.mark.parametrize("size", [(1600, 1000), (1000, 700)])
@pytest.mark.parametrize("which", ["conversation", "busy", "nothing"])
def test_no_text_lies_on_another_or_leaves_the_picture(view, which, size):
    shown = {"conversation": view, "busy": busy(), "nothing": view_of([])}[which]
    boxes = text_boxes(draw(shown, "A conversation", *size))
    assert len(boxes) > 20
    for i, (text, box) in enumerate(boxes):
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= size[0] + 1, text
        assert box.y1 <= size[1] + 1, text
        for other, other_box in boxes[i + 1 :]:
            apart = (
                box.x1 <= other_box.x0 + 1
                or other_box.x1 <= box.x0 + 1
                or box.y1 <= other_box.y0 + 2
                or other_box.y1 <= box.y0 + 2
            )
            assert apart, (text, other)


def test_recorded_dollars_are_no_formula():
    view = view_of([("decision", at(1), Decision(at(1), 0, 0, Action.SPEAK, 1, r"$\frac{1$ $x$"))])
    pixels(draw(view, "costs $5 to $6 {", 1600, 1000))


def test_a_picture_too_small_to_read_is_refused(view, tmp_path):
    with pytest.raises(ConfigError, match="800 x 600 or more"):
        write_png(view, tmp_path / "report.png", width=100)


def test_without_matplotlib_the_error_names_the_extra(view, tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"pip install 'minicpmo_ros\[report\]'"):
        write_png(view, tmp_path / "report.png")
