"""The action say: speaks a text, tells how far it was heard, and ends when it was."""

from __future__ import annotations

import threading

import pytest
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient

from minicpmo_ros import topics
from minicpmo_ros.action import Say
from minicpmo_ros.brains import build
from minicpmo_ros.brains.api import Speech
from minicpmo_ros.brains.settings import SessionConfig
from minicpmo_ros.brains.turns import cut
from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.requests import LONGEST_TEXT
from minicpmo_ros.nodes.speaker import SpeakerNode
from tests.nodes.robot import ToneVoice

SENTENCE = "one two three four five six seven eight nine ten"


class Goal:
    """A say goal as a client sees it."""

    def __init__(self, robot, text: str, **fields) -> None:
        self._robot = robot
        self.heard: list[str] = []
        self._client = ActionClient(robot.friend, Say, "say")
        robot.until(self._client.server_is_ready, "the action")
        sent = self._client.send_goal_async(
            Say.Goal(text=text, **fields),
            feedback_callback=lambda m: self.heard.append(m.feedback.heard),
        )
        robot.until(sent.done, "an answer to the goal")
        self.handle = sent.result()
        self._result = self.handle.get_result_async() if self.handle.accepted else None

    @property
    def ended(self) -> bool:
        return self._result.done()

    @property
    def status(self) -> int:
        return self._result.result().status

    @property
    def result(self):
        return self._result.result().result

    def cancel(self) -> None:
        cancelled = self.handle.cancel_goal_async()
        self._robot.until(cancelled.done, "an answer to the cancellation")

    def close(self) -> None:
        self._client.destroy()


@pytest.fixture
def omni(simulation):
    return simulation.run(OmniNode)


@pytest.fixture
def speaker(simulation, omni):
    node = simulation.run(SpeakerNode)
    simulation.tick(simulation.now_ns)
    return node


def test_say_ends_when_every_word_was_heard_and_tells_of_them_one_by_one(simulation, speaker):
    goal = Goal(simulation, SENTENCE)
    began_ns = simulation.now_ns
    assert simulation.live(5.0, until=lambda: goal.ended)
    assert goal.status == GoalStatus.STATUS_SUCCEEDED
    assert goal.result.success
    assert goal.result.message == "heard to the end"
    assert goal.result.heard == SENTENCE
    assert goal.result.turn == 1
    # Ten words of 100 ms: not before they have sounded.
    assert simulation.now_ns - began_ns >= 1_000_000_000
    assert goal.heard[0] == ""
    assert all(SENTENCE.startswith(part) for part in goal.heard)
    assert sorted(goal.heard, key=len) == goal.heard
    assert len(set(goal.heard)) > 5
    goal.close()


def test_a_cancelled_say_is_silent_at_once(simulation, speaker):
    goal = Goal(simulation, SENTENCE)
    assert simulation.live(3.0, until=lambda: "two" in "".join(goal.heard))
    goal.cancel()
    # Without a step of time.
    simulation.until(lambda: goal.ended, "the goal to end")
    assert goal.status == GoalStatus.STATUS_CANCELED
    assert not goal.result.success
    assert goal.result.heard.startswith("one two")
    assert goal.result.heard != SENTENCE
    assert speaker.queue.queued_samples == 0
    goal.close()


def test_a_text_that_does_not_sound_yet_is_taken_back_without_an_interruption(
    simulation, monkeypatch
):
    asked, go_on = threading.Event(), threading.Event()

    class SlowVoice(ToneVoice):
        def speak(self, text):
            asked.set()
            go_on.wait(30)
            return super().speak(text)

    monkeypatch.setattr(build, "Synthesiser", SlowVoice)
    omni, speaker = simulation.run(OmniNode), simulation.run(SpeakerNode)
    simulation.tick(simulation.now_ns)
    goal = Goal(simulation, SENTENCE)
    simulation.until(asked.is_set, "the synthesis to begin")
    goal.cancel()
    simulation.until(lambda: goal.ended, "the goal to end")
    go_on.set()
    assert goal.status == GoalStatus.STATUS_CANCELED
    simulation.live(0.5)
    assert omni.session.epoch == 0
    assert speaker.traffic.received[topics.SPEECH.name] == 0
    goal.close()


def test_an_interruption_ends_say_with_the_words_that_were_heard(simulation, omni, speaker):
    goal = Goal(simulation, SENTENCE)
    assert simulation.live(3.0, until=lambda: "two" in "".join(goal.heard))
    omni.session.interrupt("test", simulation.now_ns)
    simulation.until(lambda: goal.ended, "the goal to end")
    assert goal.status == GoalStatus.STATUS_ABORTED
    assert goal.result.message == "cut off before its end"
    assert goal.result.heard.startswith("one two")
    goal.close()


def test_an_empty_text_is_rejected(simulation, speaker):
    for text in ("", "  \n"):
        goal = Goal(simulation, text)
        assert not goal.handle.accepted
        goal.close()


def test_a_text_that_would_never_end_is_refused_with_the_limit(simulation, speaker):
    goal = Goal(simulation, "blah " * 1001)
    simulation.until(lambda: goal.ended, "the goal to end")
    assert goal.status == GoalStatus.STATUS_ABORTED
    assert goal.result.message == "the text has 5005 characters: say at most 5000 at once"
    goal.close()


def test_say_is_rejected_while_the_node_is_not_active(simulation):
    omni = simulation.add(OmniNode)
    omni.trigger_configure()
    goal = Goal(simulation, SENTENCE)
    assert not goal.handle.accepted
    assert omni.troubles.counts()["say"] == 1
    goal.close()


def test_texts_are_said_one_after_the_other(simulation, speaker):
    first, second = Goal(simulation, SENTENCE), Goal(simulation, "and eleven")
    assert simulation.live(5.0, until=lambda: first.ended)
    assert not second.ended
    assert simulation.live(5.0, until=lambda: second.ended)
    assert first.result.heard == SENTENCE
    assert second.result.heard == "and eleven"
    first.close()
    second.close()


def test_a_text_with_interrupt_cuts_the_one_before(simulation, speaker):
    first = Goal(simulation, SENTENCE)
    assert simulation.live(3.0, until=lambda: "two" in "".join(first.heard))
    second = Goal(simulation, "fire", interrupt=True)
    assert simulation.live(2.0, until=lambda: first.ended and second.ended)
    assert not first.result.success
    assert second.result.success
    assert second.result.heard == "fire"
    first.close()
    second.close()


def test_say_without_a_speaker_ends_with_the_reason(simulation, omni):
    simulation.tick(simulation.now_ns)
    goal = Goal(simulation, "hello")
    assert simulation.live(15.0, until=lambda: goal.ended)
    assert goal.status == GoalStatus.STATUS_ABORTED
    assert "does the speaker node run?" in goal.result.message
    goal.close()


def test_say_without_a_voice_ends_with_what_to_install(simulation, monkeypatch):
    def missing(**options):
        raise DeviceError("no espeak-ng")

    monkeypatch.setattr(build, "Synthesiser", missing)
    simulation.run(OmniNode)
    goal = Goal(simulation, "hello")
    simulation.until(lambda: goal.ended, "the goal to end")
    assert goal.status == GoalStatus.STATUS_ABORTED
    assert "install espeak-ng" in goal.result.message
    goal.close()


def test_deactivation_ends_what_is_being_said(simulation, omni, speaker):
    goals = [Goal(simulation, SENTENCE), Goal(simulation, "and eleven")]
    assert simulation.live(3.0, until=lambda: "two" in "".join(goals[0].heard))
    omni.trigger_deactivate()
    for goal in goals:
        simulation.until(lambda goal=goal: goal.ended, "the goal to end")
        assert goal.status == GoalStatus.STATUS_ABORTED
        goal.close()
    assert simulation.live(0.5, until=lambda: speaker.queue.idle)


def test_all_of_the_longest_text_has_room_on_its_topic():
    """It goes out at once, before anybody has read any of it."""
    spoken = Synthesiser().speak("word " * (LONGEST_TEXT // 5))
    speech = Speech(spoken.data, spoken.text, spoken.words, spoken.rate_hz)
    pieces = list(cut(speech, SessionConfig().chunk_s))
    assert 200 < len(pieces) <= topics.SPEECH.depth
