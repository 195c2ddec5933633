"""`minicpmo bench model`: what it times, at the smallest size and in as little time as can be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the network needs the extra model")

from minicpmo_ros.bench import model, stages, units  # noqa: E402
from minicpmo_ros.bench.noise import random_tokenizer  # noqa: E402
from minicpmo_ros.bench.random_network import random_network  # noqa: E402
from minicpmo_ros.errors import ConfigError  # noqa: E402
from minicpmo_ros.model.config import ModelConfig  # noqa: E402
from minicpmo_ros.model.tiny import config_json  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "BUDGET_S", 0.0)
    monkeypatch.setattr(stages.repeat, "__defaults__", (0.0,))


def test_every_figure_that_is_promised_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    model.bench(["tiny"], 16, "fp32", "cpu", 1, out)
    written = json.loads(out.read_text())
    figures = written["figures"]
    assert written["machine"]["conditions"]["threads"] == 1
    assert figures["model.loop_ms_per_unit"] > 0
    for name in (*model.REFERENCE, *model.ANCHORS):
        assert figures[f"model.tiny.{name}"] > 0
    assert figures["model.tiny.unit_listen_early_ms"] > 0
    assert figures["model.tiny.unit_listen_ms"] > 0
    assert 0 < figures["model.tiny.python_percent_of_unit"] < 100
    assert "read 79" in capsys.readouterr().out


def test_whole_units_are_left_out_where_they_have_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "available_bytes", lambda device: 2.0**30)
    config = ModelConfig.from_json(config_json("tiny"))
    assert list(model._units(config, torch.float32, CPU, 16, lambda: None)) == ["needs"]


def test_the_full_size_has_the_parameters_that_are_published() -> None:
    parameters = model.parameters(ModelConfig.from_json(config_json("full")))
    assert round(parameters / 1e9, 2) == 9.34  # technical report of MiniCPM-o 4.5, table 12


@pytest.mark.parametrize(
    ("sizes", "precision", "device", "named"),
    [(["huge"], "fp32", "cpu", "huge"), (["tiny"], "int3", "cpu", "int3")],
)
def test_what_there_is_not_is_named(
    sizes: list[str], precision: str, device: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        model.bench(sizes, 16, precision, device)


def test_a_picture_that_was_read_before_is_no_work_of_its_unit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the units that are timed as such, none looks at its picture between end and decision."""
    looked: list[bool] = []
    config = ModelConfig.from_json(config_json("tiny", 1024))
    network = random_network(config, torch.float32, CPU)
    look, hear = network.look, units.Conversation.hear
    calls = 0

    def counted(slices: list[object]) -> object:
        nonlocal calls
        calls += 1
        return look(slices)

    def before_hearing(conversation: units.Conversation, *arguments: object) -> object:
        at = calls
        outcome = hear(conversation, *arguments)  # type: ignore[arg-type]
        looked.append(calls > at)
        return outcome

    monkeypatch.setattr(network, "look", counted)
    monkeypatch.setattr(units.Conversation, "hear", before_hearing)
    tokenizer = random_tokenizer(config.llm.vocab)
    units.unit_ms(network, tokenizer, 2 * units.LOOP, units.DuplexConfig(forced_listens=0))
    assert looked == [True] * units.LOOP + [False] * units.LOOP
    assert calls == 2 * units.LOOP


def test_time_inside_the_network_is_not_the_loops() -> None:
    clock = units._Clock()

    class Stage:
        def work(self) -> int:
            return sum(range(100_000))

    stage = units.Clocked(Stage(), clock)
    assert stage.work() == sum(range(100_000))
    once = clock.ms
    stage.work()
    assert 0 < once < clock.ms
