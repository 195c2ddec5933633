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

from minicpmo_ros.bench import (  # noqa: E402
    apart,
    card,
    encoders,
    engines,
    growth,
    layers,
    llamacpp,
    speech,
    stages,
    turn_about,
)
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

# What is written and traced takes a minute of a processor.
pytestmark = pytest.mark.timeout(300)
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
    monkeypatch.setattr(layers.head_ms, "__defaults__", (1,))
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
    really = apart.measured

    def noted(spec: Any, advance: Any) -> dict[str, float]:
        measured.update(really(spec, lambda: (units.append(1), advance())))
        return measured

    monkeypatch.setattr(apart, "measured", noted)
    # See the test of it.
    voiced = {"unit.first_own_sound": 5.0, "unit.first_own_sound_early": 4.0, "rss.peak": 7e9}
    monkeypatch.setattr(apart, "own_voice", lambda *given: voiced)
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
    promised |= {f"unit_{kind}_ms" for kind in ("first_own_sound", "first_own_sound_early")}
    promised |= {"rss_gb_with_vocoder", "head_ms", "model_token_ms", "model_tokens_per_s"}
    promised |= {f"model_tokens_per_s.{way}" for way in ("read", "torch_bf16")}
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
    assert figures["engines.tiny.rss_gb_with_vocoder"] == 7
    assert figures["engines.tiny.unit_first_own_sound_early_ms"] == 4
    printed = capsys.readouterr().out
    assert "2 layers, ms" in printed
    # Its head is reckoned, which only layers of the full size allow.
    assert "engines.tiny.model_token_ms.llamacpp" not in figures
    assert "600 tokens of context" in printed
    assert "read 74" in printed


KINDS = ("bf16", "fp32")


def test_the_first_sound_of_its_own_voice_is_measured_apart(
    tmp_path: Path, written: Callable[..., Any]
) -> None:
    config = ModelConfig.from_json(config_json("tiny", VOCAB))
    written(config, engines.pieces(config, engines.recipe.load("cpu")), tmp_path)
    spec = _spec(tmp_path) | {"config": config_json("tiny", VOCAB), "units": 2 * LOOP}
    units: list[int] = []
    found = apart.own_voice(spec, *speech.SIZES["tiny"], 12, lambda: units.append(1))
    assert len(units) == 2 * LOOP
    assert found["unit.first_own_sound"] > 0 and found["unit.first_own_sound_early"] > 0
    assert found["torch"] == 0 and found["rss.peak"] > 0


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


def test_a_token_of_the_whole_model_is_all_layers_and_the_head() -> None:
    config = ModelConfig.from_json(config_json("full"))
    times = {"decode.ours": 5.0, "decode.read": 4.0, "decode.torch bf16": 20.0, "prefill.ours": 9.0}
    heads = {"ours": 20.0, "read": 16.0, "torch bf16": 80.0}
    found = layers.model_ms(config, times | {"decode.llama.cpp": 10.0}, heads)
    assert found["ours"] == {"layers": 180, "head": 20, "token": 200, "rate": 5}
    assert found["read"]["token"] == 36 * 4 + 16
    assert found["torch bf16"]["token"] == 36 * 20 + 80
    # A head of 622 million weights, where a layer has 193 million.
    assert found["llama.cpp"]["head"] == pytest.approx(10 * 622 / 193, rel=0.01)
    assert list(layers.model_ms(config, times, heads)) == ["ours", "read", "torch bf16"]
    figures = {one.name: one.value for one in engines._model_figures("engines.", found)}
    assert figures["engines.model_token_ms"] == 200
    assert figures["engines.model_tokens_per_s"] == 5
    assert figures["engines.model_tokens_per_s.torch_bf16"] == 1.25
    assert figures["engines.head_ms"] == 20


@pytest.mark.usefixtures("_in_a_hurry")
def test_the_floor_is_a_read_of_weights_and_of_keys_and_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    block = layers._block
    monkeypatch.setattr(layers, "_block", lambda nbytes: (read.append(nbytes), block(nbytes))[1])
    config = ModelConfig.from_json(config_json("tiny", VOCAB))
    layers.layer_ms(config, 1)
    weights = Piece("llm.00", "onnxruntime", "int4", layers=(0, 2)).nbytes(config)
    # Of two layers, keys and values of 512 tokens: two heads of 32 numbers in single precision.
    assert read == [weights + 2 * 2 * 512 * 2 * 32 * 4]


# -- on a card ------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "int4"])
def test_the_bench_of_a_card_measures_what_it_says(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here in main memory, which is a device as any other."""
    monkeypatch.setattr(stages.repeat, "__defaults__", (0.0,))
    config = ModelConfig.from_json(config_json("tiny", VOCAB))
    read: list[int] = []
    monkeypatch.setattr(card, "read_ms", lambda nbytes, device: float(read.append(nbytes) or 1))
    advanced: list[int] = []
    found = card.measure(config, torch.device("cpu"), precision, lambda: advanced.append(1))
    assert len(advanced) == 1 + card.UNITS
    # Layers and the head; keys and values of 512 tokens, in half precision.
    matrices = 2 * stages.layer_parameters(config) + VOCAB * 128
    kv = 2 * 2 * 512 * 2 * 32 * 2
    bytes_each = {"bf16": 2.0, "int4": 0.5}[precision]
    assert read == [pytest.approx(bytes_each * matrices + kv, rel=0.1)]
    figures = {one.name: one for one in card.figures(found, "engines.cuda.x")}
    promised = {"token_ms", "read_ms", "prefill_ms", "vision_ms", "audio_ms", "peak_gb", "rtf"}
    promised |= {f"unit_{kind}_ms" for kind in ("listen", "listen_early", "speak", "speak_early")}
    promised |= {"tokens_per_s", "share_of_memory_speed"}
    assert {f"engines.cuda.x.{name}" for name in promised} <= figures.keys()
    assert all(one.value > 0 for name, one in figures.items() if "loop" not in name)


def test_figures_of_a_card_stand_beside_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"token_ms": 5.0, "read_ms": 4.0, "unit_listen_ms": 100.0, "unit_speak_ms": 300.0}
    figures = {one.name: one for one in card.figures(found | {"peak_gb": 9.5}, "x")}
    assert (figures["x.share_of_memory_speed"].value, figures["x.share_of_memory_speed"].met) == (
        0.8,
        True,
    )
    assert figures["x.tokens_per_s"].value == 200 and "212" in figures["x.tokens_per_s"].goal
    assert figures["x.rtf"].value == 0.3 and "0.21" in figures["x.rtf"].goal
    assert figures["x.peak_gb"].value == 9.5 and "11" in figures["x.peak_gb"].goal
    config = ModelConfig.from_json(config_json("tiny", VOCAB))
    monkeypatch.setattr(card, "measure", lambda config, device, precision: found)
    names = {one.name for one in engines._card_figures("full", config)}
    assert {"engines.cuda.bf16.token_ms", "engines.cuda.int4.rtf"} <= names
    names = {one.name for one in engines._card_figures("tiny", config)}
    assert "engines.tiny.cuda.int4.tokens_per_s" in names
    # Of other sizes and where the card's memory cannot be read, nothing is asked.
    assert card.figures(found, "x", full=False)[-3].met is None
    del found["read_ms"]
    assert "x.share_of_memory_speed" not in {one.name for one in card.figures(found, "x")}


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
    with pytest.raises(EngineError, match=r"takes [6-9]\.\d GB of memory, 1\.0 GB are free"):
        engines.bench("full")
    monkeypatch.setattr(engines, "available_bytes", lambda: 10**12)
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 10**9)
    with pytest.raises(EngineError, match=r"the random network needs 1\d\.\d+ GB of disk"):
        engines.bench("full")


def test_a_network_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "stage.onnx").write_bytes(b"this is no graph")
    with pytest.raises(EngineError, match=r"the whole network failed \(1\): (?s:.*)stage\.onnx"):
        apart.measured(_spec(tmp_path), lambda: None)


def _spec(folder: Path) -> dict[str, Any]:
    spec = {"config": config_json("tiny"), "recipe": engines._plain("cpu"), "folder": str(folder)}
    return spec | {"units": 8, "tokens": 1500, "threads": 1}


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
