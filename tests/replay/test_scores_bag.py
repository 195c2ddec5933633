"""Scores of a bag: what sounded, what was heard, what was labelled."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import Alert as Raised
from minicpmo_ros.messages import AudioChunk, Picture, Severity, SpeechChunk, VoiceActivity
from minicpmo_ros.replay.bag import BagWriter
from minicpmo_ros.replay.score import score_bag
from minicpmo_ros.replay.scores import Alert, Event, UserSegment
from minicpmo_ros.replay.scores.from_bag import session_of_bag
from minicpmo_ros.replay.scores.labels import Labels, read_labels
from minicpmo_ros.topics import ALERT, ALL, MIC, PLAYED, VOICE, Topic
from minicpmo_ros.wire import Message
from tests.replay.live import at, write_bag
from tests.replay.report_conversation import ANSWER, SILENT_S, conversation

LABELS = {
    "user": [
        {"start_s": 2.0, "stop_s": 4.4, "kind": "turn"},
        {"start_s": 14, "stop_s": 14.4, "kind": "backchannel"},
        {"start_s": 16.0, "stop_s": 17.4, "kind": "interruption"},
    ],
    "events": [
        {"t_s": 9.2, "name": "camera_covered"},
        {"t_s": 21.3, "name": "loud_sound"},
        {"t_s": 27, "name": "loud_sound"},
    ],
}


Logged = tuple[Topic, int, Message]


def written(
    path: Path,
    wanted: Callable[[str, int], bool] = lambda topic, log_ns: True,
    first: Sequence[Logged] = (),
) -> Path:
    """The made-up conversation as a bag: what is wanted of it, and no pictures."""
    topics = {topic.name: topic for topic in ALL}
    with BagWriter(path) as bag:
        for topic, log_ns, message in first:
            bag.write(topic, log_ns, message)
        for name, log_ns, message in conversation():
            if isinstance(message, SpeechChunk):  # a mark over two chunks has no place in a message
                words = tuple(
                    replace(w, start_sample=max(0, w.start_sample)) for w in message.words
                )
                message = replace(message, words=words)
            if not isinstance(message, Picture) and wanted(name, log_ns):
                bag.write(topics[name], log_ns, message)  # type: ignore[arg-type]
    return path


def without(*names: str) -> Callable[[str, int], bool]:
    return lambda topic, log_ns: topic not in names


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("scores") / "conversation")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(LABELS))
    return path


def edges(segments) -> list[tuple[float, float]]:
    return [(round(s.start_s, 3), round(s.stop_s, 3)) for s in segments]


def test_a_bag_says_what_sounded_what_was_heard_and_what_was_alerted(bag: Path):
    made = session_of_bag(bag)
    assert made.duration_s == pytest.approx(30.0)
    assert edges(made.user) == [(2.0, 4.4), (16.0, 17.4)]
    assert {segment.kind for segment in made.user} == {"turn"}
    answer, story = made.agent
    assert (answer.start_s, answer.text, answer.finished) == (6.03, ANSWER, True)
    assert edges([story]) == [(13.03, SILENT_S)]
    assert not story.finished
    assert story.text.startswith("Let me tell")
    assert made.alerts == (Alert(10.0, "camera_covered"), Alert(22.0, "loud_sound"))
    assert made.events is None


def test_without_reports_it_is_what_left_the_speaker(bag: Path, tmp_path: Path):
    made = session_of_bag(written(tmp_path / "played", without("playback")))
    assert edges(made.agent) == edges(session_of_bag(bag).agent)
    assert not any(segment.finished for segment in made.agent)


def test_without_sound_either_it_is_what_was_planned(tmp_path: Path):
    made = session_of_bag(written(tmp_path / "plan", without("playback", "audio/played")))
    assert [segment.start_s for segment in made.agent] == [6.0, 13.0]
    assert made.agent[1].stop_s > SILENT_S


def test_silence_of_the_speaker_is_no_speech(tmp_path: Path):
    with BagWriter(tmp_path / "quiet") as bag:
        for name, log_ns, message in conversation():
            if isinstance(message, AudioChunk):
                silent = replace(message, data=message.data * 0)
                bag.write(MIC if name == MIC.name else PLAYED, log_ns, silent)
            if isinstance(message, VoiceActivity):
                bag.write(VOICE, log_ns, message)
    assert session_of_bag(tmp_path / "quiet").agent == ()


def test_sound_with_a_senseless_stamp_is_left_out(bag: Path, tmp_path: Path):
    lost = (PLAYED, at(0), AudioChunk(0, np.ones(480, np.int16), 24_000))
    made = session_of_bag(written(tmp_path / "lost", without("playback"), [lost]))
    assert edges(made.agent) == edges(session_of_bag(bag).agent)


def test_an_alert_from_before_the_recording_is_none_of_its_alerts(bag: Path, tmp_path: Path):
    old = Raised(at(-20), "battery", 7, Severity.NOTICE, True, "Low.", 0, 0)
    made = session_of_bag(written(tmp_path / "old", first=[(ALERT, at(0), old)]))
    assert made.alerts == session_of_bag(bag).alerts


def test_labels_say_who_meant_what_and_what_there_was_to_report(bag: Path, labels: Path):
    made = session_of_bag(bag, read_labels(labels))
    assert made.user[1] == UserSegment(14, 14.4, "backchannel")
    assert made.events == (
        Event(9.2, "camera_covered"),
        Event(21.3, "loud_sound"),
        Event(27, "loud_sound"),
    )


def test_a_bag_is_scored_into_a_table_and_files(bag: Path, labels: Path, tmp_path: Path, capsys):
    figures, turns = tmp_path / "figures.json", tmp_path / "turns.json"
    panel = score_bag(bag, labels=labels, figures=figures, turns=turns, least=1)
    found = json.loads(figures.read_text())["figures"]
    assert found == panel.as_figures()
    # 4.4 s to 6.03 s, on ticks 22 to 30; 16.0 s to 16.235 s, on ticks 80 to 81.
    assert found["L_R"] == pytest.approx(1.6)
    assert found["response_latency"] == pytest.approx(1.63)
    assert found["L_Y"] == pytest.approx(0.2)
    assert found["stop_latency"] == pytest.approx(0.235)
    # The person's "that is enough" gets no answer.
    assert (found["R_R"], found["R_R.count"]) == (0.5, 2)
    assert (found["S_BC"], found["S_BC.count"]) == (1.0, 1)
    assert found["alert_recall_2s"] == pytest.approx(2 / 3)
    assert found["alert_latency_2s"] == pytest.approx(0.75)
    assert found["false_alerts_per_hour"] == 0
    answer_end_s = session_of_bag(bag).agent[0].stop_s
    assert json.loads(turns.read_text()) == {
        "conversation_id": "conversation",
        "speaker_1": {"eot": [6.03], "interruption": [SILENT_S]},
        "speaker_2": {"eot": [round(answer_end_s, 3), SILENT_S], "interruption": []},
    }
    assert "R_Y" in capsys.readouterr().out


def test_a_score_without_labels_says_what_that_means(bag: Path, capsys):
    score_bag(bag)
    said = capsys.readouterr().out
    assert "All that was heard counts as said to the robot" in said
    assert "Alerts are not judged" in said


def test_a_bag_without_speech_is_refused_and_told_what_it_needs(tmp_path: Path):
    bare = write_bag(tmp_path / "bare", 2.0, pictures=False)
    with pytest.raises(InputError, match="minicpmo replay"):
        session_of_bag(bare)
    made = session_of_bag(bare, Labels((UserSegment(0.5, 1.0),)))
    assert made.duration_s == pytest.approx(2.0)
    assert made.user == (UserSegment(0.5, 1.0),)


def test_seconds_count_from_the_first_sound_whatever_was_recorded_before(tmp_path: Path):
    """Decisions and states stamped before the first chunk do not move the clock."""
    late = written(tmp_path / "late", lambda t, log_ns: t != MIC.name or log_ns > at(1.05))
    made = session_of_bag(late)
    assert edges(made.user)[0] == (1.0, 3.4)
    assert made.duration_s == pytest.approx(29.0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "no JSON file"),
        ("[1]", "must be"),
        ('{"users": []}', "must be"),
        ('{"user": {}}', "user must be a list"),
        ('{"user": [{"start_s": 1, "stop_s": 2}]}', r"user\[0\]"),
        ('{"user": [{"start_s": "1", "stop_s": 2, "kind": "turn"}]}', r"user\[0\]"),
        ('{"user": [{"start_s": 1, "stop_s": 2, "kind": "shout"}]}', "shout"),
        ('{"user": [{"start_s": 2, "stop_s": 2, "kind": "turn"}]}', "stop after it starts"),
        ('{"events": [{"t_s": true, "name": "x"}]}', r"events\[0\]"),
        ('{"events": [{"t_s": NaN, "name": "x"}]}', "must be a number"),
    ],
)
def test_labels_that_cannot_be_used_are_named(tmp_path: Path, content: str, said: str):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        read_labels(path)
    assert "bad.json" in str(caught.value)


def test_labels_that_are_not_there_or_not_text_are_named(tmp_path: Path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name in ("nowhere.json", "binary.json"):
        with pytest.raises(InputError, match=name):
            read_labels(tmp_path / name)
