"""What carries an older epoch never sounds, and who comes late learns which one it is."""

from __future__ import annotations

import numpy as np

from minicpmo_ros import topics
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.ros_types import TYPES, header
from minicpmo_ros.nodes.speaker import SpeakerNode
from tests.nodes.robot import tone


def speech(epoch: int, turn: int = 1, stamp_ns: int = 0, **fields):
    values = {
        "sample_rate": 24000,
        "last": True,
        "text": f"epoch {epoch}",
        "data": TYPES.int16(tone(0.2, 24000)),
    }
    return TYPES.new(
        topics.SPEECH.type,
        header=header(stamp_ns, ""),
        epoch=epoch,
        turn=turn,
        **{**values, **fields},
    )


def state(epoch: int, turn: int = 0):
    return TYPES.new(topics.STATE.type, epoch=epoch, turn=turn, state=1, detail="test")


class Listener:
    """A speaker node, what the test tells it, and what it reports."""

    def __init__(self, simulation) -> None:
        self._simulation = simulation
        self.node = simulation.run(SpeakerNode)
        self._talk = {t: simulation.talk(t) for t in (topics.SPEECH, topics.STATE)}
        self.reports = simulation.hear(topics.PLAYBACK)
        self.played = simulation.hear(topics.PLAYED)
        simulation.until(
            lambda: (
                all(p.get_subscription_count() for p in self._talk.values())
                and self.node.readers(topics.PLAYBACK)
                and self.node.readers(topics.PLAYED)
            ),
            "the speaker",
        )
        simulation.tick(simulation.now_ns)

    def tell(self, message) -> None:
        """Returns when the node has dealt with it."""
        topic = topics.STATE if hasattr(message, "detail") else topics.SPEECH
        before = self.node.traffic.received[topic.name]
        self._talk[topic].publish(message)
        arrived = self.node.traffic.received
        self._simulation.until(lambda: arrived[topic.name] > before, "its arrival")

    @property
    def heard(self) -> list[str]:
        return heard(self.reports)


def heard(reports) -> list[str]:
    """The turns that were heard to their end."""
    return [r.heard for r in reports if r.event == r.FINISHED]


def test_speech_of_an_older_epoch_never_sounds(simulation):
    speaker = Listener(simulation)
    speaker.tell(state(3))
    speaker.tell(speech(2, stamp_ns=simulation.now_ns))
    speaker.tell(speech(3, 2, stamp_ns=simulation.now_ns))
    assert simulation.live(2.0, until=lambda: speaker.heard)
    assert speaker.heard == ["epoch 3"]
    assert {r.epoch for r in speaker.reports} == {3}


def test_speech_of_a_newer_epoch_silences_the_older_before_the_state_has_come(simulation):
    speaker = Listener(simulation)
    long = speech(0, data=TYPES.int16(tone(4.0, 24000)))
    speaker.tell(long)
    assert simulation.live(1.0, until=lambda: speaker.node.queue.sounding)
    speaker.tell(speech(1, 2))
    assert simulation.live(1.0, until=lambda: speaker.heard)
    assert speaker.heard == ["epoch 1"]
    assert [r.epoch for r in speaker.reports if r.event == r.INTERRUPTED] == [0]


def test_what_was_played_before_an_interruption_is_all_that_left_the_speaker(simulation):
    speaker = Listener(simulation)
    long = speech(0, data=TYPES.int16(tone(4.0, 24000)))
    speaker.tell(long)
    assert simulation.live(2.0, until=lambda: len(speaker.played) >= 10)
    speaker.tell(state(1))
    simulation.live(1.0)
    cut = next(r for r in speaker.reports if r.event == r.INTERRUPTED)
    sounded = sum(int(np.count_nonzero(np.abs(c.data) > 200)) for c in speaker.played)
    assert cut.turn_samples < 24000
    # But for zero crossings of the tone, and the fade-out of 3 ms after the cut.
    assert 0.9 * cut.turn_samples < sounded < cut.turn_samples + 96


def test_a_session_that_counts_from_zero_again_is_heard(simulation):
    """The omni process died and came back: epochs and turns of its own begin anew."""
    speaker = Listener(simulation)
    speaker.tell(state(7, turn=4))
    speaker.tell(speech(7, 1))
    assert simulation.live(1.0, until=lambda: len(speaker.heard) == 1)
    speaker.tell(state(0))
    speaker.tell(speech(0, 1))
    assert simulation.live(1.0, until=lambda: len(speaker.heard) == 2)
    # Once more within the same epoch, as after a crash before any interruption.
    speaker.tell(state(0, turn=1))
    speaker.tell(state(0, turn=0))
    speaker.tell(speech(0, 1))
    assert simulation.live(1.0, until=lambda: len(speaker.heard) == 3)


def test_an_omni_node_configured_anew_is_heard(simulation):
    # It has no microphone here, and is not to talk about that.
    omni = simulation.run(OmniNode, spoken_severity="never")
    speaker = simulation.run(SpeakerNode)
    reports = simulation.hear(topics.PLAYBACK)
    simulation.until(lambda: speaker.readers(topics.PLAYBACK) == 2, "the listeners")
    simulation.tick(simulation.now_ns)
    for times in (1, 2, 3):
        simulation.until(lambda: omni.readers(topics.SPEECH) == 1, "the speaker")
        omni.session.say("hello", simulation.now_ns)
        assert simulation.live(2.0, until=lambda times=times: len(heard(reports)) == times)
        for step in ("deactivate", "cleanup", "configure", "activate"):
            getattr(omni, f"trigger_{step}")()
        simulation.until(lambda: speaker.readers(topics.PLAYBACK) == 2, "the listeners")
    # Epochs and turns went on: nothing of a later session looks like something of an earlier one.
    spoken = [(r.epoch, r.turn) for r in reports if r.event == r.FINISHED]
    assert spoken == sorted(set(spoken))
    assert len({epoch for epoch, _ in spoken}) == 3


def test_who_comes_late_gets_the_state(robot):
    omni = robot.run(OmniNode)
    omni.session.say("one two three four", omni.now_ns())
    robot.until(lambda: omni.session.interrupt("test", omni.now_ns()).success, "something to stop")
    states = robot.hear(topics.STATE)
    robot.until(lambda: states, "the state")
    assert (states[0].epoch, states[0].detail, states[0].brain) == (1, "test", "reflex")


def test_who_comes_late_gets_the_alerts_that_stand(simulation):
    omni = simulation.run(OmniNode)
    simulation.tick(simulation.now_ns)
    simulation.live(6.0)  # nothing comes: microphone and camera are lost
    alerts = simulation.hear(topics.ALERT)
    sent = omni.traffic.sent[topics.ALERT.name]
    simulation.until(lambda: len(alerts) == sent > 0, "the alerts")
    assert any("camera" in alert.kind for alert in alerts)


def test_a_speaker_that_comes_late_does_not_play_what_was_interrupted(simulation):
    omni = simulation.run(OmniNode)
    simulation.tick(simulation.now_ns)
    omni.session.say("one two three four five six seven eight", simulation.now_ns)
    simulation.live(0.2)
    omni.session.interrupt("test", simulation.now_ns)
    speaker = simulation.run(SpeakerNode)
    simulation.until(lambda: speaker.queue.epoch == 1, "the epoch to be known")
    assert speaker.queue.queued_samples == 0
