"""`minicpmo bench engines`: what it times, at the smallest size and in as little time as can be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the network needs the extra model")
pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")

from minicpmo_ros.bench import encoders, engines, growth, layers, llamacpp, turn_about  # noqa: E402
from minicpmo_ros.bench.noise import noise_picture, random_tokenizer  # noqa: E402
from minicpmo_ros.bench.random_network import random_network  # noqa: E402
from minicpmo_ros.bench.random_pieces import write_random  # noqa: E402
from minicpmo_ros.bench.units import LOOP, unit_ms  # noqa: E402
from minicpmo_ros.duplex.config import DuplexConfig  # noqa: E402
from minicpmo_ros.duplex.conversation import Conversation, Outcome  # noqa: E402
from minicpmo_ros.errors import ConfigError, EngineError  # noqa: E402
from minicpmo_ros.model.config import ModelConfig  # noqa: E402
from minicpmo_ros.model.tiny import config_json  # noqa: E402
from minicpmo_ros.runtime.engines import disk  # noqa: E402
from minicpmo_ros.runtime.engines.pieces import Piece  # noqa: E402

VOCAB = 2048
TOKENS = 3000


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[Piece, Path]]:
    """As `write_random`, but what is alike is written once and lent."""
    shared = tmp_path_factory.mktemp("pieces")
    there: dict[tuple[ModelConfig, Piece], Path] = {}

    def write(
        config: ModelConfig,
        pieces: Iterable[Piece],
        folder: Path,
        advance: Callable[[str], None] = lambda name: None,
    ) -> dict[Piece, Path]:
        files = {}
        for piece in pieces:
            if (config, piece) not in there:
                own = shared / str(len(there))
                own.mkdir()
                there[config, piece] = write_random(config, [piece], own)[piece]
            (folder / piece.name).symlink_to(shared / _place(there[config, piece], shared))
            files[piece] = there[config, piece]
            advance(piece.name)
        return files

    return write


def _place(file: Path, shared: Path) -> Path:
    """The folder of a piece, of its file or of its folder of tables."""
    return Path(*file.relative_to(shared).parts[:2])


@pytest.fixture
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch, written: Callable[..., Any]) -> None:
    for module in (engines, layers, encoders):
        monkeypatch.setattr(module, "write_random", written)
    monkeypatch.setattr(engines, "config_json", lambda size: config_json(size, VOCAB))
    monkeypatch.setattr(layers, "LAYERS", 2)  # as the whole network has
    monkeypatch.setattr(layers.layer_ms, "__defaults__", (1,))
    monkeypatch.setattr(encoders.encoder_ms, "__defaults__", (1,))
    monkeypatch.setattr(growth, "UNITS", 2)
    for name, few in (("PICTURES", (0, 2)), ("SLICES", (1,)), ("CONTEXTS", (600,))):
        monkeypatch.setattr(growth, name, few)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("_in_a_hurry")
def test_every_figure_that_is_promised_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: dict[str, float] = {}
    units: list[int] = []
    whole = engines._whole

    def noted(*given: Any) -> dict[str, float]:
        advance = given[-1]
        measured.update(whole(*given[:-1], lambda: (units.append(1), advance())))
        return measured

    monkeypatch.setattr(engines, "_whole", noted)
    out = tmp_path / "figures.json"
    engines.bench("tiny", 2 * LOOP, TOKENS, 11 / 3600, 1, out)
    found = json.loads(out.read_text())
    figures = found["figures"]
    assert found["machine"]["conditions"]["threads"] == 1
    promised = {"decode_over_floor", "vision_ms_tiny", "audio_ms_tiny", "rss_gb_tiny_int4"}
    promised |= {"decode_over_torch_bf16", "prefill_over_torch_bf16", "loading_s"}
    promised |= {f"{stage}_over_torch_{kind}" for stage in ("vision", "audio") for kind in KINDS}
    promised |= {f"unit_{kind}_ms" for kind in ("listen", "listen_early", "speak", "speak_early")}
    promised |= {f"unit_{kind}_ms" for kind in ("first_sound", "first_sound_early")}
    promised |= {f"unit_ms.{name}" for name in ("pictures.0", "pictures.2", "slices.1")}
    promised |= {"unit_ms.context.600", "session_0.00305556h_unit_time_ratio"}
    if llamacpp.missing() is None:
        promised |= {"decode_over_llamacpp", "prefill_over_llamacpp"}
    assert {f"engines.tiny.{name}" for name in promised} <= figures.keys()
    assert all(value > 0 for value in figures.values())
    # What is said of memory is that of a robot, which has no torch.
    assert measured["torch"] == 0
    assert measured["rss.begun"] < measured["rss.loaded"] <= measured["rss.peak"]
    assert figures["engines.tiny.rss_gb_tiny_int4"] == measured["rss.peak"] / 1e9
    # 16 units with a picture each, behind so long a prompt that all tokens are used.
    assert measured["prompt"] + 16 * (64 + 2 + 10 + 12) == TOKENS - 80
    assert len(units) == 2 * 16
    printed = capsys.readouterr().out
    assert "600 tokens of context" in printed
    assert "read 74" in printed


KINDS = ("bf16", "fp32")


def test_ratios_and_goals_are_of_what_was_measured_in_the_run() -> None:
    layers = {"decode.ours": 5.0, "decode.read": 4.0, "decode.torch bf16": 20.0}
    layers |= {"decode.llama.cpp": 10.0, "prefill.ours": 90.0, "prefill.llama.cpp": 60.0}
    layers |= {"prefill.torch bf16": 100.0}
    encoders = {"vision.ours": 3250.0, "vision.torch bf16": 6500.0, "vision.torch fp32": 13000.0}
    encoders |= {"audio.ours": 334.0, "audio.torch bf16": 167.0, "audio.torch fp32": 668.0}
    whole = {"rss.peak": 7.5e9, "rss.loaded": 6e9, "loading_s": 3.0, "unit.speak": 900.0}
    figures = {one.name: one for one in engines._figures("full", layers, encoders, whole)}
    assert {name: (one.value, one.met) for name, one in figures.items()} == {
        "engines.decode_over_floor": (1.25, True),
        "engines.decode_over_llamacpp": (0.5, True),
        "engines.decode_over_torch_bf16": (0.25, True),
        "engines.decode_ms_per_layer": (5.0, None),
        "engines.prefill_over_llamacpp": (1.5, False),
        "engines.prefill_over_torch_bf16": (0.9, True),
        "engines.prefill_ms_per_layer": (90.0, None),
        "engines.vision_ms_full": (3250.0, True),
        "engines.vision_over_torch_bf16": (0.5, None),
        "engines.vision_over_torch_fp32": (0.25, None),
        "engines.audio_ms_full": (334.0, False),
        "engines.audio_over_torch_bf16": (2.0, None),
        "engines.audio_over_torch_fp32": (0.5, None),
        "engines.rss_gb_full_int4": (7.5, True),
        "engines.rss_gb_loaded": (6.0, None),
        "engines.loading_s": (3.0, None),
        "engines.unit_speak_ms": (900.0, None),
    }


def test_ways_take_turns_and_the_first_round_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each work takes as long as its number says, on a clock of its own."""
    done: list[str] = []
    now = [0.0]

    def work(name: str, *spans_ms: float) -> Callable[[], None]:
        spans = list(spans_ms)

        def one() -> None:
            done.append(name)
            now[0] += spans.pop(0) / 1e3

        return one

    monkeypatch.setattr(turn_about.time, "perf_counter", lambda: now[0])
    works = {"a": work("a", 99, 1, 7, 2), "b": work("b", 99, 5, 3, 4)}
    assert turn_about.turn_about(works, rounds=3) == pytest.approx({"a": 2, "b": 4})
    assert done == ["a", "b"] * 4


# -- what it cannot measure -----------------------------------------------------------------


@pytest.fixture
def _writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object) -> None:
        raise AssertionError("something was begun")

    for name in ("layer_ms", "encoder_ms", "write_random"):
        monkeypatch.setattr(engines, name, never)


@pytest.mark.usefixtures("_writes_nothing")
def test_what_has_no_room_is_refused_before_anything_is_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="size 'huge': there are tiny, wide, quarter, full"):
        engines.bench("huge")
    with pytest.raises(ConfigError, match="tokens: 1000 must be 1488 or more for 16 units"):
        engines.bench("tiny", 16, 1000)
    monkeypatch.setattr(engines, "available_bytes", lambda: 10**9)
    with pytest.raises(EngineError, match=r"takes [5-8]\.\d GB of memory, 1\.0 GB are free"):
        engines.bench("full")
    monkeypatch.setattr(engines, "available_bytes", lambda: 10**12)
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 10**9)
    with pytest.raises(EngineError, match=r"the random network needs 1\d\.\d+ GB of disk"):
        engines.bench("full")


def test_a_network_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "stage.onnx").write_bytes(b"this is no graph")
    with pytest.raises(EngineError, match=r"the whole network failed \(1\): (?s:.*)stage\.onnx"):
        engines._whole("tiny", tmp_path, 8, 1000, 1, lambda: None)


# -- how units grow -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Any:
    """A network that looks at pictures as 56 x 56 pixels."""
    config = ModelConfig.from_json(config_json("tiny", VOCAB))
    network = random_network(config, torch.float32, torch.device("cpu"))
    network.config = replace(config, slices=replace(config.slices, resolution=56))
    return network


@pytest.fixture(scope="module")
def words() -> Any:
    return random_tokenizer(VOCAB)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Conversation, Outcome]]:
    """What each unit came to, and where."""
    found = []
    hear = Conversation.hear

    def noted(talk: Conversation, *given: Any) -> Outcome:
        found.append((talk, hear(talk, *given)))
        return found[-1][1]

    monkeypatch.setattr(Conversation, "hear", noted)
    return found


def test_a_life_has_the_units_of_the_other_benches(small, words, heard) -> None:
    config = DuplexConfig(forced_listens=0, max_slices=1)
    unit_ms(small, words, 2 * LOOP, config)
    theirs = [outcome.fed for _, outcome in heard]
    heard.clear()
    life = growth.Life(small, words, config)
    assert all(life.unit_ms([noise_picture(0)]) > 0 for _ in range(2 * LOOP))
    assert [outcome.fed for _, outcome in heard] == theirs
    assert [outcome.listens for _, outcome in heard] == [*[True] * 5, *[False] * 3] * 2
    assert life.unit_ms([], listens=True) > 0
    assert heard[-1][1].listens


def test_a_long_session_slides_its_window(small, words, heard) -> None:
    advanced: list[int] = []
    times = growth.session_ms(small, words, 70, lambda: advanced.append(1))
    assert len(times) == len(advanced) == len(heard) == 70
    talk = heard[0][0]
    assert talk.window.forgotten > 0
    assert {outcome.listens for _, outcome in heard} == {True, False}
    assert talk.context.length <= talk.config.window.high_tokens


def test_growth_shows_as_many_pictures_slices_and_tokens_as_it_says(
    small, words, heard, monkeypatch
) -> None:
    monkeypatch.setattr(growth, "CONTEXTS", (300, 900))
    looked: list[int] = []
    look = small.look
    monkeypatch.setattr(small, "look", lambda slices: (looked.append(len(slices)), look(slices))[1])
    advanced: list[int] = []
    found = growth.growth_ms(small, words, lambda: advanced.append(len(heard)))
    assert list(found) == [
        *("pictures.0", "pictures.1", "pictures.2", "pictures.4"),
        *("slices.1", "slices.4", "slices.9"),
        *("context.300", "context.900"),
    ]
    assert len(advanced) == len(found)
    units = growth.UNITS
    assert all(outcome.listens for _, outcome in heard)
    # Pictures are looked at one by one; a large one is the whole and its slices.
    assert looked[: 7 * units] == [1] * (7 * units)
    cut = looked[7 * units : 10 * units]
    assert cut == [*[1] * units, *[5] * units, *[10] * units]
    lengths = [talk.context.length for talk, _ in heard[-2 * units :: units]]
    assert lengths[1] - lengths[0] == 600


@given(st.lists(st.floats(1, 1000), min_size=20, max_size=200), st.floats(0.5, 4))
def test_a_session_grows_by_the_median_of_its_ends(times: list[float], factor: float) -> None:
    tenth = len(times) // 10
    times[-tenth:] = [factor * one for one in times[:tenth]]
    assert growth.last_over_first(times) == pytest.approx(factor)
    assert growth.last_over_first([5.0] * 3) == 1
