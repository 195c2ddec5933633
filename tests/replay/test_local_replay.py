"""A conversation with the local brain replays to the same bytes, without ROS and through it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.messages import (
    NS_PER_S,
    Action,
    AudioChunk,
    Decision,
    Playback,
    PlaybackEvent,
    SpeechChunk,
)
from minicpmo_ros.replay.bag import BagWriter, open_bag
from minicpmo_ros.replay.parameters import omni_parameters
from minicpmo_ros.replay.progress import no_progress
from minicpmo_ros.replay.run import replay
from minicpmo_ros.topics import MIC
from tests.replay.live import at
from tests.replay.test_ros_replay import HAS_ROS, needs_ros

pytest.importorskip("torch", reason="the network needs the extra model")

SECONDS = 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A small network that looks at pictures as 56 x 56 pixels: that is quick."""
    from minicpmo_ros.model.tiny import write_checkpoint

    made = write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")
    settings = made / "preprocessor_config.json"
    content = json.loads(settings.read_text()) | {"scale_resolution": 56}
    settings.write_text(json.dumps(content))
    return made


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """A tone like a voice from 1.2 to 2.3 s, and pictures of noise."""
    path = tmp_path_factory.mktemp("bag") / "scene"
    rng = np.random.default_rng(1)
    with BagWriter(path) as bag:
        for i in range(10 * SECONDS):
            if i % 3 == 0:
                picture = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
                bag.write_jpeg(at(i / 10), at(i / 10), encode_jpeg(picture))
            data = rng.normal(0, 8, 1600)
            if 12 <= i < 23:
                data += 8000 * np.sin(np.arange(1600) * 0.2)
            bag.write(
                MIC, at((i + 1) / 10), AudioChunk(at(i / 10), data.astype(np.int16), sequence=i)
            )
    return path


Run = Callable[..., bytes]


@pytest.fixture(scope="module", params=["duplex", "streaming"])
def run(request, recording, checkpoint) -> Run:
    """Replays in a mode; returns what was written."""
    return partial(replayed, recording, checkpoint, [f"mode:={request.param}"])


def replayed(
    recording: Path, checkpoint: Path, rules: list[str], out: Path, *more: str, ros: bool = False
) -> bytes:
    rules = ["brain:=local", f"checkpoint:={checkpoint}", *rules]
    rules += ["voice_detector:=energy", "forced_listens:=1", "fallback:=none"]
    # Short turns with silence between them: a replay goes on until the robot is silent.
    rules += ["length_penalty:=0.3", "listen_scale:=100.0"]
    rules += ["kv_capacity:=512", "window_high_tokens:=300", "window_low_tokens:=200"]
    values = omni_parameters(None, [*rules, *more])
    with open_bag(recording) as bag:
        replay(bag, out, ros=ros, parameters=values, progress=no_progress)
    return (out / "data.mcap").read_bytes()


@pytest.fixture(scope="module")
def first(run: Run, tmp_path_factory) -> Path:
    """A replay without ROS."""
    out = tmp_path_factory.mktemp("out") / "first"
    run(out)
    return out


def written(bag: Path) -> bytes:
    return (bag / "data.mcap").read_bytes()


def test_the_local_brain_decides_every_unit_and_speaks(first: Path) -> None:
    with open_bag(first) as bag:
        made = [message for _, _, message in bag.messages() if isinstance(message, Decision)]
    assert len(made) == SECONDS
    assert {decision.brain for decision in made} == {"local"}
    assert any(decision.action is Action.SPEAK and decision.text for decision in made)


def test_again_without_ros_gives_the_same_bytes(run: Run, first: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "again") == written(first)


@needs_ros
def test_real_nodes_write_the_same_bytes(run: Run, first: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "ros", ros=True) == written(first)


def test_another_seed_gives_others(run: Run, first: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "other", "seed:=1") != written(first)


def test_a_turn_that_goes_on_past_the_recording_is_told_to_its_end(
    run: Run, tmp_path: Path
) -> None:
    run(tmp_path / "on", "length_penalty:=10.0", "listen_scale:=0.001")
    with open_bag(tmp_path / "on") as bag:
        end_ns = bag.start_ns + SECONDS * NS_PER_S
        made = [message for _, _, message in bag.messages()]
    reports = [message for message in made if isinstance(message, Playback)]
    ends = {
        r.turn for r in reports if r.event in (PlaybackEvent.FINISHED, PlaybackEvent.INTERRUPTED)
    }
    assert {r.turn for r in reports} == ends
    last = max(reports, key=lambda report: report.stamp_ns)
    assert last.stamp_ns > end_ns + NS_PER_S  # or there would be nothing to see here
    said = [m for m in made if isinstance(m, SpeechChunk) and m.turn == last.turn]
    assert last.turn_samples <= sum(len(chunk.data) for chunk in said)


@pytest.fixture
def built_run(recording: Path, tiny_checkpoint: Path, engines: Path, monkeypatch) -> Run:
    """Replays over four bits under onnxruntime, built before."""
    from minicpmo_ros.runtime.engines.cache import EngineCache
    from minicpmo_ros.runtime.load import load_network
    from tests.built_network import recipe

    load_network(tiny_checkpoint, recipe("cpu"), cache=EngineCache(engines))
    monkeypatch.setenv("MINICPMO_ENGINES", str(engines))
    return partial(replayed, recording, tiny_checkpoint, ["recipe:=cpu", "threads:=1"])


def test_a_recipe_of_few_bits_replays_to_the_same_bytes(built_run: Run, tmp_path: Path) -> None:
    """Through real nodes, where there is ROS."""
    first = built_run(tmp_path / "first")
    assert built_run(tmp_path / "again", ros=HAS_ROS) == first
    with open_bag(tmp_path / "first") as bag:
        made = [message for _, _, message in bag.messages() if isinstance(message, Decision)]
    assert {decision.brain for decision in made} == {"local"}
    assert len({decision.p_listen for decision in made}) == SECONDS
