"""Replay without DDS: a session lives through a bag, always to the same bytes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros import topics as t
from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.media import compressed
from minicpmo_ros.messages import (
    NS_PER_MS,
    NS_PER_S,
    Alert,
    AudioChunk,
    PlaybackEvent,
    Severity,
    State,
    VoiceActivity,
)
from minicpmo_ros.replay.bag import Bag, BagWriter, open_bag
from minicpmo_ros.replay.drive import TICK_NS, ReplaySummary
from minicpmo_ros.replay.offline import MakeSession, replay_offline
from tests.replay.live import SPOKEN_WORDS, START_NS, at, read, scripted, speech, write_bag

TALK = " ".join(SPOKEN_WORDS)


def replay(source: Path, out: Path, session: MakeSession, **options: bool) -> ReplaySummary:
    with open_bag(source) as bag:
        return replay_offline(bag, out, session, **options)  # type: ignore[arg-type]


def data(bag: Path) -> bytes:
    return (bag / "data.mcap").read_bytes()


def test_every_unit_has_one_decision_at_its_end(tmp_path: Path) -> None:
    summary = replay(write_bag(tmp_path / "in", 5), tmp_path / "out", scripted())
    decisions = read(tmp_path / "out")["decision"]
    assert [(m.unit, m.stamp_ns) for _, m in decisions] == [(i, at(i + 1)) for i in range(5)]
    assert [log_ns for log_ns, _ in decisions] == [at(i + 1) for i in range(5)]
    assert (summary.units, summary.recorded_s) == (5, 5.0)


def test_inputs_are_copied_as_they_are(tmp_path: Path) -> None:
    source = write_bag(tmp_path / "in", 3)
    replay(source, tmp_path / "out", scripted())
    with open_bag(source) as one, open_bag(tmp_path / "out") as two:
        assert list(one.records()) == list(two.records([t.MIC, t.IMAGE_COMPRESSED]))


def test_inputs_can_be_left_out(tmp_path: Path) -> None:
    replay(write_bag(tmp_path / "in", 2), tmp_path / "out", scripted(), copy_inputs=False)
    assert set(read(tmp_path / "out")) == {"decision", "state"}


def test_twice_the_same_bytes(tmp_path: Path) -> None:
    source = write_bag(tmp_path / "in", 8)
    for name in ("one", "two"):
        replay(source, tmp_path / name, scripted([1, 5], [(3.0, 4.5)], curious=True))
    assert data(tmp_path / "one") == data(tmp_path / "two")


def test_a_replay_replays_to_itself(tmp_path: Path) -> None:
    """What an earlier run said is neither heard nor kept, whatever it said."""
    source = write_bag(tmp_path / "in", 8)
    script = scripted([1, 4], [(2.0, 2.5)])
    replay(source, tmp_path / "one", script)
    replay(source, tmp_path / "other", scripted([0, 3]))
    replay(tmp_path / "one", tmp_path / "two", script)
    replay(tmp_path / "other", tmp_path / "three", script)
    assert data(tmp_path / "one") == data(tmp_path / "two") == data(tmp_path / "three")


def test_speech_sounds_from_the_units_end_sample_by_sample(tmp_path: Path) -> None:
    replay(write_bag(tmp_path / "in", 8, pictures=False), tmp_path / "out", scripted([2]))
    made = read(tmp_path / "out")
    assert made["audio/speech"][0][1].stamp_ns == at(3)
    sounded = np.concatenate([m.data for _, m in made["audio/played"]])
    said = np.concatenate([m.data for _, m in made["audio/speech"]])
    assert np.array_equal(said, speech().data)
    first = int(np.flatnonzero(sounded)[0])
    assert np.array_equal(sounded[first : first + len(said)], said)
    reports = [m for _, m in made["playback"]]
    assert abs(reports[0].stamp_ns - at(3)) <= TICK_NS
    assert [reports[0].event, reports[-1].event] == [PlaybackEvent.STARTED, PlaybackEvent.FINISHED]
    assert (reports[-1].heard, reports[-1].turn_samples) == (TALK, len(said))


def test_the_session_hears_of_its_own_speech(tmp_path: Path) -> None:
    replay(write_bag(tmp_path / "in", 8), tmp_path / "out", scripted([2]))
    made = read(tmp_path / "out")
    speaking = [m.unit for _, m in made["decision"] if m.reason.endswith("speaks: True")]
    assert speaking == [3, 4]
    states = [(m.state, round((m.stamp_ns - START_NS) / 1e9, 1)) for _, m in made["state"]]
    assert states == [
        (State.LISTENING, 0.0),
        (State.SPEAKING, 3.0),
        (State.LISTENING, 5.5),
        (State.IDLE, 8.0),
    ]


def test_voice_over_the_robots_speech_stops_it(tmp_path: Path) -> None:
    source = write_bag(tmp_path / "in", 8)
    summary = replay(source, tmp_path / "out", scripted([2], [(4.2, 5.0)]))
    made = read(tmp_path / "out")
    [cut] = [m for _, m in made["playback"] if m.event is PlaybackEvent.INTERRUPTED]
    assert at(4.4) <= cut.stamp_ns <= at(4.6)
    assert cut.heard == "one two"
    assert max(m.stamp_ns for _, m in made["audio/played"]) <= cut.stamp_ns
    assert summary.interruptions == 1
    assert [m.epoch for _, m in made["decision"]][-1] == 1
    voice = [m for _, m in made["voice"] if isinstance(m, VoiceActivity)]
    assert [(v.speaking, v.stamp_ns) for v in voice] == [(True, at(4.2)), (False, at(5.0))]


def test_a_turn_after_an_interruption_sounds(tmp_path: Path) -> None:
    source = write_bag(tmp_path / "in", 12)
    replay(source, tmp_path / "out", scripted([2, 6], [(4.2, 5.0)]))
    reports = [m for _, m in read(tmp_path / "out")["playback"]]
    assert (reports[-1].event, reports[-1].epoch, reports[-1].heard) == (
        PlaybackEvent.FINISHED,
        1,
        TALK,
    )


def test_units_go_on_where_the_microphone_gave_nothing(tmp_path: Path) -> None:
    source = write_bag(tmp_path / "in", 6, pictures=False, without=(1.5, 4.5))
    replay(source, tmp_path / "out", scripted())
    decisions = [m for _, m in read(tmp_path / "out")["decision"]]
    assert [m.audio_filled_ms for m in decisions] == [0, 500, 1000, 1000, 500, 0]


def test_a_unit_without_sound_closes_on_time_and_not_with_the_next_message(tmp_path: Path) -> None:
    source = write_bag(tmp_path / "in", 6, pictures=False, without=(1.5, 4.5))
    replay(source, tmp_path / "out", scripted())
    late_ms = [(log - m.stamp_ns) / 1e6 for log, m in read(tmp_path / "out")["decision"]]
    assert max(late_ms) <= 80 + TICK_NS / NS_PER_MS


def test_speech_that_outlasts_the_bag_is_spoken_to_its_end(tmp_path: Path) -> None:
    source = write_bag(tmp_path / "in", 4)
    summary = replay(source, tmp_path / "out", scripted([3, 4, 5, 6]))
    made = read(tmp_path / "out")
    assert [m.unit for _, m in made["decision"]] == [0, 1, 2, 3]
    assert {m.unit for _, m in made["audio/speech"]} == {3}
    assert (made["playback"][-1][1].event, made["playback"][-1][1].heard) == (
        PlaybackEvent.FINISHED,
        TALK,
    )
    assert 6.5 <= summary.recorded_s < 6.7
    assert summary.turns == 1


@pytest.mark.parametrize("length_s", [3.2, 3.5, 3.9])
def test_the_last_unit_need_not_be_whole(tmp_path: Path, length_s: float) -> None:
    replay(write_bag(tmp_path / "in", length_s), tmp_path / "out", scripted())
    decisions = [m for _, m in read(tmp_path / "out")["decision"]]
    assert [m.unit for m in decisions] == [0, 1, 2, 3]
    assert decisions[-1].audio_filled_ms == pytest.approx(4000 - 1000 * length_s)


def test_a_bag_of_pictures_alone_is_lived_through(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "in") as bag:
        for i in range(40):
            rgb = np.full((48, 64, 3), 100, np.uint8)
            bag.write_jpeg(at(i / 10), at(i / 10), compressed.encode_jpeg(rgb))
    summary = replay(tmp_path / "in", tmp_path / "out", scripted(curious=True))
    assert summary.units == 4
    assert "brightness 100" in read(tmp_path / "out")["decision"][1][1].reason


def test_only_pictures_that_are_looked_at_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = compressed.compressed_to_rgb

    def counted(*args: object) -> np.ndarray:
        decoded.append(1)
        return decode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(compressed, "compressed_to_rgb", counted)
    replay(write_bag(tmp_path / "in", 5), tmp_path / "out", scripted(curious=True))
    assert len(decoded) == 5


def test_a_message_that_cannot_be_read_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    source = write_bag(tmp_path / "source", 3)
    with open_bag(source) as bag, BagWriter(tmp_path / "in") as broken:
        for i, record in enumerate(bag.records()):
            raw = record.raw[:30] if i in (5, 20) else record.raw
            broken.write_raw(record.topic, record.log_ns, raw)
    summary = replay(tmp_path / "in", tmp_path / "out", scripted())
    assert sum(summary.unreadable.values()) == 2
    assert summary.units == 3


def test_messages_with_absurd_stamps_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    source = write_bag(tmp_path / "source", 3)
    with open_bag(source) as bag, BagWriter(tmp_path / "in") as strange:
        for topic, log_ns, message in bag.messages([t.MIC]):
            strange.write(topic, log_ns, message)
            for stamp_ns in (0, log_ns + 100 * NS_PER_S, log_ns - 100 * NS_PER_S):
                strange.write_jpeg(
                    log_ns, stamp_ns, compressed.encode_jpeg(np.zeros((9, 9, 3), "u1"))
                )
    summary = replay(tmp_path / "in", tmp_path / "out", scripted())
    assert summary.unreadable == {"image_raw/compressed": 90}
    assert summary.units == 3


def test_a_brain_that_fails_is_reported_and_the_replay_goes_on(tmp_path: Path) -> None:
    def failing(publish: object, report: object) -> object:
        session = scripted()(publish, report)  # type: ignore[arg-type]
        session.brain.unit = lambda unit, around: 1 / 0  # type: ignore[assignment]
        return session

    summary = replay(write_bag(tmp_path / "in", 3), tmp_path / "out", failing)  # type: ignore[arg-type]
    assert summary.units == 3
    assert summary.troubles["brain"] == 3


def test_the_namespace_of_the_recording_is_kept(tmp_path: Path) -> None:
    source = write_bag(tmp_path / "source", 2)
    with open_bag(source) as bag, BagWriter(tmp_path / "in", namespace="/robot1") as moved:
        for record in bag.records():
            moved.write_raw(record.topic, record.log_ns, record.raw)
    replay(tmp_path / "in", tmp_path / "out", scripted())
    with open_bag(tmp_path / "out") as bag:
        assert bag.namespace == "/robot1"
        assert bag.counts[t.DECISION] == 2


def test_progress_grows_to_the_length_of_the_bag(tmp_path: Path) -> None:
    told: list[float] = []
    with open_bag(write_bag(tmp_path / "in", 2)) as bag:
        replay_offline(bag, tmp_path / "out", scripted(), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(2.0)


def test_a_bag_with_nothing_to_live_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "in") as bag:
        bag.write(t.VOICE, START_NS, VoiceActivity(START_NS, True, 1, 0.5, -20.0))
    with pytest.raises(InputError, match="no sound and no pictures"):
        replay(tmp_path / "in", tmp_path / "out", scripted())
    assert not (tmp_path / "out").exists()


def test_a_session_that_measures_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wall times"):
        replay(write_bag(tmp_path / "in", 1), tmp_path / "out", scripted(timings=True))


def test_faults_do_not_add_up_over_replays_of_one_open_bag(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "in") as bag:
        bag.write_raw(t.MIC, START_NS, b"rubbish")

    def faults(bag: Bag, name: str) -> dict[str, int]:
        return replay_offline(bag, tmp_path / name, scripted()).unreadable

    with open_bag(tmp_path / "in") as bag:
        assert faults(bag, "one") == faults(bag, "two") == {"audio/mic": 1}


def test_memory_does_not_grow_with_the_length_of_the_bag(tmp_path: Path) -> None:
    def peak(name: str, seconds: int) -> int:
        with BagWriter(tmp_path / name) as bag:
            for i in range(seconds * 10):
                bag.write_jpeg(at(i / 10), at(i / 10), large)
                sound = np.full(1600, i % 99, np.int16)
                bag.write(t.MIC, at((i + 1) / 10), AudioChunk(at(i / 10), sound, sequence=i))
        tracemalloc.start()
        try:
            replay(tmp_path / name, tmp_path / f"{name}_out", scripted([1]))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    noise = np.random.default_rng(1).integers(0, 255, (240, 320, 3), np.uint8)
    large = compressed.encode_jpeg(noise)
    assert 10 * 60 * len(large) > 20e6  # what would be held, if it were
    peak("warm", 5)
    assert peak("long", 80) - peak("short", 20) < 2e6


def test_an_alert_that_is_renewed_and_cleared_counts_once(tmp_path: Path) -> None:
    summary = ReplaySummary(tmp_path)
    for number, active in ((1, True), (1, True), (1, False), (2, True)):
        summary.count(Alert(0, "cup", number, Severity.NOTICE, active, "A cup appeared!", 0, 0))
    assert summary.alerts == 2
