"""The speaker on a real PortAudio device, with a recorder at its other end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media.microphone import MicConfig, make_microphone
from minicpmo_ros.media.playback import FADE_SAMPLES, PlayQueue
from minicpmo_ros.media.resample import resample
from minicpmo_ros.media.speaker import SpeakerConfig, make_speaker
from minicpmo_ros.messages import (
    NS_PER_MS,
    NS_PER_S,
    SPEECH_RATE_HZ,
    Playback,
    PlaybackEvent,
    SpeechChunk,
)
from tests.devices.pulse import PulseServer, Room, wait_for
from tests.devices.sound import noise, place


class Player:
    """An open speaker and its queue."""

    def __init__(self, config: SpeakerConfig) -> None:
        self.queue = PlayQueue()
        self.speaker = make_speaker(config, self.queue, time.time_ns)
        self.reports: list[Playback] = []

    def __enter__(self) -> Player:
        self.speaker.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.speaker.close()

    def say(self, samples: np.ndarray, turn: int = 1, epoch: int = 1, last: bool = True) -> None:
        assert self.queue.push(
            SpeechChunk(time.time_ns(), epoch, turn, 0, 0, samples, "some words", last=last)
        )

    def wait(self, event: PlaybackEvent, turn: int = 1) -> Playback:
        """The next such report of a turn."""
        found: list[Playback] = []

        def happened() -> bool:
            new = self.queue.reports()
            self.reports += new
            found.extend(report for report in new if (report.event, report.turn) == (event, turn))
            return bool(found)

        wait_for(f"{event.name} of turn {turn}", happened)
        return found[0]


@pytest.fixture
def player(pulse: PulseServer) -> Iterator[Player]:
    # A machine that is busy with other tests must not run dry; delay costs nothing here.
    with Player(SpeakerConfig(device="robot_speaker", latency_ms=200)) as made:
        # The first words to a server that has slept for long come late; not what is tested here.
        made.say(np.zeros(2400, np.int16), turn=999, epoch=0)
        made.wait(PlaybackEvent.FINISHED, turn=999)
        yield made


def test_an_unknown_device_is_an_error_that_lists_the_known_ones(pulse: PulseServer) -> None:
    with pytest.raises(DeviceError, match=r"no such thing.*robot_speaker"):
        make_speaker(SpeakerConfig(device="no such thing"), PlayQueue(), time.time_ns).open()


def test_what_is_queued_is_what_sounds(pulse: PulseServer, player: Player) -> None:
    speech = noise(1.2, SPEECH_RATE_HZ)
    speech[-1] = 0  # so that nothing has to be faded out
    with pulse.recording() as recorded:
        said_ns = time.time_ns()
        player.say(speech)
        started = player.wait(PlaybackEvent.STARTED)
        finished = player.wait(PlaybackEvent.FINISHED)
        wait_for("the recording", lambda: np.count_nonzero(recorded()) >= len(speech) - 1)
        time.sleep(0.3)
        heard = recorded()
    first = place(speech, heard)
    assert not heard[:first].any()
    assert not heard[first + len(speech) :].any()
    assert finished.turn_samples == len(speech)
    assert abs(finished.stamp_ns - started.stamp_ns - 1.2 * NS_PER_S) < NS_PER_MS
    assert 0 <= started.stamp_ns - said_ns < 800 * NS_PER_MS
    played = np.concatenate([chunk.data for chunk in player.queue.played()])
    np.testing.assert_array_equal(played[played.tolist().index(speech[0]) :][: len(speech)], speech)


def test_speech_that_comes_in_pieces_sounds_as_one(pulse: PulseServer, player: Player) -> None:
    speech = noise(1.0, SPEECH_RATE_HZ)
    speech[-1] = 0
    with pulse.recording() as recorded:
        for number, piece in enumerate(np.split(speech, 10)):
            chunk = SpeechChunk(time.time_ns(), 1, 1, number, 0, piece, last=number == 9)
            assert player.queue.push(chunk)
            time.sleep(0.03)
        finished = player.wait(PlaybackEvent.FINISHED)
        wait_for("the recording", lambda: np.count_nonzero(recorded()) >= len(speech) - 1)
        heard = recorded()
    place(speech, heard)
    assert finished.concealed_samples == 0


def test_an_interruption_silences_the_device_and_the_account_is_right(
    pulse: PulseServer, player: Player
) -> None:
    speech = noise(4.0, SPEECH_RATE_HZ)
    with pulse.recording() as recorded:
        player.say(speech)
        player.wait(PlaybackEvent.STARTED)
        time.sleep(0.7)
        interrupted_ns = time.time_ns()
        player.queue.interrupt(2)
        cut = player.wait(PlaybackEvent.INTERRUPTED)
        wait_for("the rest", lambda: np.count_nonzero(recorded()) >= cut.turn_samples)
        time.sleep(0.5)
        heard = recorded()
    first = place(speech[: cut.turn_samples], heard)
    # After what the account admits there is the decay of a few ms, and then nothing.
    tail = heard[first + cut.turn_samples :]
    assert np.count_nonzero(tail) <= FADE_SAMPLES
    assert not tail[FADE_SAMPLES:].any()
    assert cut.turn_samples < len(speech) / 2
    # What had been handed to the device when the interruption came: what it holds, no more.
    assert cut.stamp_ns - interrupted_ns < 600 * NS_PER_MS


def test_a_turn_after_an_interruption_sounds(pulse: PulseServer, player: Player) -> None:
    player.say(noise(2.0, SPEECH_RATE_HZ), turn=1, epoch=1)
    player.wait(PlaybackEvent.STARTED, turn=1)
    player.queue.interrupt(2)
    player.wait(PlaybackEvent.INTERRUPTED, turn=1)
    speech = noise(0.3, SPEECH_RATE_HZ)
    with pulse.recording() as recorded:
        player.say(speech, turn=2, epoch=2)
        player.wait(PlaybackEvent.FINISHED, turn=2)
        wait_for("the recording", lambda: np.count_nonzero(recorded()) >= len(speech))
        time.sleep(0.5)
        heard = recorded()
    place(speech, heard)


def test_a_device_of_another_rate_is_resampled(pulse: PulseServer) -> None:
    time_s = np.arange(24_000) / 24_000
    speech = (8_000 * np.sin(2 * np.pi * (200 + 1_000 * time_s) * time_s)).astype(np.int16)
    config = SpeakerConfig(device="robot_speaker", device_rate_hz=48_000, latency_ms=200)
    with Player(config) as player, pulse.recording() as recorded:
        player.say(speech)
        finished = player.wait(PlaybackEvent.FINISHED)
        time.sleep(0.5)
        heard = recorded()
        assert player.speaker.status.rate_hz == 48_000
    assert finished.turn_samples == len(speech)
    fine = 8
    wanted = resample(speech, 24_000, 24_000 * fine).astype(float)
    coarse = int(np.argmax(np.correlate(heard.astype(float), speech.astype(float))))
    found = resample(heard[coarse - 10 :], 24_000, 24_000 * fine).astype(float)
    errors = [np.std(found[shift : shift + len(wanted)] - wanted) for shift in range(20 * fine)]
    assert min(errors) < 0.03 * np.std(wanted)


def test_a_sound_server_that_dies_and_returns_is_survived(
    pulse: PulseServer, player: Player
) -> None:
    player.say(noise(5.0, SPEECH_RATE_HZ), turn=1)
    player.wait(PlaybackEvent.STARTED, turn=1)
    pulse.stop(how=9)
    # Nobody hears it any more, and the account says so instead of waiting for ever.
    cut = player.wait(PlaybackEvent.INTERRUPTED, turn=1)
    assert cut.turn_samples < 5 * 24_000
    wait_for("the loss to show", lambda: player.speaker.status.problem)
    assert player.speaker.status.state == "lost"
    player.say(noise(0.5, SPEECH_RATE_HZ), turn=2)
    player.wait(PlaybackEvent.INTERRUPTED, turn=2)
    pulse.start()
    wait_for("the device", lambda: player.speaker.status.state == "running")
    speech = noise(0.5, SPEECH_RATE_HZ)
    with pulse.recording() as recorded:
        player.say(speech, turn=3)
        player.wait(PlaybackEvent.FINISHED, turn=3)
        wait_for("the sound", lambda: np.count_nonzero(recorded()) >= len(speech))
        heard = recorded()
    place(speech, heard)
    assert player.speaker.status.reopenings == 1


def test_both_devices_of_one_process_come_back(pulse: PulseServer) -> None:
    """Re-initialising PortAudio for one of them must not end the other."""
    microphone = make_microphone(MicConfig(device="robot_mic"), time.time_ns)
    microphone.open()
    with Player(SpeakerConfig(device="robot_speaker")) as player:
        wait_for("sound", lambda: microphone.read(0.5))
        pulse.stop(how=9)
        wait_for("both losses", lambda: microphone.status.problem and player.speaker.status.problem)
        pulse.start()
        wait_for("the microphone", lambda: microphone.status.state == "running")
        wait_for("the speaker", lambda: player.speaker.status.state == "running")
        wait_for("the rest of what was heard", lambda: microphone.read(0.5))
        player.say(noise(0.3, SPEECH_RATE_HZ))
        player.wait(PlaybackEvent.FINISHED)
        wait_for("new sound", lambda: microphone.read(0.5))
    microphone.close()


def test_the_room_carries_the_speaker_to_the_microphone(
    pulse: PulseServer, player: Player, room: Room
) -> None:
    room.open(delay_ms=40, volume=0.5)
    microphone = make_microphone(MicConfig(device="robot_mic"), time.time_ns)
    microphone.open()
    time_s = np.arange(24_000) / 24_000
    speech = (12_000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)
    player.say(speech)
    started = player.wait(PlaybackEvent.STARTED)
    chunks = [microphone.read(0.5) for _ in range(20)]
    microphone.close()
    heard = [chunk for chunk in chunks if chunk is not None]
    loud = [chunk for chunk in heard if np.abs(chunk.data.astype(int)).max() > 100]
    assert loud, "the echo did not arrive"
    # By the stamps of both ends the echo comes after the sound and within the delay of a room.
    assert -50 * NS_PER_MS < loud[0].end_ns - started.stamp_ns < 600 * NS_PER_MS
    room.close()
