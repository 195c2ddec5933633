"""`minicpmo bench speech`: what it times, at the smallest size and in as little time as can be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the network needs the extra model")
pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")

from minicpmo_ros.bench import speech
from minicpmo_ros.bench.speech import OURS, REFERENCE, Way, figures
from minicpmo_ros.errors import ConfigError, EngineError
from minicpmo_ros.runtime.engines import disk

NAMES = ("rtf", "first_sound_ms", "flow_percent", "hift_percent", "least_reserve_ms")


@pytest.mark.timeout(300)  # graphs are traced, beside others
def test_every_figure_that_is_promised_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: dict[Way, dict[str, float]] = {}
    real = speech._measured
    monkeypatch.setattr(
        speech, "_measured", lambda way, *given: measured.setdefault(way, real(way, *given))
    )
    monkeypatch.setattr(speech, "WAYS", (REFERENCE, OURS))
    monkeypatch.setattr(speech, "VOICE_TOKENS", 12)
    monkeypatch.setattr(speech.torch.cuda, "is_available", lambda: False)
    out = tmp_path / "figures.json"
    speech.bench("tiny", (2, 1), (12, 8, 25), seconds=3, rounds=1, threads=1, json=out)
    found = json.loads(out.read_text())
    named = found["figures"]
    promised = {"rtf", "first_sound_ms", "tokens_before_first_sound", "first_sound_over_28_tokens"}
    for way in ("torch.fp32", "onnxruntime.fp32"):
        promised |= {
            f"{way}.steps{steps}.first{first}.{name}"
            for steps in (2, 1)
            for first in (8, 12, 25)
            for name in NAMES
        }
        promised |= {
            f"{way}.{name}"
            for name in ("chunk_over_read", "turn_over_torch", "voice_s", "rss_gb", "pasts_gb")
        }
    ours_at = "onnxruntime.fp32.steps2.first"
    promised |= {
        f"{ours_at}{first}.chunk{number}.{name}"
        for first, chunks in ((8, 4), (12, 4), (25, 3))
        for number in range(1, chunks + 1)
        for name in ("made_ms", "ready_ms")
    }
    assert {f"speech.tiny.{name}" for name in promised} <= named.keys()
    assert named["speech.tiny.tokens_before_first_sound"] == 11
    assert named["speech.tiny.onnxruntime.fp32.mel_error"] < 1e-4
    assert named["speech.tiny.torch.fp32.turn_over_torch"] == 1
    ours = measured[OURS]
    # What is said of memory is that of a robot, which has no torch.
    assert ours["torch"] == 0 and measured[REFERENCE]["torch"] == 1
    assert ours["rss.begun"] < ours["rss.loaded"] <= ours["rss.peak"]
    # 8 tokens are 320 ms, of which the last 160 are held back.
    assert (ours["2.8.first_tokens"], ours["2.25.first_tokens"]) == (11, 28)
    assert ours["2.8.first_sound_s"] == pytest.approx(0.16)
    assert ours["2.25.first_sound_s"] == pytest.approx(0.84)
    assert all(ours[f"{pair}.sound_s"] == 3 for pair in ("2.8", "2.12", "2.25", "1.8", "1.25"))
    for first, tokens, ready in (
        (8, (11, 28, 53, 75), (160, 840, 1840, 3000)),
        (12, (15, 28, 53, 75), (320, 840, 1840, 3000)),
        (25, (28, 53, 75), (840, 1840, 3000)),
    ):
        at = [f"2.{first}.chunk{number}." for number in range(1, 1 + len(tokens))]
        assert [ours[f"{chunk}tokens"] for chunk in at] == list(tokens)
        assert [ours[f"{chunk}ready_ms"] for chunk in at] == pytest.approx(ready)
        made = [ours[f"{chunk}made_ms"] for chunk in at]
        assert made == sorted(made) and made[0] == ours[f"2.{first}.first_ms"] > 0
        # One round: what is in reserve is what was ready before, without what has sounded.
        unheard = [a - (b - made[0]) for a, b in zip(ready, made[1:], strict=False)]
        assert [ours[f"{chunk}reserve_ms"] for chunk in at[1:]] == pytest.approx(unheard)
        assert f"{at[0]}reserve_ms" not in ours
        assert named[f"speech.tiny.{ours_at}{first}.least_reserve_ms"] == pytest.approx(
            min(unheard)
        )
    printed = capsys.readouterr().out
    assert "RTX 4090" in printed and "M4 Max" in printed
    assert found["machine"]["conditions"]["turn"] == "3 s"


def test_ratios_and_goals_are_of_what_was_measured_in_the_run() -> None:
    def way(scale: float) -> dict[str, float]:
        found = {"read_ms": 4.0, "voice_s": 3.0, "rss.peak": 2e9, "pasts": 5e8}
        for first, ms in ((8, 100.0), (25, 400.0)):
            found |= {
                f"10.{first}.turn_s": 2.0 * scale,
                f"10.{first}.flow_s": 1.5 * scale,
                f"10.{first}.hift_s": 0.5 * scale,
                f"10.{first}.chunk1.made_ms": ms * scale,
                f"10.{first}.chunk1.ready_ms": 160.0,
                f"10.{first}.chunk2.made_ms": 2 * ms * scale,
                f"10.{first}.chunk2.ready_ms": 840.0,
                f"10.{first}.chunk2.reserve_ms": 160.0 - ms * scale,
                f"10.{first}.sound_s": 4.0,
                f"10.{first}.first_ms": ms * scale,
                f"10.{first}.first_tokens": first + 3.0,
                f"10.{first}.chunk_ms": 500.0,
            }
        return found

    made = figures("full", {REFERENCE: way(2), OURS: way(1)}, {REFERENCE: 0.0, OURS: 1e-6})
    found = {one.name.removeprefix("speech."): (one.value, one.met) for one in made}
    assert found["rtf"] == (0.5, True)
    assert found["first_sound_ms"] == (100.0, None)
    assert found["tokens_before_first_sound"] == (11.0, None)
    assert found["first_sound_over_28_tokens"] == (0.25, None)
    assert found["onnxruntime.fp32.chunk_over_read"] == (12.5, None)
    assert found["onnxruntime.fp32.turn_over_torch"] == (0.5, None)
    assert found["onnxruntime.fp32.steps10.first25.flow_percent"] == (75.0, None)
    assert found["onnxruntime.fp32.steps10.first25.hift_percent"] == (25.0, None)
    assert found["torch.fp32.steps10.first8.rtf"] == (1.0, None)
    assert found["torch.fp32.steps10.first8.least_reserve_ms"] == (-40.0, None)
    assert found["onnxruntime.fp32.steps10.first8.least_reserve_ms"] == (60.0, None)
    assert "torch.fp32.steps10.first8.chunk1.ready_ms" not in found
    assert not any("card" in name for name in found)
    assert (
        figures("full", {REFERENCE: way(1), OURS: way(3)}, {REFERENCE: 0.0, OURS: 0.0})[0].met
        is False
    )


def test_without_chunks_of_25_and_on_a_card_figures_are_of_what_there_is() -> None:
    one = {"read_ms": 4.0, "voice_s": 3.0, "rss.peak": 2e9, "pasts": 5e8, "card.peak": 3e9}
    one |= {"10.12.turn_s": 2.0, "10.12.flow_s": 1.5, "10.12.hift_s": 0.5, "10.12.sound_s": 4.0}
    one |= {"10.12.first_ms": 90.0, "10.12.first_tokens": 15.0, "10.12.chunk_ms": 500.0}
    one |= {"10.12.chunk1.made_ms": 90.0, "10.12.chunk1.ready_ms": 320.0}
    one |= {"10.12.chunk2.made_ms": 500.0, "10.12.chunk2.ready_ms": 840.0}
    one |= {"10.12.chunk1.tokens": 15.0, "10.12.chunk2.tokens": 28.0}
    one |= {"10.12.chunk2.reserve_ms": -90.0}
    card = Way("torch", "fp16", "cuda")
    ways = {REFERENCE: one, OURS: one, card: one}
    made = figures("full", ways, dict.fromkeys(ways, 0.0))
    found = {figure.name.removeprefix("speech."): figure.value for figure in made}
    assert found["tokens_before_first_sound"] == 15
    assert "first_sound_over_28_tokens" not in found
    assert found["torch.fp16.cuda.card_gb"] == 3
    table = speech.chunk_table(ways, 10, [12])
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows[:2] == [
        ("torch.fp32", "12", "15", "90", "320", ""),
        ("", "", "28", "500", "840", "-90"),
    ]
    assert len(rows) == 6


def test_what_has_no_room_is_refused_before_anything_is_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*given: object) -> None:
        raise AssertionError("something was begun")

    monkeypatch.setattr(speech, "write_assets", never)
    with pytest.raises(ConfigError, match="size 'huge': there are full, tiny"):
        speech.bench("huge")
    with pytest.raises(ConfigError, match="steps: 10, 11: each must be 1 to 10"):
        speech.bench("tiny", (10, 11))
    with pytest.raises(ConfigError, match="first: 8, 9: each must be one of 8, 12, 25 tokens"):
        speech.bench("tiny", firsts=(8, 9))
    monkeypatch.setattr(speech, "available_bytes", lambda: 10**9)
    with pytest.raises(EngineError, match=r"vocoder takes .* GB of memory, 1\.0 GB are free"):
        speech.bench("full")
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 10**9)
    with pytest.raises(EngineError, match="the random vocoder"):
        speech.bench("full")
