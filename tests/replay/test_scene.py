"""The demo's scene holds what it promises, and a robot without a model lives through it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros import topics as t
from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.messages import MIC_RATE_HZ, NS_PER_S, AudioChunk, Picture, PlaybackEvent
from minicpmo_ros.replay import scene
from minicpmo_ros.replay.bag import open_bag
from minicpmo_ros.replay.from_video import START_NS
from minicpmo_ros.replay.offline import default_session, replay_offline
from tests.replay.live import read

try:
    Synthesiser()
except DeviceError as missing:
    pytest.skip(f"the scene is spoken by espeak-ng: {missing}", allow_module_level=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> scene.Scene:
    return scene.write_scene(tmp_path_factory.mktemp("scene") / "bag")


@pytest.fixture(scope="module")
def lived(made: scene.Scene, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Everything that came out of the scene, by topic, as (seconds, message)."""
    out = tmp_path_factory.mktemp("lived") / "bag"
    with open_bag(made.bag) as bag:
        replay_offline(bag, out, default_session(parameters={"brain": "reflex"}))
    return {
        name: [((m.stamp_ns - START_NS) / NS_PER_S, m) for _, m in messages]
        for name, messages in read(out).items()
    }


def test_pictures_and_sound_come_ten_times_a_second(made: scene.Scene) -> None:
    with open_bag(made.bag) as bag:
        assert bag.counts == {t.IMAGE_COMPRESSED: 560, t.MIC: 560}
        for topic, _, message in bag.messages():
            if topic is t.MIC:
                assert isinstance(message, AudioChunk)
                assert (message.sample_rate, len(message.data)) == (16_000, 1600)
            else:
                assert isinstance(message, Picture)
                assert message.rgb().shape == (480, 640, 3)
                break


def test_the_same_scene_every_time(made: scene.Scene, tmp_path: Path) -> None:
    again = scene.write_scene(tmp_path / "bag").bag
    for name in ("data.mcap", "metadata.yaml"):
        assert (made.bag / name).read_bytes() == (again / name).read_bytes()


def test_the_person_is_louder_than_the_room_and_nothing_clips() -> None:
    sound, lines = scene.scene_sound()
    power = sound.astype(float) ** 2
    for line in lines:
        first, last = (round(at * MIC_RATE_HZ) for at in (line.start_s, line.end_s))
        assert np.mean(power[first:last]) > 1000 * np.mean(power[: MIC_RATE_HZ // 2])
    assert np.abs(sound.astype(int)).max() < 32_000


def test_lines_do_not_run_into_one_another(made: scene.Scene) -> None:
    times = [at for line in made.lines for at in (line.start_s, line.end_s)]
    assert times == sorted(times)
    assert times[-1] < made.length_s


def test_the_lens_is_covered_and_uncovered() -> None:
    for i, picture in enumerate(scene.scene_pictures()):
        at_s = i / scene.PICTURE_HZ
        if scene.COVERED_S[0] <= at_s <= scene.COVERED_S[1]:
            assert picture.std() < 12
        elif not -1 < at_s - scene.COVERED_S[0] < scene.COVERED_S[1] - scene.COVERED_S[0] + 1:
            assert picture.std() > 25


def test_the_robot_answers_every_turn_within_two_units(made: scene.Scene, lived: dict) -> None:
    starts = [at for at, m in lived["playback"] if m.event is PlaybackEvent.STARTED]
    for line in made.lines:
        assert any(0 < start - line.end_s < 2 for start in starts), line


def test_the_person_interrupts_the_robot_in_the_middle_of_a_sentence(
    made: scene.Scene, lived: dict
) -> None:
    line = made.lines[5]
    [(cut_s, cut)] = [
        (at, m)
        for at, m in lived["playback"]
        if m.event is PlaybackEvent.INTERRUPTED and line.start_s < at < line.end_s
    ]
    started_s = next(
        at for at, m in lived["playback"] if m.turn == cut.turn and m.event is PlaybackEvent.STARTED
    )
    assert started_s < line.start_s < cut_s < line.start_s + 0.8
    assert cut.heard
    assert len(cut.heard) < len(
        "".join(m.text for _, m in lived["audio/speech"] if m.turn == cut.turn)
    )


def test_the_robot_notices_the_hand_and_the_bang_and_nothing_else(lived: dict) -> None:
    alerts = [(m.kind, m.active, at) for at, m in lived["alert"]]
    assert [alert[:2] for alert in alerts] == [
        ("camera_covered", True),
        ("camera_covered", False),
        ("sudden_loud_sound", True),
    ]
    assert scene.COVERED_S[0] < alerts[0][2] < scene.COVERED_S[1] < alerts[1][2]
    assert scene.BANG_S < alerts[2][2] < scene.BANG_S + 1.5
