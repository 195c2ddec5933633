"""In simulated time nodes wait for /clock, follow it at any speed, and survive its going back."""

from __future__ import annotations

from minicpmo_ros import topics
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S
from minicpmo_ros.nodes.base import SUCCESS
from minicpmo_ros.nodes.camera import CameraNode
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.speaker import SpeakerNode
from minicpmo_ros.wire import stamp_ns
from tests.nodes.robot import START_NS, tone


def test_nothing_is_sent_before_the_clock_has_begun(simulation):
    pictures, chunks = simulation.hear(topics.IMAGE), simulation.hear(topics.MIC)
    decisions = simulation.hear(topics.DECISION)
    camera, mic = simulation.add(CameraNode), simulation.add(MicNode)
    omni, speaker = simulation.add(OmniNode), simulation.add(SpeakerNode)
    for node in (camera, mic, omni, speaker):
        assert node.trigger_configure() == SUCCESS, node.failure
    for node, topic in ((camera, topics.IMAGE), (mic, topics.MIC), (omni, topics.DECISION)):
        simulation.until(lambda n=node, t=topic: n.readers(t), "the listeners")
    for node in (camera, mic, omni, speaker):
        assert node.trigger_activate() == SUCCESS, node.failure
    # Ten diagnoses are a second of wall time.
    for _ in range(10):
        simulation.diagnosis("/omni: node")
    assert (pictures, chunks, decisions) == ([], [], [])
    simulation.tick(START_NS)
    for _ in range(100):
        simulation.tick(simulation.now_ns + 20 * NS_PER_MS)
        simulation.until(lambda: chunks or simulation.now_ns < START_NS + NS_PER_S, "sound")
    simulation.until(lambda: decisions and pictures and chunks, "all of them")
    first_ns = min(stamp_ns(m[0].header.stamp) for m in (pictures, chunks, decisions))
    assert first_ns >= START_NS


def test_decisions_follow_the_clock_and_not_the_wall(simulation):
    omni = simulation.run(OmniNode)
    decisions = simulation.hear(topics.DECISION)
    simulation.until(lambda: omni.readers(topics.DECISION), "the listener")
    simulation.tick(simulation.now_ns)
    simulation.live(10.5, sound=lambda at_ns: tone(0.1), omni=omni)
    simulation.until(lambda: len(decisions) == 10, "ten decisions")
    assert [d.audio_filled_ms for d in decisions] == [0.0] * 10
    for _ in range(5):  # the wall goes on, the clock does not
        simulation.diagnosis("/omni: node")
    assert len(decisions) == 10


def test_a_clock_that_goes_back_begins_a_new_epoch_and_the_robot_lives_on(simulation):
    omni, speaker = simulation.run(OmniNode), simulation.run(SpeakerNode)
    decisions, reports = simulation.hear(topics.DECISION), simulation.hear(topics.PLAYBACK)
    simulation.until(lambda: speaker.readers(topics.PLAYBACK) == 2, "the listeners")
    simulation.tick(simulation.now_ns)
    simulation.live(3.2, sound=lambda at_ns: tone(0.1), omni=omni)
    omni.session.say("one two three four five six seven eight nine ten", simulation.now_ns)
    assert simulation.live(1.0, until=lambda: speaker.queue.sounding)
    units = len(decisions)
    simulation.tick(START_NS - 100 * NS_PER_S)
    assert omni.session.epoch == 1
    assert omni.troubles.counts()["clock"] == 1
    simulation.until(lambda: not speaker.queue.sounding, "silence")
    simulation.live(3.2, sound=lambda at_ns: tone(0.1), omni=omni)
    simulation.until(lambda: len(decisions) >= units + 3, "decisions of the new time")
    assert stamp_ns(decisions[-1].header.stamp) < START_NS
    numbers = [d.unit for d in decisions]
    assert numbers == sorted(set(numbers))
    omni.session.say("hello again", simulation.now_ns)
    assert simulation.live(
        3.0, until=lambda: reports[-1].event == reports[-1].FINISHED and reports[-1].heard
    )
    assert reports[-1].heard == "hello again"


def test_sources_go_on_after_the_clock_went_back(simulation):
    simulation.run(CameraNode)
    simulation.run(MicNode)
    pictures, chunks = simulation.hear(topics.IMAGE), simulation.hear(topics.MIC)

    def is_new(message) -> bool:
        return abs(stamp_ns(message.header.stamp) - simulation.now_ns) < NS_PER_S

    for start_ns in (START_NS, START_NS // 2, START_NS * 3):
        simulation.tick(start_ns)
        pictures.clear()
        chunks.clear()
        simulation.until(
            lambda: (
                simulation.tick(simulation.now_ns + 20 * NS_PER_MS)
                or (any(map(is_new, pictures)) and any(map(is_new, chunks)))
            ),
            "pictures and sound of the new time",
        )


def test_a_microphone_that_was_activated_at_a_later_time_is_heard(simulation):
    """It was told to begin at a time that will not come again for long."""
    simulation.tick(START_NS)
    simulation.run(MicNode)
    chunks = simulation.hear(topics.MIC)
    simulation.tick(START_NS // 2)
    simulation.until(
        lambda: simulation.tick(simulation.now_ns + 20 * NS_PER_MS) or len(chunks) > 3, "sound"
    )
    assert stamp_ns(chunks[-1].header.stamp) < START_NS


def test_what_the_microphone_heard_while_it_was_inactive_is_not_sent(simulation):
    mic = simulation.run(MicNode)
    chunks = simulation.hear(topics.MIC)

    def wait_for_sound() -> None:
        simulation.until(
            lambda: simulation.tick(simulation.now_ns + 20 * NS_PER_MS) or chunks, "sound"
        )

    wait_for_sound()
    number = chunks[-1].sequence
    mic.trigger_deactivate()
    simulation.tick(simulation.now_ns + 2 * NS_PER_S)
    chunks.clear()
    since_ns = simulation.now_ns
    mic.trigger_activate()
    wait_for_sound()
    assert stamp_ns(chunks[0].header.stamp) > since_ns - 100 * NS_PER_MS
    assert chunks[0].sequence == number + 1  # a jump would say that sound was lost


def test_a_leap_of_an_hour_is_skipped_and_not_lived_through(simulation):
    omni = simulation.run(OmniNode)
    decisions = simulation.hear(topics.DECISION)
    simulation.until(lambda: omni.readers(topics.DECISION), "the listener")
    simulation.tick(simulation.now_ns)
    simulation.live(2.2, sound=lambda at_ns: tone(0.1), omni=omni)
    simulation.tick(simulation.now_ns + 3600 * NS_PER_S)
    simulation.live(2.2, sound=lambda at_ns: tone(0.1), omni=omni)
    simulation.until(lambda: len(decisions) >= 4, "decisions after the leap")
    assert len(decisions) < 10
    assert decisions[-1].unit > 3600
    assert omni.troubles.counts()["skip"] == 1
