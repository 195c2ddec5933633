"""The canceller takes the robot's voice out, leaves a person's in, and keeps stamps and lengths."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, fftconvolve, sosfilt

from minicpmo_ros.errors import ConfigError, DeviceError, InputError
from minicpmo_ros.media.echo import EchoCanceller, EchoConfig
from minicpmo_ros.media.resample import resample
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, AudioChunk

MIC_HZ = 16_000
PLAYED_HZ = 24_000
START_NS = 1_700_000_000 * NS_PER_S + 123_456_789


def speech(rate_hz: int, seconds: float, seed: int, pitch_hz: float = 130.0) -> np.ndarray:
    """Speech-like sound, float in int16 scale: a buzz with moving formants, cut into syllables."""
    rng = np.random.default_rng(seed)
    n = round(rate_hz * seconds)
    t = np.arange(n) / rate_hz
    pitch = pitch_hz * (1.0 + 0.15 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6)))
    phase = np.cumsum(pitch) / rate_hz
    source = (phase % 1.0) - 0.5 + 0.05 * rng.standard_normal(n)
    sound = np.zeros(n)
    syllable = rate_hz // 5
    for begin in range(0, n, syllable):
        piece = source[begin : begin + syllable]
        formants = (rng.uniform(300, 800), rng.uniform(900, 2200), rng.uniform(2300, 3200))
        for formant in formants:
            band = butter(2, [0.85 * formant, 1.15 * formant], "bandpass", fs=rate_hz, output="sos")
            sound[begin : begin + syllable] += sosfilt(band, piece) * rng.uniform(0.3, 1.0)
        sound[begin : begin + syllable] *= np.hanning(len(piece)) * (rng.random() > 0.2)
    return sound / np.abs(sound).max() * 12_000


def room(sound: np.ndarray, delay_ms: float, seed: int = 7, gain: float = 0.5) -> np.ndarray:
    """The sound as it comes back from a room: a direct path and 250 ms of decaying reflections."""
    n = MIC_HZ // 4
    response = np.random.default_rng(seed).standard_normal(n) * np.exp(-6.9 * np.arange(n) / n)
    response[0] = 3.0
    response *= gain / np.linalg.norm(response)
    delay = np.zeros(round(MIC_HZ * delay_ms / 1000))
    return fftconvolve(sound, np.concatenate([delay, response]))[: len(sound)]


def pcm(sound: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(sound), -32768, 32767).astype(np.int16)


def cut(sound: np.ndarray, rate_hz: int, ms: int, start_ns: int = START_NS) -> list[AudioChunk]:
    n = rate_hz * ms // 1000
    return [
        AudioChunk(start_ns + k * NS_PER_S // rate_hz, sound[k : k + n], rate_hz)
        for k in range(0, len(sound) - n + 1, n)
    ]


def converse(
    canceller: EchoCanceller,
    captured: list[AudioChunk],
    played: list[AudioChunk],
    arrives_ms: float = 0.0,
) -> list[AudioChunk]:
    """Hand over both streams; played chunks arrive that long after they began to sound."""
    waiting = list(played)
    cleaned = []
    for chunk in captured:
        while waiting and waiting[0].stamp_ns + arrives_ms * NS_PER_MS <= chunk.end_ns:
            canceller.played(waiting.pop(0))
        cleaned.append(canceller.clean(chunk))
    return cleaned


def joined(chunks: list[AudioChunk]) -> np.ndarray:
    return np.concatenate([chunk.data for chunk in chunks]).astype(float)


def level_db(sound: np.ndarray) -> float:
    return 10.0 * float(np.log10(np.mean(sound.astype(float) ** 2) + 1e-3))


@pytest.fixture(scope="module")
def robot() -> np.ndarray:
    return pcm(speech(PLAYED_HZ, 8.0, seed=1))


@pytest.fixture(scope="module")
def robot_at_mic_rate(robot) -> np.ndarray:
    return resample(robot, PLAYED_HZ, MIC_HZ).astype(float)


@pytest.mark.parametrize("delay_ms", [0, 20, 60, 120, 200])
def test_an_echo_loses_25_db_after_two_seconds(robot, robot_at_mic_rate, delay_ms):
    captured = cut(pcm(room(robot_at_mic_rate, delay_ms)), MIC_HZ, 100)
    canceller = EchoCanceller(EchoConfig("on"))
    cleaned = converse(canceller, captured, cut(robot, PLAYED_HZ, 20))
    before, after = joined(captured)[2 * MIC_HZ :], joined(cleaned)[2 * MIC_HZ :]
    assert level_db(before) - level_db(after) > 25.0
    assert canceller.stats.reduction_db > 15.0
    assert canceller.stats.late_ms == 0.0


def test_without_the_played_sound_the_echo_stays(robot_at_mic_rate):
    captured = cut(pcm(room(robot_at_mic_rate, 40)), MIC_HZ, 100)
    cleaned = converse(EchoCanceller(EchoConfig("on")), captured, [])
    assert abs(level_db(joined(captured)) - level_db(joined(cleaned))) < 2.0


def coherence(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the magnitudes of two short-time spectra, from 125 Hz to 3.7 kHz."""
    spectra = []
    for sound in (a, b):
        frames = sound[: len(sound) // 512 * 512].reshape(-1, 512) * np.hanning(512)
        spectra.append(np.abs(np.fft.rfft(frames, axis=1))[:, 4:120])
    return float(np.corrcoef(spectra[0].ravel(), spectra[1].ravel())[0, 1])


def test_without_a_reference_a_person_passes_unchanged_but_for_the_declared_delay():
    person = pcm(speech(MIC_HZ, 4.0, seed=2, pitch_hz=210.0))
    canceller = EchoCanceller(EchoConfig("on"))
    cleaned = joined(converse(canceller, cut(person, MIC_HZ, 100), []))
    delay = canceller.delay_ns * MIC_HZ // NS_PER_S
    heard, said = cleaned[delay:], person[: len(cleaned) - delay]
    assert coherence(heard, said) > 0.98
    assert abs(level_db(heard) - level_db(said)) < 1.5
    # The declared delay is the true one: any other place fits worse.
    fits = [coherence(cleaned[d : d + 60_000], person[:60_000]) for d in (delay - 64, delay + 64)]
    assert coherence(cleaned[delay : delay + 60_000], person[:60_000]) > max(fits)


def test_a_person_who_speaks_over_the_robot_is_still_heard(robot, robot_at_mic_rate):
    person = np.zeros(len(robot_at_mic_rate))
    # 5 dB less than the robot's voice in the microphone.
    person[4 * MIC_HZ :] = 0.2 * speech(MIC_HZ, 4.0, seed=3, pitch_hz=220.0)
    echo = room(robot_at_mic_rate, 60)
    canceller = EchoCanceller(EchoConfig("on"))
    captured = cut(pcm(echo + person), MIC_HZ, 100)
    cleaned = joined(converse(canceller, captured, cut(robot, PLAYED_HZ, 20)))
    delay = canceller.delay_ns * MIC_HZ // NS_PER_S
    said = person[4 * MIC_HZ : -delay]
    raw, heard = joined(captured)[4 * MIC_HZ : -delay], cleaned[4 * MIC_HZ + delay :]
    assert coherence(heard, said) > 0.6
    assert coherence(heard, said) > coherence(raw, said) + 0.2
    assert abs(level_db(heard) - level_db(said)) < 7.0
    alone = cleaned[2 * MIC_HZ : 4 * MIC_HZ]
    assert level_db(heard) > level_db(alone) + 20.0


@pytest.mark.parametrize("mode", ["on", "off", "device"])
@pytest.mark.parametrize("noise_suppression", [True, False])
@pytest.mark.parametrize("ms", [10, 20, 30, 100, 250])
def test_stamps_lengths_and_headers_stay(mode, noise_suppression, ms):
    canceller = EchoCanceller(EchoConfig(mode, noise_suppression))
    for sequence, chunk in enumerate(cut(pcm(speech(MIC_HZ, 0.5, seed=4)), MIC_HZ, ms)):
        chunk = AudioChunk(chunk.stamp_ns, chunk.data, MIC_HZ, sequence, frame_id="head")
        cleaned = canceller.clean(chunk)
        assert cleaned.stamp_ns == chunk.stamp_ns
        assert cleaned.sequence == sequence
        assert cleaned.frame_id == "head"
        assert cleaned.data.dtype == np.int16
        assert cleaned.data.shape == chunk.data.shape


@pytest.mark.parametrize("mode", ["off", "device"])
def test_off_and_device_pass_everything_untouched(mode, robot, monkeypatch):
    monkeypatch.setitem(sys.modules, "livekit", None)
    canceller = EchoCanceller(EchoConfig(mode))
    assert canceller.delay_ns == 0
    canceller.played(cut(robot, PLAYED_HZ, 20)[0])
    odd = AudioChunk(START_NS, np.arange(777, dtype=np.int16), 44_100)
    assert canceller.clean(odd) is odd


def test_noise_suppression_lowers_steady_noise_and_keeps_speech():
    person = speech(MIC_HZ, 6.0, seed=5)
    person[: 3 * MIC_HZ] = 0.0
    noise = np.random.default_rng(6).standard_normal(len(person)) * 300.0
    captured = cut(pcm(person + noise), MIC_HZ, 100)
    cleaned = joined(converse(EchoCanceller(EchoConfig("off", True)), captured, []))
    quiet = slice(2 * MIC_HZ, 3 * MIC_HZ)
    assert level_db(joined(captured)[quiet]) - level_db(cleaned[quiet]) > 6.0
    assert abs(level_db(cleaned[4 * MIC_HZ :]) - level_db(person[4 * MIC_HZ :])) < 3.0


@given(ms=st.sampled_from([10, 20, 50, 100, 300]), played_ms=st.sampled_from([7, 20, 64]))
@settings(max_examples=10, deadline=None)
def test_how_the_streams_are_cut_changes_nothing(robot, robot_at_mic_rate, ms, played_ms):
    seconds = slice(0, 3 * MIC_HZ // 2)
    captured = pcm(room(robot_at_mic_rate[:48_000], 30))[seconds]

    def run(mic_ms: int, reference_ms: int) -> np.ndarray:
        canceller = EchoCanceller(EchoConfig("on"))
        for chunk in cut(robot[:48_000], PLAYED_HZ, reference_ms):
            canceller.played(chunk)
        return joined([canceller.clean(chunk) for chunk in cut(captured, MIC_HZ, mic_ms)])

    assert np.array_equal(run(ms, played_ms), run(100, 20))


@given(lengths=st.lists(st.integers(1, 700), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None)
def test_chunks_of_any_length_give_the_same_sound_at_the_declared_delay(robot, lengths):
    echo = pcm(room(resample(robot[:24_000], PLAYED_HZ, MIC_HZ).astype(float), 30))

    def run(lengths: list[int]) -> tuple[np.ndarray, int]:
        canceller = EchoCanceller(EchoConfig("on"))
        for chunk in cut(robot[:24_000], PLAYED_HZ, 20):
            canceller.played(chunk)
        begin, cleaned = 0, []
        for length in lengths:
            data = echo[begin : begin + length]
            chunk = canceller.clean(AudioChunk(START_NS + begin * NS_PER_S // MIC_HZ, data))
            assert len(chunk.data) == len(data)
            cleaned.append(chunk.data)
            begin += length
        return np.concatenate(cleaned), round(canceller.delay_ns * MIC_HZ / NS_PER_S)

    total = sum(lengths)
    whole, least = run([1600] * 10 + [total])
    odd, delay = run([*lengths, 1600, 1600])
    assert 0 <= delay - least < 160
    # Silence was put in where a chunk came too early for its 10 ms, and no sample was lost.
    settled = slice(total, total + 3200)
    shifted = np.concatenate([np.zeros(delay - least, np.int16), whole])
    assert np.array_equal(odd[settled], shifted[settled][: len(odd) - total])


def test_scattered_stamps_do_no_harm(robot, robot_at_mic_rate):
    rng = np.random.default_rng(8)

    def scatter(chunks: list[AudioChunk]) -> list[AudioChunk]:
        return [
            AudioChunk(c.stamp_ns + int(rng.uniform(-2, 2) * NS_PER_MS), c.data, c.sample_rate)
            for c in chunks
        ]

    captured = scatter(cut(pcm(room(robot_at_mic_rate, 30)), MIC_HZ, 100))
    canceller = EchoCanceller(EchoConfig("on"))
    cleaned = converse(canceller, captured, scatter(cut(robot, PLAYED_HZ, 20)))
    before, after = joined(captured)[2 * MIC_HZ :], joined(cleaned)[2 * MIC_HZ :]
    assert level_db(before) - level_db(after) > 25.0
    assert canceller.stats.gaps == 0


def test_an_echo_before_its_stamps_is_taken_out_once_the_delay_is_declared(
    robot, robot_at_mic_rate
):
    """A speaker stamps its sound 80 ms later than it sounds: delay_ms says so."""
    captured = cut(pcm(room(robot_at_mic_rate, 10)), MIC_HZ, 100)
    late_stamps = cut(robot, PLAYED_HZ, 20, START_NS + 80 * NS_PER_MS)

    def reduction_db(delay_ms: float) -> float:
        canceller = EchoCanceller(EchoConfig("on", delay_ms=delay_ms))
        cleaned = converse(canceller, captured, late_stamps, arrives_ms=-200.0)
        return level_db(joined(captured)[32_000:]) - level_db(joined(cleaned)[32_000:])

    assert reduction_db(-80.0) > 25.0
    assert reduction_db(-80.0) > reduction_db(0.0) + 10.0


def test_a_reference_that_comes_too_late_is_counted(robot, robot_at_mic_rate):
    captured = cut(pcm(room(robot_at_mic_rate, 30)), MIC_HZ, 100)
    canceller = EchoCanceller(EchoConfig("on"))
    converse(canceller, captured, cut(robot, PLAYED_HZ, 20), arrives_ms=500.0)
    assert canceller.stats.late_ms == pytest.approx(7_500.0, abs=200.0)
    assert canceller.stats.reference_ms == 0.0


def test_the_reference_in_hand_is_declared(robot):
    canceller = EchoCanceller(EchoConfig("on"))
    assert canceller.reference_end_ns is None
    chunk = cut(robot, PLAYED_HZ, 20)[0]
    canceller.played(chunk)
    assert canceller.reference_end_ns == chunk.end_ns


@pytest.mark.parametrize("jump_ms", [-3_600_000, -700, 300, 3_600_000])
def test_after_a_jump_of_the_clock_the_echo_is_taken_out_again(robot, robot_at_mic_rate, jump_ms):
    echo = pcm(room(robot_at_mic_rate, 30))
    canceller = EchoCanceller(EchoConfig("on"))
    converse(canceller, cut(echo, MIC_HZ, 100), cut(robot, PLAYED_HZ, 20))
    start_ns = START_NS + 8 * NS_PER_S + jump_ms * NS_PER_MS
    captured = cut(echo, MIC_HZ, 100, start_ns)
    cleaned = converse(canceller, captured, cut(robot, PLAYED_HZ, 20, start_ns))
    assert canceller.stats.gaps == 1
    before, after = joined(captured)[2 * MIC_HZ :], joined(cleaned)[2 * MIC_HZ :]
    assert level_db(before) - level_db(after) > 25.0


def test_after_time_was_set_back_what_was_played_later_is_no_reference(robot):
    canceller = EchoCanceller(EchoConfig("on"))
    silence = np.zeros(4 * MIC_HZ, np.int16)
    converse(canceller, cut(silence, MIC_HZ, 100), cut(robot, PLAYED_HZ, 20))
    used_ms = canceller.stats.reference_ms
    assert used_ms > 1_000.0
    converse(canceller, cut(silence, MIC_HZ, 100, START_NS + 3 * NS_PER_S // 2), [])
    assert canceller.stats.reference_ms == used_ms


def test_played_stamps_of_another_clock_are_counted_and_left_out(robot):
    canceller = EchoCanceller(EchoConfig("on"))
    canceller.clean(AudioChunk(START_NS, np.zeros(1600, np.int16)))
    canceller.played(AudioChunk(START_NS + 3600 * NS_PER_S, robot[:480], PLAYED_HZ))
    assert canceller.stats.foreign_ms == pytest.approx(20.0)
    assert canceller.reference_end_ns is None


def test_a_stereo_reference_of_another_rate_serves_too(robot_at_mic_rate):
    robot = resample(pcm(robot_at_mic_rate), MIC_HZ, 44_100)
    stereo = np.stack([robot, robot], axis=1)
    captured = cut(pcm(room(robot_at_mic_rate, 40)), MIC_HZ, 100)
    cleaned = converse(EchoCanceller(EchoConfig("on")), captured, cut(stereo, 44_100, 20), -60.0)
    before, after = joined(captured)[2 * MIC_HZ :], joined(cleaned)[2 * MIC_HZ :]
    assert level_db(before) - level_db(after) > 25.0


def test_twice_the_same_is_the_same_bytes_also_after_a_reset(robot, robot_at_mic_rate):
    captured = cut(pcm(room(robot_at_mic_rate[:48_000], 30)), MIC_HZ, 100)
    played = cut(robot, PLAYED_HZ, 20)
    canceller = EchoCanceller(EchoConfig("on", noise_suppression=True))
    first = joined(converse(canceller, captured, played))
    canceller.reset()
    assert np.isnan(canceller.stats.reduction_db)
    assert np.array_equal(joined(converse(canceller, captured, played)), first)
    other = EchoCanceller(EchoConfig("on", noise_suppression=True))
    assert np.array_equal(joined(converse(other, captured, played)), first)


def test_what_was_played_is_not_kept_for_ever(robot):
    canceller = EchoCanceller(EchoConfig("on"))
    for k in range(5_000):
        canceller.played(AudioChunk(START_NS + k * 20 * NS_PER_MS, robot[:480], PLAYED_HZ))
    assert len(canceller._reference._pieces) < 2_000
    canceller.reset()
    for k in range(100):
        for part in range(5):
            stamp_ns = START_NS + (5 * k + part) * 20 * NS_PER_MS
            canceller.played(AudioChunk(stamp_ns, robot[:480], PLAYED_HZ))
        canceller.clean(AudioChunk(START_NS + k * 100 * NS_PER_MS, np.zeros(1600, np.int16)))
    assert len(canceller._reference._pieces) < 100


@pytest.mark.parametrize(
    ("chunk", "named"),
    [
        (AudioChunk(START_NS, np.zeros(480, np.int16), 48_000), "48000 Hz.*made for 16000 Hz"),
        (AudioChunk(START_NS, np.zeros((160, 2), np.int16)), "2 channels"),
        (AudioChunk(START_NS, np.zeros(160, np.float32)), "float32.*must be int16"),
    ],
)
def test_a_chunk_that_cannot_be_cleaned_is_refused_and_the_next_one_works(chunk, named):
    canceller = EchoCanceller(EchoConfig("on"))
    with pytest.raises(InputError, match=named):
        canceller.clean(chunk)
    good = AudioChunk(START_NS, np.zeros(160, np.int16))
    assert len(canceller.clean(good).data) == 160


def test_an_empty_chunk_is_no_matter():
    canceller = EchoCanceller(EchoConfig("on"))
    empty = AudioChunk(START_NS, np.zeros(0, np.int16))
    canceller.played(empty)
    assert canceller.clean(empty) is empty


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"mode": "loud"}, "'loud': must be one of off, on, device"),
        ({"delay_ms": 900.0}, "900.0: must be -200 to 500"),
        ({"delay_ms": float("nan")}, "nan"),
    ],
)
def test_a_wrong_setting_is_named(settings_, named):
    with pytest.raises(ConfigError, match=named):
        EchoConfig(**settings_)
    with pytest.raises(ConfigError, match="11025"):
        EchoCanceller(EchoConfig(), rate_hz=11_025)


def test_without_livekit_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "livekit", None)
    with pytest.raises(DeviceError, match="pip install livekit"):
        EchoCanceller(EchoConfig("on"))
