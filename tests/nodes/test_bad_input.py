"""Bad input: a clear message, a diagnostic, the other streams go on, and nothing crashes.

Sound travels as int16, so NaN cannot be on that wire; of what the stack takes, only pictures of
floats can hold it.
"""

from __future__ import annotations

import numpy as np
import pytest

from minicpmo_ros import topics
from minicpmo_ros.brains import build
from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.messages import NS_PER_S
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.ros_types import TYPES, header, uint8_array
from minicpmo_ros.nodes.speaker import SpeakerNode
from tests.nodes.robot import CHUNK_NS, STEP_NS, level, tone, values


class Patient:
    """An omni node that hears a steady stream of good sound, and now and then something else."""

    def __init__(self, simulation, **parameters) -> None:
        self.simulation = simulation
        self.node = simulation.run(OmniNode, **parameters)
        self.decisions = simulation.hear(topics.DECISION)
        listened = (topics.MIC, topics.IMAGE, topics.IMAGE_COMPRESSED, topics.PLAYBACK)
        self._talk = {topic: simulation.talk(topic) for topic in listened}
        wanted = [self._talk[topics.MIC], self._talk[topics.PLAYBACK]]
        simulation.until(lambda: all(p.get_subscription_count() for p in wanted), "the ears")
        simulation.until(lambda: self.node.readers(topics.DECISION), "the listener")
        simulation.tick(simulation.now_ns)

    def send(self, topic, message) -> None:
        """Returns when the node has dealt with it."""
        received = self.node.traffic.received
        before = received[topic.name]
        publisher = self._talk[topic]
        self.simulation.until(publisher.get_subscription_count, f"a reader of {topic.name}")
        publisher.publish(message)
        self.simulation.until(lambda: received[topic.name] > before, f"{topic.name} to arrive")

    def listen(self, seconds: float) -> None:
        """Good sound."""
        for _ in range(round(seconds * NS_PER_S / CHUNK_NS)):
            for _ in range(CHUNK_NS // STEP_NS):
                self.simulation.tick(self.simulation.now_ns + STEP_NS)
            stamp_ns = self.simulation.now_ns - CHUNK_NS
            self.send(topics.MIC, self.simulation.chunk(stamp_ns, tone(0.1)))

    def lives_on(self) -> None:
        """Two more units come, without a hole, from the sound that goes on."""
        units = len(self.decisions)
        self.listen(3.0)
        self.simulation.until(lambda: len(self.decisions) >= units + 2, "decisions")
        assert self.decisions[-1].audio_filled_ms == 0.0
        assert self.node.active

    def complains(self, topic, text: str) -> None:
        status = self.simulation.diagnosis("/omni: troubles", lambda s: text in s.message)
        assert level(status) == 1
        assert f"{topic.name}: " in status.message
        assert int(values(status)[f"{topic.name} count"]) >= 1


@pytest.fixture
def patient(simulation):
    made = Patient(simulation)
    made.listen(1.0)
    return made


SOUNDS = {
    "no sample rate": ({"sample_rate": 0}, "sample_rate=0 Hz: 4000 to 192000 are possible"),
    "an absurd sample rate": ({"sample_rate": 1_000_000}, "sample_rate=1000000 Hz: 4000"),
    "no channels": ({"channels": 0}, "channels=0: 1 to 8 are possible"),
    "nine channels": ({"channels": 9}, "channels=9: 1 to 8 are possible"),
    "a torn frame": ({"channels": 3}, "the length must be a multiple of 3"),
    "a huge chunk": ({"data": TYPES.int16(np.zeros(200_000, np.int16))}, "12.5 s is too long"),
    "no stamp": ({"header": header(0, "")}, "a time of capture after 0 is right"),
    "before time": ({"header": header(-5 * NS_PER_S, "")}, "a time of capture after 0 is right"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_a_bad_chunk_of_sound_is_named_and_the_others_are_heard(patient, name):
    fields, message = SOUNDS[name]
    chunk = patient.simulation.chunk(patient.simulation.now_ns, tone(0.1), **fields)
    patient.send(topics.MIC, chunk)
    patient.complains(topics.MIC, message)
    patient.lives_on()


@pytest.mark.parametrize(
    "shift_s, message",
    [(60, "60.000 s in the future"), (-60, "60.000 s ago"), (3e7, "do its machine and this one")],
)
@pytest.mark.parametrize("stream", ["sound", "picture"])
def test_a_stamp_of_another_clock_is_named(patient, shift_s, message, stream):
    now_ns = patient.simulation.now_ns + 10**9 * 10**5
    patient.simulation.tick(now_ns)
    patient.listen(1.0)
    stamp_ns = patient.simulation.now_ns + round(shift_s * NS_PER_S)
    if stream == "sound":
        topic, wrong = topics.MIC, patient.simulation.chunk(stamp_ns, tone(0.1))
    else:
        topic, wrong = topics.IMAGE, image(stamp_ns=stamp_ns)
    patient.send(topic, wrong)
    patient.complains(topic, message)
    patient.lives_on()


def test_an_empty_chunk_is_counted_and_harmless(patient):
    patient.send(
        topics.MIC, patient.simulation.chunk(patient.simulation.now_ns, np.zeros(0, np.int16))
    )
    assert patient.node.session.timeline.stats.empty_chunks == 1
    patient.lives_on()


def test_a_stamp_that_goes_back_is_overlap_and_not_heard_twice(patient):
    again = patient.simulation.chunk(patient.simulation.now_ns - 3 * CHUNK_NS, tone(0.1))
    patient.send(topics.MIC, again)
    patient.lives_on()
    stats = patient.node.session.timeline.stats
    assert stats.overlap.ms + stats.late.ms == pytest.approx(100.0)


def test_sound_of_another_rate_and_in_stereo_is_welcome(patient):
    """Not every driver gives 16 kHz mono: that is no bad input at all."""
    units = len(patient.decisions)
    stereo = np.repeat(tone(0.1, 44100)[:, np.newaxis], 2, axis=1)
    for _ in range(30):
        for _ in range(CHUNK_NS // STEP_NS):
            patient.simulation.tick(patient.simulation.now_ns + STEP_NS)
        stamp_ns = patient.simulation.now_ns - CHUNK_NS
        chunk = patient.simulation.chunk(
            stamp_ns, stereo.reshape(-1), sample_rate=44100, channels=2
        )
        patient.send(topics.MIC, chunk)
    patient.simulation.until(lambda: len(patient.decisions) >= units + 2, "decisions")
    assert patient.decisions[-1].audio_filled_ms == 0.0
    assert patient.node.troubles.counts()[topics.MIC.name] == 0


def image(stamp_ns: int = 1, **fields):
    rgb = np.full((48, 64, 3), 120, np.uint8)
    right = {
        "header": header(stamp_ns, "camera"),
        "height": 48,
        "width": 64,
        "encoding": "rgb8",
        "step": 192,
        "data": uint8_array(rgb),
    }
    return TYPES.new(topics.IMAGE.type, **{**right, **fields})


PICTURES = {
    "an unknown encoding": ({"encoding": "sepia8"}, "'sepia8'"),
    "no encoding": ({"encoding": ""}, "encoding"),
    "a step too short": ({"step": 100}, "step"),
    "a step too long": ({"step": 1000}, "step"),
    "no width": ({"width": 0}, "0x48"),
    "no height": ({"height": 0}, "64x0"),
    "no data": ({"data": uint8_array(b"")}, "0"),
    "a size that cannot be": ({"width": 4_000_000_000, "height": 4_000_000_000}, "too large"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_bad_picture_is_named_and_sound_and_pictures_go_on(patient, name):
    fields, message = PICTURES[name]
    patient.send(topics.IMAGE, image(patient.simulation.now_ns, **fields))
    patient.complains(topics.IMAGE, message)
    patient.send(topics.IMAGE, image(patient.simulation.now_ns))
    patient.lives_on()
    assert any(d.pictures for d in patient.decisions)


def test_a_picture_of_nothing_but_nan_is_lived_through(patient):
    data = uint8_array(np.full((48, 64), np.nan, np.float32).tobytes())
    stamp_ns = patient.simulation.now_ns
    depth = image(stamp_ns, encoding="32FC1", step=256, data=data)
    patient.send(topics.IMAGE, depth)
    patient.lives_on()
    assert any(d.pictures for d in patient.decisions)
    assert patient.node.session.brain_failures == 0


def test_a_raw_picture_of_8k_is_seen(patient):
    pixels = uint8_array(bytes(7680 * 4320))
    large = image(
        patient.simulation.now_ns, encoding="mono8", width=7680, height=4320, step=7680, data=pixels
    )
    # As if it had come: 33 MB do not go through best effort whole.
    patient.node._on_image(large)
    patient.lives_on()
    assert any(d.pictures for d in patient.decisions)
    assert patient.node.session.brain_failures == 0


@pytest.fixture
def onlooker(simulation):
    made = Patient(simulation, image_transport="compressed")
    made.listen(1.0)
    return made


def compressed(stamp_ns: int, data: bytes, format: str = "jpeg"):
    head = header(stamp_ns, "camera")
    return TYPES.new(
        topics.IMAGE_COMPRESSED.type, header=head, format=format, data=uint8_array(data)
    )


def test_a_compressed_picture_of_8k_is_seen(onlooker):
    data = encode_jpeg(np.full((4320, 7680, 3), 90, np.uint8), 50)
    onlooker.send(topics.IMAGE_COMPRESSED, compressed(onlooker.simulation.now_ns, data))
    onlooker.lives_on()
    assert any(d.pictures for d in onlooker.decisions)
    assert onlooker.node.session.brain_failures == 0


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "is empty"),
        (b"this is no picture", "neither JPEG, PNG nor WebP"),
        (encode_jpeg(np.full((48, 64, 3), 90, np.uint8))[:200], "truncated"),
    ],
    ids=["empty", "text", "truncated"],
)
def test_a_bad_compressed_picture_is_named(onlooker, data, message):
    wrong = compressed(onlooker.simulation.now_ns, data)
    onlooker.send(topics.IMAGE_COMPRESSED, wrong)
    onlooker.complains(topics.IMAGE_COMPRESSED, message)
    onlooker.lives_on()


def test_a_picture_that_is_damaged_inside_does_not_stop_the_brain(onlooker):
    whole = bytearray(encode_jpeg(np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)))
    for place in range(len(whole) - 600, len(whole) - 2):
        whole[place] = 0x5A
    onlooker.send(topics.IMAGE_COMPRESSED, compressed(onlooker.simulation.now_ns, bytes(whole)))
    onlooker.lives_on()
    assert onlooker.node.session.brain_failures == 0


def test_a_playback_report_that_cannot_be_is_named(patient):
    patient.send(topics.PLAYBACK, TYPES.new(topics.PLAYBACK.type, event=99))
    patient.complains(topics.PLAYBACK, "99 is not a valid PlaybackEvent")
    patient.lives_on()


def test_a_playback_report_without_a_rate_is_named(patient):
    patient.send(topics.PLAYBACK, TYPES.new(topics.PLAYBACK.type, event=1))
    patient.complains(topics.PLAYBACK, "Playback with sample_rate=0 Hz: 4000 to 192000")
    patient.lives_on()


def test_a_brain_that_raises_in_a_unit_is_a_fault_one_can_see_and_comes_back(
    simulation, monkeypatch
):
    class Unwell(build.ReflexBrain):
        ill = True

        def unit(self, unit, around):
            if Unwell.ill:
                raise RuntimeError("a tensor has the wrong shape")
            return super().unit(unit, around)

    monkeypatch.setattr(build, "ReflexBrain", Unwell)
    states = simulation.hear(topics.STATE)
    patient = Patient(simulation)
    patient.listen(2.5)
    simulation.until(lambda: patient.decisions, "a decision")
    assert patient.decisions[0].action == patient.decisions[0].LISTEN
    assert "a tensor has the wrong shape" in patient.decisions[0].reason
    ill = simulation.diagnosis("/omni: brain", lambda s: level(s) == 2)
    assert ill.message == "RuntimeError: a tensor has the wrong shape"
    assert states[-1].state == states[-1].FAULT
    Unwell.ill = False
    patient.lives_on()
    simulation.diagnosis("/omni: brain", lambda s: level(s) == 0)
    assert states[-1].state == states[-1].LISTENING


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"sample_rate": 100}, "sample_rate=100 Hz: 4000 to 192000 are possible"),
        ({"sample_rate": 16000}, "must be 24000 Hz"),
    ],
)
def test_speech_that_no_speaker_plays_is_named_and_good_speech_is_heard(
    simulation, fields, message
):
    speaker = simulation.run(SpeakerNode)
    says = simulation.talk(topics.SPEECH)
    reports = simulation.hear(topics.PLAYBACK)
    simulation.until(says.get_subscription_count, "the speaker")
    simulation.until(lambda: speaker.readers(topics.PLAYBACK), "the listener")
    simulation.tick(simulation.now_ns)
    right = {
        "turn": 1,
        "sample_rate": 24000,
        "text": "hello",
        "last": True,
        "data": TYPES.int16(tone(0.2, 24000)),
    }
    says.publish(TYPES.new(topics.SPEECH.type, **{**right, **fields}))
    status = simulation.diagnosis("/speaker: troubles", lambda s: message in s.message)
    assert level(status) == 1
    says.publish(TYPES.new(topics.SPEECH.type, **{**right, "turn": 2}))
    simulation.until(lambda: speaker.queue.queued_samples, "the good speech")
    assert simulation.live(2.0, until=lambda: reports and reports[-1].event == 2)
    assert reports[-1].heard == "hello"
