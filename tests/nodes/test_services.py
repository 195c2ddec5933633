"""The services: interrupt, set_mode, set_prompt, set_voice, reset and mute."""

from __future__ import annotations

import numpy as np
import pytest
from std_srvs.srv import SetBool, Trigger

from minicpmo_ros import topics
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.speaker import SpeakerNode
from minicpmo_ros.srv import Interrupt, SetMode, SetPrompt, SetVoice
from tests.nodes.robot import tone

SENTENCE = "one two three four five six seven eight nine ten"


def test_interrupt_stops_speech_in_the_middle_and_names_the_words_that_were_heard(simulation):
    omni, speaker = simulation.run(OmniNode), simulation.run(SpeakerNode)
    states = simulation.hear(topics.STATE)
    reports = simulation.hear(topics.PLAYBACK)
    simulation.until(lambda: speaker.readers(topics.PLAYBACK) == 2, "the listeners")
    simulation.tick(simulation.now_ns)
    omni.session.say(SENTENCE, simulation.now_ns)
    assert simulation.live(2.0, until=lambda: reports and "three" in reports[-1].heard)
    queued = speaker.queue.queued_samples
    answer = simulation.call(Interrupt, "interrupt", reason="a test")
    assert answer.success
    assert answer.message == "a test"
    assert answer.epoch == 1
    assert answer.heard.startswith("one two three")
    simulation.until(lambda: reports[-1].event == reports[-1].INTERRUPTED, "the report")
    assert queued > 0
    assert speaker.queue.queued_samples == 0
    assert reports[-1].heard == answer.heard
    assert (states[-1].epoch, states[-1].detail) == (1, "a test")


def test_interrupt_with_nothing_to_stop_says_so_and_keeps_the_epoch(robot):
    omni = robot.run(OmniNode)
    answer = robot.call(Interrupt, "interrupt")
    assert not answer.success
    assert answer.message == "nothing to stop"
    assert answer.epoch == omni.session.epoch == 0


def test_a_mode_that_the_brain_cannot_do_is_refused_with_those_it_can(robot):
    robot.run(OmniNode)
    answer = robot.call(SetMode, "set_mode", mode="streaming")
    assert not answer.success
    assert answer.message == "mode 'streaming': the brain 'reflex' can do duplex"
    assert robot.call(SetMode, "set_mode", mode="duplex").success


def test_a_prompt_is_refused_by_a_brain_without_one_and_so_is_a_foreign_language(robot):
    robot.run(OmniNode)
    refused = robot.call(SetPrompt, "set_prompt", prompt="Be brief.")
    assert (refused.success, refused.message) == (False, "the brain 'reflex' takes no prompt")
    refused = robot.call(SetPrompt, "set_prompt", language="tlh")
    assert not refused.success
    assert "'tlh'" in refused.message
    assert robot.call(SetPrompt, "set_prompt", language="en").success


def test_a_voice_is_refused_by_a_brain_that_has_none_to_choose_from(robot):
    robot.run(OmniNode)
    answer = robot.call(SetVoice, "set_voice", voice="anna")
    assert not answer.success
    assert answer.message == "voice 'anna': the brain 'reflex' has none to choose from"
    assert list(answer.voices) == []
    assert robot.call(SetVoice, "set_voice", voice="").success


def test_reset_begins_anew_in_a_new_epoch_and_drops_what_was_being_said(simulation):
    omni, speaker = simulation.run(OmniNode), simulation.run(SpeakerNode)
    simulation.tick(simulation.now_ns)
    omni.session.say(SENTENCE, simulation.now_ns)
    assert simulation.live(1.0, until=lambda: speaker.queue.sounding)
    answer = simulation.call(Trigger, "reset")
    assert answer.success
    assert "new session" in answer.message
    assert omni.session.epoch == 1
    simulation.until(lambda: not speaker.queue.sounding, "silence")


@pytest.mark.parametrize("phase", ["inactive", "unconfigured again"])
def test_services_of_a_node_that_is_not_active_refuse_or_are_not_there(robot, phase):
    omni = robot.add(OmniNode)
    omni.trigger_configure()
    if phase == "inactive":
        for kind, name in ((Interrupt, "interrupt"), (Trigger, "reset"), (SetMode, "set_mode")):
            answer = robot.call(kind, name)
            assert not answer.success
            assert answer.message == "the omni node is inactive; activate it first"
        return
    omni.trigger_cleanup()
    client = robot.friend.create_client(Interrupt, "interrupt")
    robot.until(lambda: not client.service_is_ready(), "the service to be gone")


def test_a_muted_microphone_sends_flagged_zeros_and_time_goes_on(robot, tmp_path):
    import soundfile

    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(5.0), 16000)
    robot.run(MicNode, source=f"file:{path}", loop=True)
    chunks = robot.hear(topics.MIC)
    robot.until(lambda: chunks and not chunks[-1].muted and np.any(chunks[-1].data), "sound")
    answer = robot.call(SetBool, "mute", data=True)
    assert (answer.success, answer.message) == (True, "muted: only silence is sent")
    robot.until(lambda: chunks[-1].muted, "the mute")
    chunks.clear()
    robot.until(lambda: len(chunks) >= 3, "more chunks")
    assert all(chunk.muted and not np.any(chunk.data) for chunk in chunks)
    assert [len(chunk.data) for chunk in chunks] == [1600] * len(chunks)
    numbers = [chunk.sequence for chunk in chunks]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert robot.call(SetBool, "mute", data=False).message == "listening"
    robot.until(lambda: not chunks[-1].muted and np.any(chunks[-1].data), "sound again")


def test_the_mute_outlives_a_restart_of_the_microphone(robot):
    mic = robot.run(MicNode)
    robot.call(SetBool, "mute", data=True)
    for step in ("deactivate", "cleanup", "configure", "activate"):
        getattr(mic, f"trigger_{step}")()
    chunks = robot.hear(topics.MIC)
    robot.until(lambda: len(chunks) >= 2, "chunks")
    assert all(chunk.muted for chunk in chunks)
