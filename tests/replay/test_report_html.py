"""The page: it needs no network, lets no recorded text act as code, and works in a real browser."""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.messages import (
    Action,
    Alert,
    AudioChunk,
    Decision,
    SessionState,
    Severity,
    SpeechChunk,
    State,
)
from minicpmo_ros.replay.report import ReportBuilder, ReportView
from minicpmo_ros.replay.report.html import embedded_json, render, write_html
from tests.replay.report_chromium import Browser, browser, chromium
from tests.replay.report_conversation import at, conversation

pytest.importorskip("plotly", reason="the page is drawn by plotly: the extra 'report'")

LANES = [
    "pictures", "mic", "voice", "decisions", "speech", "playback", "alerts", "state", "latency",
]  # fmt: skip
EVIL = "</script><script>hacked=1</script><img src=x onerror=hacked=2> \"'&amp; <b>bold</b> $title"


def view_of(logged) -> ReportView:
    builder = ReportBuilder()
    for topic, log_ns, message in logged:
        builder.add(topic, log_ns, message)
    return builder.build()


@pytest.fixture(scope="module")
def view() -> ReportView:
    return view_of(conversation())


@pytest.fixture(scope="module")
def page(view) -> str:
    return render(view, "A conversation")


def evil_view() -> ReportView:
    """A recording in which every text tries to be more than text."""
    chunk = SpeechChunk(at(1), 0, 1, 0, 0, np.ones(24_000, np.int16), EVIL, last=True)
    messages = [
        ("decision", Decision(at(1), 0, 0, Action.SPEAK, 1, EVIL, True, EVIL, EVIL)),
        ("audio/speech", chunk),
        ("alert", Alert(at(1), EVIL, 1, Severity.CRITICAL, True, EVIL, 0, 0)),
        ("state", SessionState(at(0.5), State.FAULT, brain=EVIL, detail=EVIL)),
    ]
    return view_of([(topic, message.stamp_ns, message) for topic, message in messages])


class Tags(HTMLParser):
    """Every start tag with its attributes, and what each script and style holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.held: dict[str, list[str]] = {"script": [], "style": []}
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag):
        self._within = ""

    def handle_data(self, data):
        if self._within in self.held:
            self.held[self._within].append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def data_of(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found[1])


def test_the_page_loads_nothing_from_anywhere(page):
    tags = Tags(page)
    addresses = [
        value or ""
        for _, attrs in tags.tags
        for name, value in attrs.items()
        if name in ("src", "href", "srcset", "poster", "action", "data")
    ]
    assert addresses
    assert all(a.startswith(("data:", "#")) for a in addresses)
    assert not re.search(r"url\(|@import", "".join(tags.held["style"]))
    (policy,) = [a["content"] for a in tags.named("meta") if "http-equiv" in a]
    assert "default-src 'none'" in policy


def test_the_page_is_one_well_formed_document(page):
    tags = Tags(page)
    assert tags.named("title") == [{}]
    ids = [attrs["id"] for _, attrs in tags.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert not re.search(r"\$(title|data|style|script|figures|turns)\b", page.split("<script>")[0])


def test_the_data_are_json_that_holds_every_lane(page, view):
    data = data_of(page)
    assert set(LANES) - {"decisions", "speech", "state", "latency"} <= set(data)
    assert len(data["units"]) == view.summary.units
    assert [t["text"] for t in data["turns"]] == [t.text for t in view.turns]
    assert data["duration"] == 30_000


def test_numbers_that_json_does_not_have_become_null():
    view = view_of([("decision", at(1), Decision(at(1), 0, 0, Action.LISTEN))])
    assert data_of(render(view))["units"][0]["pSpeak"] is None


def test_recorded_text_stays_text_in_the_html():
    tags = Tags(render(evil_view(), EVIL))
    plain = Tags(render(view_of([]), "plain"))
    assert len(tags.named("script")) == len(plain.named("script"))
    assert not tags.named("img")
    assert not tags.named("b")
    assert not any(name.startswith("on") for _, attrs in tags.tags for name in attrs)
    # and it is all there
    assert data_of(render(evil_view()))["turns"][0]["text"] == EVIL


@pytest.mark.parametrize("text", ["</script>", "<!--", "a & b", "\u2028", "ünïcode 你好"])
def test_embedded_json_says_the_same_and_closes_no_tag(text):
    embedded = embedded_json({"text": text})
    assert json.loads(embedded) == {"text": text}
    assert not set("<>&\u2028") & set(embedded)


def test_unheard_words_are_struck_through(page, view):
    struck = re.findall(r"<del[^>]*>(.*?)</del>", page.split("<script>")[0])
    assert struck == [" ".join(w.text for w in view.turns[1].words if w.heard is False)]


def test_each_turn_can_be_played_without_the_lanes(page):
    sounds = [a for a in Tags(page).named("audio") if str(a["id"]).startswith("turn-")]
    assert len(sounds) == 2
    assert all(str(a["src"]).startswith("data:audio/wav;base64,") for a in sounds)


def test_without_plotly_the_error_names_the_extra(view, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name.startswith("plotly"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"pip install 'minicpmo_ros\[report\]'"):
        render(view)


def without(*topics: str) -> ReportView:
    return view_of([entry for entry in conversation() if entry[0] not in topics])


def units(count: int) -> ReportView:
    """Units in silence, with the microphone's sound of the first second."""
    silence = AudioChunk(at(0), np.zeros(16_000, np.int16))
    unit = Decision(at(1), 0, 0, Action.LISTEN, reason="nothing")
    decisions = (replace(unit, stamp_ns=at(i + 1), unit=i) for i in range(count))
    return view_of(
        [("audio/mic", at(1), silence), *(("decision", d.stamp_ns, d) for d in decisions)]
    )


PARTIAL: dict[str, Callable[[], ReportView]] = {
    "nothing": lambda: view_of([]),
    "one unit": lambda: units(1),
    "no pictures": lambda: without("image_raw/compressed"),
    "no speech": lambda: without("audio/speech", "playback", "audio/played"),
    "no playback": lambda: without("playback", "audio/played"),
    "no microphone": lambda: without("audio/mic", "voice"),
    "an hour": lambda: units(3_600),
    "evil": evil_view,
}


needs_chromium = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def shown(chrome: Browser, view, tmp_path) -> Browser:
    open_page(chrome, view, tmp_path)
    return chrome


def open_page(chrome: Browser, view: ReportView, folder: Path) -> None:
    chrome.complaints.clear()
    chrome.requests.clear()
    chrome.open(write_html(view, folder / "report.html", "A conversation"))
    assert chrome.run("document.documentElement.dataset.report") == "ready"


def lane_spot(chrome: Browser, lane: str, seconds: float) -> tuple[float, float]:
    """Where on the screen a time of a lane is, while the whole recording is shown."""
    box = chrome.run(
        "(() => { const g = document.getElementById('lanes'), f = g._fullLayout, s = f._size;"
        f"const i = {LANES.index(lane) + 1}, d = f['yaxis' + (i > 1 ? i : '')].domain;"
        "const r = g.getBoundingClientRect(), a = f.xaxis;"
        f"return [r.x + a._offset + a.d2p({seconds * 1000}),"
        " r.y + s.t + s.h * (1 - (d[0] + d[1]) / 2)]; })()"
    )
    return box[0], box[1]


def shown_range(chrome: Browser) -> list[float]:
    return chrome.run("document.getElementById('lanes')._fullLayout.xaxis.range")


@needs_chromium
@pytest.mark.parametrize("name", PARTIAL)
def test_every_recording_gives_a_page_without_complaints(chrome, tmp_path, name):
    view = PARTIAL[name]()
    open_page(chrome, view, tmp_path)
    assert chrome.complaints == []
    assert [r for r in chrome.requests if not r.startswith(("file:", "data:"))] == []
    drawn = chrome.run("document.querySelector('#lanes .annotation') !== null")
    assert drawn
    assert chrome.run("typeof hacked") == "undefined"
    said = chrome.run(
        "[...document.querySelectorAll('#lanes .annotation')].map(a => a.textContent)"
    )
    empty = {
        "no pictures in this recording": not view.pictures.count,
        "no microphone sound in this recording": not view.mic.chunks,
        "nobody spoke": not view.voice,
        "no decisions in this recording": not view.units,
        "the robot said nothing": not view.turns,
        "no playback reports in this recording": not view.playback,
        "no alerts": not view.alerts,
        "no session state in this recording": not view.states,
        "no latency could be measured": not view.hops,
    }
    assert {text for text in said if text in empty} == {t for t, is_so in empty.items() if is_so}


@needs_chromium
def test_a_label_shows_the_tags_of_recorded_text_as_text(chrome, tmp_path):
    open_page(chrome, evil_view(), tmp_path)
    labels = chrome.run(
        "[...document.querySelectorAll('#lanes .textpoint')].map(e => e.textContent)"
    )
    assert any("</script>" in label for label in labels)


@needs_chromium
def test_dragging_zooms_all_lanes_and_a_double_click_shows_the_whole(shown):
    whole = shown_range(shown)
    x0, y = lane_spot(shown, "mic", 12)
    x1, _ = lane_spot(shown, "mic", 20)
    shown.drag(x0, x1, y)
    assert shown_range(shown) == pytest.approx([12_000, 20_000], abs=60)
    words = shown.run("[...document.querySelectorAll('#lanes .textpoint')].map(e => e.textContent)")
    assert "enough" not in words
    assert {"ball", "red,", "rolls"} <= set(words)  # there is room for single words now
    shown.click(x0, y)
    shown.click(x0, y)
    shown.wait("document.getElementById('lanes')._fullLayout.xaxis.range[0] < 0")
    assert shown_range(shown) == whole


@needs_chromium
def test_pointing_reads_out_every_lane_at_that_moment(shown):
    shown.mouse("mouseMoved", *lane_spot(shown, "alerts", 16.6))
    text = shown.run("document.getElementById('readout').textContent")
    for part in ("00:16.6", "unit 16", "LISTEN: someone speaks", "turn 2", "barge-in", "voice"):
        assert part in text
    assert shown.run("document.querySelector('#readout img').naturalWidth") == 320
    shown.mouse("mouseMoved", *lane_spot(shown, "alerts", 25))
    text = shown.run("document.getElementById('readout').textContent")
    assert "camera lost" in text
    assert "A sudden loud sound" in text


@needs_chromium
def test_clicking_a_turn_plays_it_and_the_cursor_follows(shown):
    shown.click(*lane_spot(shown, "speech", 14))
    shown.wait("!document.getElementById('turn-1').paused")
    shown.wait("document.getElementById('turn-1').currentTime > 0.2")
    left = shown.run("parseFloat(document.getElementById('cursor').style.left)")
    start = shown.run("document.getElementById('lanes')._fullLayout.xaxis.d2p(13030) + 42")
    assert left > start
    shown.click(*lane_spot(shown, "speech", 14))
    shown.wait("document.getElementById('turn-1').paused")


@needs_chromium
def test_clicking_elsewhere_sets_the_cursor_in_the_whole_conversation(shown):
    shown.click(*lane_spot(shown, "voice", 21))
    shown.wait("document.getElementById('conversation').currentTime > 0")
    at_s = shown.run("document.getElementById('conversation').currentTime")
    assert at_s == pytest.approx(21, abs=0.1)
    shown.run("document.getElementById('conversation').play()")
    shown.wait("document.getElementById('conversation').currentTime > 21.3")
    shown.run("document.getElementById('conversation').pause()")
    assert shown.complaints == []


@needs_chromium
@pytest.mark.parametrize("width", [360, 800, 1600])
def test_no_window_has_to_be_scrolled_sideways(shown, width):
    metrics = {"height": 900, "deviceScaleFactor": 1, "mobile": False}
    shown.call("Emulation.setDeviceMetricsOverride", width=width, **metrics)
    try:
        shown.wait(
            "document.getElementById('lanes')._fullLayout.width"
            " === document.getElementById('lanes').clientWidth"
        )
        assert shown.run("document.documentElement.scrollWidth") <= width
    finally:
        shown.call("Emulation.setDeviceMetricsOverride", width=1600, **metrics)


@needs_chromium
def test_the_lanes_follow_a_change_between_light_and_dark(shown):
    ink = "getComputedStyle(document.querySelector('#lanes .annotation text')).fill"
    light = shown.run(ink)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    shown.call("Emulation.setEmulatedMedia", features=features)
    shown.wait(f"{ink} !== {json.dumps(light)}")
    shown.call("Emulation.setEmulatedMedia", features=[{**features[0], "value": "light"}])
    shown.wait(f"{ink} === {json.dumps(light)}")
