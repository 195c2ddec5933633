"""The action chat: a question with pictures and sound, answered in streamed text."""

from __future__ import annotations

import threading

import numpy as np
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient

from minicpmo_ros import topics
from minicpmo_ros.action import Chat
from minicpmo_ros.brains import build
from minicpmo_ros.errors import BrainError
from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.ros_types import TYPES, header, uint8_array
from minicpmo_ros.nodes.speaker import SpeakerNode
from tests.nodes.robot import tone


def ask(robot, **fields):
    """(result, status, pieces); None for a goal that was rejected."""
    pieces: list[str] = []
    client = ActionClient(robot.friend, Chat, "chat")
    robot.until(client.server_is_ready, "the action")
    sent = client.send_goal_async(
        Chat.Goal(**fields), feedback_callback=lambda m: pieces.append(m.feedback.delta)
    )
    robot.until(sent.done, "an answer to the goal")
    if not sent.result().accepted:
        return None
    got = sent.result().get_result_async()
    robot.until(got.done, "the answer")
    client.destroy()
    return got.result().result, got.result().status, pieces


def jpeg(value: int):
    picture = np.full((48, 64, 3), value, np.uint8)
    picture[10:30, 10:40] = 255 - value
    return TYPES.new(
        topics.IMAGE_COMPRESSED.type,
        header=header(1, "camera"),
        format="jpeg",
        data=uint8_array(encode_jpeg(picture)),
    )


def test_the_reflex_answers_with_what_it_senses_and_streams_it(robot):
    robot.run(OmniNode)
    result, status, pieces = ask(
        robot,
        text="What do you see?",
        pictures=[jpeg(40), jpeg(200)],
        sound=robot.chunk(1, tone(1.0)),
    )
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert result.success
    assert "no language model" in result.answer
    # Feedback and result come on different ways.
    robot.until(lambda: "".join(pieces) == result.answer, "all pieces of the answer")


def test_a_question_without_pictures_is_answered_too(robot):
    robot.run(OmniNode)
    result, _, _ = ask(robot, text="Who are you?")
    assert result.success
    assert "there is no picture" in result.answer


def test_an_answer_is_spoken_when_asked_for(robot):
    omni = robot.run(OmniNode)
    robot.run(SpeakerNode)
    speech = robot.hear(topics.SPEECH)
    robot.until(lambda: omni.readers(topics.SPEECH) == 2, "the listeners")
    result, _, _ = ask(robot, text="Who are you?", speak=True)
    robot.until(lambda: speech and speech[-1].last, "the speech")
    assert " ".join(chunk.text for chunk in speech) == result.answer


def test_a_picture_that_is_none_is_refused_with_the_reason(robot):
    robot.run(OmniNode)
    broken = jpeg(40)
    broken.data = uint8_array(b"this is no picture")
    result, status, _ = ask(robot, text="What do you see?", pictures=[broken])
    assert status == GoalStatus.STATUS_ABORTED
    assert "neither JPEG, PNG nor WebP" in result.message


def test_sound_of_another_rate_is_refused_with_the_right_one(robot):
    robot.run(OmniNode)
    sound = robot.chunk(1, tone(0.1), sample_rate=44100)
    result, status, _ = ask(robot, text="What do you hear?", sound=sound)
    assert status == GoalStatus.STATUS_ABORTED
    assert "16000 Hz and 1 channel are expected" in result.message


def test_a_brain_that_fails_half_way_gives_what_it_had_and_the_reason(robot, monkeypatch):
    class Forgetful(build.ReflexBrain):
        def chat(self, request):
            yield "I "
            yield "think "
            raise RuntimeError("I forgot")

    monkeypatch.setattr(build, "ReflexBrain", Forgetful)
    robot.run(OmniNode)
    result, status, _ = ask(robot, text="What?")
    assert status == GoalStatus.STATUS_ABORTED
    assert result.message == "RuntimeError: I forgot"
    assert result.answer == "I think "


def test_a_brain_that_fails_before_it_begins_gives_the_reason(robot, monkeypatch):
    class Silent(build.ReflexBrain):
        def chat(self, request):
            raise BrainError("ask again later")

    monkeypatch.setattr(build, "ReflexBrain", Silent)
    robot.run(OmniNode)
    result, status, _ = ask(robot, text="What?")
    assert status == GoalStatus.STATUS_ABORTED
    assert (result.message, result.answer) == ("ask again later", "")


def test_an_answer_that_is_under_way_ends_with_the_reason_when_the_node_is_deactivated(
    robot, monkeypatch
):
    begun, go_on = threading.Event(), threading.Event()

    class Thoughtful(build.ReflexBrain):
        def chat(self, request):
            yield "Well"
            begun.set()
            go_on.wait(30)

    monkeypatch.setattr(build, "ReflexBrain", Thoughtful)
    omni = robot.run(OmniNode)
    client = ActionClient(robot.friend, Chat, "chat")
    robot.until(client.server_is_ready, "the action")
    sent = client.send_goal_async(Chat.Goal(text="What?"))
    robot.until(begun.is_set, "the answer to begin")
    got = sent.result().get_result_async()
    omni.trigger_deactivate()
    robot.until(got.done, "the end of the goal")
    go_on.set()
    assert got.result().status == GoalStatus.STATUS_ABORTED
    assert got.result().result.message == "the node was deactivated"
    assert got.result().result.answer == "Well"
    client.destroy()


def test_chat_is_rejected_while_inactive_and_by_a_brain_that_cannot(robot, monkeypatch):
    class Mute(build.ReflexBrain):
        capabilities = build.ReflexBrain.capabilities.__class__(chats=False)

    omni = robot.add(OmniNode)
    omni.trigger_configure()
    assert ask(robot, text="Hello?") is None
    omni.trigger_cleanup()
    monkeypatch.setattr(build, "ReflexBrain", Mute)
    omni.trigger_configure()
    omni.trigger_activate()
    assert ask(robot, text="Hello?") is None
    assert omni.troubles.counts()["chat"] == 2
