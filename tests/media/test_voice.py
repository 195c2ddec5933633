"""Speech is found where it is, other sound is not taken for it, and time is the sound's own."""

import subprocess
import sys
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError, DeviceError, InputError
from minicpmo_ros.media import silero
from minicpmo_ros.media.echo import EchoCanceller, EchoConfig
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.media.resample import resample
from minicpmo_ros.media.voice import VoiceConfig, VoiceDetector
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, AudioChunk, VoiceActivity

RATE_HZ = 16_000
START_NS = 1_700_000_000 * NS_PER_S + 7

try:
    SPEAKERS = [Synthesiser(voice) for voice in ("en-us", "en-us+f3", "en-gb+m3")]
    silero.SileroModel()
except DeviceError as missing:
    pytest.skip(str(missing), allow_module_level=True)


class LoudIsVoice:
    """A model that anybody can follow: the probability is the window's mean level."""

    name = "loud"

    def __init__(self) -> None:
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def probability(self, window: np.ndarray) -> float:
        assert window.shape == (512,)
        return float(np.abs(window.astype(float)).mean() / 10_000)


def plain(**changed: object) -> VoiceDetector:
    return VoiceDetector(VoiceConfig(**changed), model=LoudIsVoice())


def voice(ms: int, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.resize(np.array([10_000, -10_000], np.int16), rate_hz * ms // 1000)


def silence(ms: int, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.zeros(rate_hz * ms // 1000, np.int16)


def at(ms: float) -> int:
    return START_NS + round(ms * NS_PER_MS)


def cut(
    sound: np.ndarray, ms: int = 100, rate_hz: int = RATE_HZ, start_ns: int = START_NS
) -> list[AudioChunk]:
    n = rate_hz * ms // 1000
    return [
        AudioChunk(start_ns + k * NS_PER_S // rate_hz, sound[k : k + n], rate_hz)
        for k in range(0, len(sound), n)
    ]


def hear(detector: VoiceDetector, chunks: list[AudioChunk]) -> list[VoiceActivity]:
    return [event for chunk in chunks for event in detector.feed(chunk)]


def times_ms(events: list[VoiceActivity]) -> list[tuple[bool, float]]:
    return [(event.speaking, (event.stamp_ns - START_NS) / NS_PER_MS) for event in events]


# -- what is speech -------------------------------------------------------------------------


def sentence(
    speaker: Synthesiser, text: str = "Hello, can you tell me what you see?"
) -> np.ndarray:
    return resample(speaker.speak(text).data, 24_000, RATE_HZ)


def in_noise(sound: np.ndarray, snr_db: float, seed: int = 0) -> np.ndarray:
    """With pink noise that much below the speech's own level."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(len(sound)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1.0), len(sound))
    level = np.sqrt(np.mean(sound[np.abs(sound.astype(int)) > 100].astype(float) ** 2))
    noise *= level / 10 ** (snr_db / 20) / noise.std()
    return np.clip(sound + noise, -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.voice)
@pytest.mark.parametrize(
    ("detector", "snr_db"),
    [("silero", 40), ("silero", 10), ("silero", 5), ("energy", 40), ("energy", 15)],
)
def test_speech_is_found_once_and_where_it_is(speaker, detector, snr_db):
    said = sentence(speaker)
    sound = in_noise(np.concatenate([silence(2000), said, silence(1500)]), snr_db)
    events = hear(VoiceDetector(VoiceConfig(detector)), cut(sound))
    assert [event.speaking for event in events] == [True, False]
    began, ended = ((event.stamp_ns - START_NS) / NS_PER_MS for event in events)
    assert began == pytest.approx(2000, abs=160)
    assert ended == pytest.approx(2000 + len(said) / 16, abs=250)
    assert events[0].probability >= 0.5
    assert events[1].probability < 0.35
    assert -40.0 < events[0].loudness < 0.0


def no_speech(name: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    n = 6 * RATE_HZ
    t = np.arange(n) / RATE_HZ
    sounds = {
        "digital silence": np.zeros(n),
        "faint noise": 30 * rng.standard_normal(n),
        "loud noise": 3_000 * rng.standard_normal(n),
        "mains hum": 8_000 * np.sin(2 * np.pi * 50 * t) + 4_000 * np.sin(2 * np.pi * 150 * t),
        "a whistle": 8_000 * np.sin(2 * np.pi * 1_500 * t),
        "clicks": np.where(np.arange(n) % 4_000 < 16, 25_000.0, 0.0),
        "knocks": 15_000 * rng.standard_normal(n) * np.exp(-40 * (t % 0.7)),
        "plucked chords": sum(
            4_000 * np.sin(2 * np.pi * f * t) * np.exp(-4 * (t % 0.5)) for f in (262, 330, 392, 523)
        ),
        "a motor": 3_000 * np.sign(np.sin(2 * np.pi * 90 * t)) + 500 * rng.standard_normal(n),
    }
    return np.clip(sounds[name], -32768, 32767).astype(np.int16)


@pytest.mark.parametrize(
    "name",
    ["digital silence", "faint noise", "loud noise", "mains hum", "a whistle", "clicks", "knocks",
     "plucked chords", "a motor"],
)  # fmt: skip
def test_silero_takes_nothing_else_for_speech(name):
    assert hear(VoiceDetector(VoiceConfig("silero")), cut(no_speech(name))) == []


@pytest.mark.parametrize("name", ["digital silence", "faint noise", "mains hum", "clicks"])
def test_energy_takes_what_is_steady_or_short_for_no_speech(name):
    assert hear(VoiceDetector(VoiceConfig("energy")), cut(no_speech(name))) == []


def test_energy_gets_used_to_a_sound_that_stays():
    rng = np.random.default_rng(2)
    sound = np.concatenate(
        [20 * rng.standard_normal(2 * RATE_HZ), 600 * rng.standard_normal(8 * RATE_HZ)]
    ).astype(np.int16)
    events = hear(VoiceDetector(VoiceConfig("energy")), cut(sound))
    assert [event.speaking for event in events] == [True, False]
    assert events[1].stamp_ns < at(6_500)


def test_the_robot_is_not_taken_for_a_person_and_a_person_is_heard_over_the_robot():
    robot = Synthesiser("en-us").speak("I see a table, two chairs and a very large window. " * 4)
    echo = resample(robot.data, 24_000, RATE_HZ).astype(float)
    response = np.random.default_rng(3).standard_normal(3_200) * np.exp(-np.arange(3_200) / 400)
    echo = np.convolve(echo, 0.5 * response / np.linalg.norm(response))[: len(echo)]
    person = np.zeros(len(echo))
    interrupts_ms = 6_000
    said = sentence(SPEAKERS[1], "Stop, please be quiet now!").astype(float)
    person[16 * interrupts_ms : 16 * interrupts_ms + len(said)] = said

    def events(sound: np.ndarray, mode: str) -> list[VoiceActivity]:
        canceller, detector = EchoCanceller(EchoConfig(mode)), VoiceDetector(VoiceConfig("silero"))
        for chunk in cut(robot.data, 20, 24_000):
            canceller.played(chunk)
        chunks = cut(np.clip(sound, -32768, 32767).astype(np.int16))
        return hear(detector, [canceller.clean(chunk) for chunk in chunks])

    assert events(echo, "off") != []
    assert events(echo, "on") == []
    started = events(echo + person, "on")[0]
    assert (started.stamp_ns - START_NS) / NS_PER_MS == pytest.approx(interrupts_ms, abs=250)


# -- time -----------------------------------------------------------------------------------


def test_stamps_are_of_the_sound():
    sound = np.concatenate([silence(960), voice(640), silence(1000)])
    events = hear(plain(), cut(sound))
    assert times_ms(events) == [(True, 960.0), (False, 1600.0)]


def test_speech_that_goes_on_is_visible_between_events():
    detector = plain()
    assert detector.speaking_since_ns is None
    assert detector.voiced_until_ns == 0
    hear(detector, cut(np.concatenate([silence(320), voice(320)]), ms=32))
    assert detector.speaking_since_ns == at(320)
    assert detector.voiced_until_ns == at(640)
    assert detector.probability == pytest.approx(1.0)
    hear(detector, cut(silence(640), ms=32, start_ns=at(640)))
    assert detector.speaking_since_ns is None


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_another_rate_or_channels_give_the_same_times(rate_hz, channels):
    tone = 15_700 * np.sin(2 * np.pi * 440 * np.arange(rate_hz * 640 // 1000) / rate_hz)
    sound = np.concatenate([silence(960, rate_hz), tone.astype(np.int16), silence(1000, rate_hz)])
    if channels == 2:
        sound = np.stack([sound, sound], axis=1)
    began, ended = times_ms(hear(plain(), cut(sound, 100, rate_hz)))
    # To within a window, whose borders the converter's delay moves.
    assert began == (True, pytest.approx(960.0, abs=33.0))
    assert ended == (False, pytest.approx(1600.0, abs=33.0))


@given(
    lengths=st.lists(st.integers(1, 4_000), min_size=1, max_size=40),
    rate_hz=st.sampled_from([16_000, 44_100]),
    detector=st.sampled_from(["silero", "energy"]),
)
@settings(max_examples=30, deadline=None)
def test_how_sound_is_cut_changes_nothing(lengths, rate_hz, detector):
    said = SPEAKERS[0].speak("Go left. No, wait!").data
    sound = np.concatenate([silence(500, rate_hz), resample(said, 24_000, rate_hz)])
    sound = np.concatenate([sound, silence(700, rate_hz)])
    pieces, begin = [], 0
    while begin < len(sound):
        length = lengths[len(pieces) % len(lengths)]
        stamp_ns = START_NS + begin * NS_PER_S // rate_hz
        pieces.append(AudioChunk(stamp_ns, sound[begin : begin + length], rate_hz))
        begin += length
    whole = hear(VoiceDetector(VoiceConfig(detector)), [AudioChunk(START_NS, sound, rate_hz)])
    assert whole != []
    assert hear(VoiceDetector(VoiceConfig(detector)), pieces) == whole


def test_stamps_that_scatter_end_nothing():
    rng = np.random.default_rng(4)
    chunks = [
        AudioChunk(chunk.stamp_ns + int(rng.uniform(-9, 9) * NS_PER_MS), chunk.data)
        for chunk in cut(np.concatenate([silence(960), voice(6_400), silence(1000)]))
    ]
    began, ended = times_ms(hear(plain(), chunks))
    assert began == (True, pytest.approx(960.0, abs=42.0))
    assert ended == (False, pytest.approx(7360.0, abs=42.0))


def test_stamps_that_drift_away_from_the_samples_are_followed():
    # A microphone whose clock is 1 part in 1000 slow: 60 s of its sound last 60.06 s.
    sound = np.concatenate([silence(57_600), voice(960), silence(1_440)])
    chunks = [
        AudioChunk(START_NS + (chunk.stamp_ns - START_NS) * 1001 // 1000, chunk.data)
        for chunk in cut(sound)
    ]
    began, _ = times_ms(hear(plain(), chunks))
    assert began == (True, pytest.approx(57_657.6, abs=4.0))


# -- gaps, repeats, jumps -------------------------------------------------------------------


def test_a_long_gap_ends_speech_where_it_was_heard_last():
    detector = plain()
    events = hear(detector, cut(voice(640)))
    events += hear(detector, cut(voice(640), start_ns=at(5_000)))
    assert times_ms(events) == [(True, 0.0), (False, 640.0), (True, 5_000.0)]
    assert [event.segment for event in events] == [1, 1, 2]


def test_a_chunk_lost_on_the_way_ends_nothing_and_moves_no_time():
    chunks = cut(np.concatenate([silence(960), voice(1_600), silence(960)]))
    events = hear(plain(), chunks[:15] + chunks[16:])
    assert times_ms(events) == [(True, 960.0), (False, 2_560.0)]


def test_a_chunk_that_comes_again_or_too_late_is_ignored():
    chunks = cut(np.concatenate([silence(960), voice(1_600), silence(960)]), ms=20)
    repeated = [chunk for k, chunk in enumerate(chunks) for _ in range(1 + k % 3)]
    assert times_ms(hear(plain(), repeated)) == [(True, 960.0), (False, 2_560.0)]
    late = [*chunks[:70], chunks[62], *chunks[70:]]
    assert times_ms(hear(plain(), late)) == [(True, 960.0), (False, 2_560.0)]


def test_an_overlap_is_cut():
    sound = np.concatenate([silence(960), voice(1_600), silence(960)])
    first = AudioChunk(START_NS, sound[: 1_600 * 16])
    second = AudioChunk(at(1_280), sound[1_280 * 16 :])
    assert times_ms(hear(plain(), [first, second])) == [(True, 960.0), (False, 2_560.0)]


def test_time_that_goes_back_ends_speech_and_begins_anew():
    detector = plain()
    events = hear(detector, cut(voice(3_200)))
    assert detector.speaking_since_ns == START_NS
    events += hear(detector, cut(np.concatenate([silence(320), voice(320)]), start_ns=at(-60_000)))
    assert times_ms(events) == [(True, 0.0), (False, 3_200.0), (True, -59_680.0)]


def test_a_change_of_rate_ends_speech_and_begins_anew():
    detector = plain()
    events = hear(detector, cut(voice(640)))
    events += detector.feed(AudioChunk(at(640), silence(1000, 48_000), 48_000))
    assert times_ms(events) == [(True, 0.0), (False, 640.0)]


def test_the_model_forgets_at_a_gap():
    model = LoudIsVoice()
    detector = VoiceDetector(VoiceConfig(), model=model)
    hear(detector, cut(voice(500)))
    before = model.resets
    hear(detector, cut(voice(500), start_ns=at(9_000)))
    assert model.resets == before + 1


@pytest.mark.parametrize("name", ["silero", "energy"])
def test_after_a_reset_everything_is_heard_as_the_first_time(name):
    sound = np.concatenate([silence(500), sentence(SPEAKERS[0]), silence(700)])
    detector = VoiceDetector(VoiceConfig(name))
    first = hear(detector, cut(sound))
    hear(detector, cut(sound[: len(sound) // 2], start_ns=at(10_000)))
    detector.reset()
    assert detector.speaking_since_ns is None
    again = hear(detector, cut(sound))
    assert [(e.stamp_ns, e.probability) for e in again] == [
        (e.stamp_ns, e.probability) for e in first
    ]
    assert again[0].segment > first[-1].segment


# -- settings and bad input -----------------------------------------------------------------


def test_a_longer_least_silence_joins_sentences():
    sound = np.concatenate([voice(640), silence(480), voice(640), silence(1000)])
    assert len(hear(plain(min_silence_ms=300.0), cut(sound))) == 4
    assert len(hear(plain(min_silence_ms=600.0), cut(sound))) == 2


@pytest.mark.parametrize(
    "chunk",
    [
        AudioChunk(START_NS, np.full(1600, np.nan, np.float32)),
        AudioChunk(START_NS, np.zeros((2, 2, 2), np.int16)),
        AudioChunk(START_NS, np.zeros(1600, np.int16), 0),
        AudioChunk(START_NS, np.zeros(1600, np.int16), 2_000_000),
    ],
)
def test_bad_sound_is_refused_and_good_sound_goes_on(chunk):
    detector = plain()
    events = hear(detector, cut(voice(640)))
    with pytest.raises(InputError, match="must be"):
        detector.feed(chunk)
    events += hear(detector, cut(silence(960), start_ns=at(640)))
    assert times_ms(events) == [(True, 0.0), (False, 640.0)]


def test_an_empty_chunk_and_a_huge_one_are_no_matter():
    detector = plain()
    assert detector.feed(AudioChunk(at(-90_000), np.zeros(0, np.int16))) == []
    sound = np.concatenate([silence(200_000), voice(640), silence(100_000)])
    assert times_ms(detector.feed(AudioChunk(START_NS, sound))) == [
        (True, 200_000.0),
        (False, 200_640.0),
    ]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"detector": "ears"}, "'ears': must be one of auto, silero, energy"),
        ({"start_threshold": 1.5}, "start_threshold is 1.5: must be 0.01 to 0.99"),
        ({"stop_threshold": 0.6}, "stop_threshold is 0.6: must not be above"),
        ({"min_silence_ms": float("nan")}, "min_silence_ms is nan"),
        ({"min_speech_ms": -1.0}, "min_speech_ms is -1.0"),
    ],
)
def test_a_wrong_setting_is_named(wrong, named):
    with pytest.raises(ConfigError, match=named):
        VoiceConfig(**wrong)


def test_auto_is_silero_where_it_is_installed():
    detector = VoiceDetector()
    assert detector.detector == "silero"
    assert detector.fallback_reason == ""


def test_the_package_is_found_without_importing_it():
    code = (
        "import sys; from minicpmo_ros.media.voice import VoiceConfig, VoiceDetector; "
        "VoiceDetector(VoiceConfig('silero')); "
        "print([name for name in ('silero_vad', 'torch') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert printed.strip() == b"[]"


@pytest.mark.parametrize("spec", [None, ModuleSpec("silero_vad", None)])
def test_without_the_package_silero_says_what_to_install_and_auto_is_energy(monkeypatch, spec):
    monkeypatch.setattr(silero, "find_spec", lambda name: spec)
    with pytest.raises(DeviceError, match="pip install --no-deps silero-vad"):
        VoiceDetector(VoiceConfig("silero"))
    detector = VoiceDetector(VoiceConfig("auto"))
    assert detector.detector == "energy"
    assert "pip install --no-deps silero-vad" in detector.fallback_reason


def test_without_onnxruntime_silero_says_what_to_install_and_auto_is_energy(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match="pip install onnxruntime"):
        VoiceDetector(VoiceConfig("silero"))
    assert VoiceDetector(VoiceConfig("auto")).detector == "energy"


def test_silero_gets_64_samples_of_context_and_its_state():
    import onnxruntime

    session = onnxruntime.InferenceSession(str(silero.find_model()))
    sound = sentence(SPEAKERS[0])[: 60 * 512]
    padded = np.concatenate([np.zeros(64, np.float32), sound.astype(np.float32) / 32768])
    state = np.zeros((2, 1, 128), np.float32)
    expected = []
    for begin in range(0, len(sound), 512):
        window = padded[None, begin : begin + 64 + 512]
        output, state = session.run(
            None, {"input": window, "state": state, "sr": np.array(RATE_HZ, np.int64)}
        )
        expected.append(output[0, 0])
    model = silero.SileroModel()
    heard = [model.probability(sound[k : k + 512]) for k in range(0, len(sound), 512)]
    assert np.allclose(heard, expected, atol=1e-4)
    assert max(expected) > 0.9


def test_a_broken_model_file_is_named(tmp_path):
    (tmp_path / "silero_vad.onnx").write_bytes(b"not a network")
    with pytest.raises(DeviceError, match=r"silero_vad\.onnx cannot be run"):
        silero.SileroModel(tmp_path / "silero_vad.onnx")
