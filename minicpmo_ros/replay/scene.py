"""The demo's recording: a drawn world, and a person who asks, listens, interrupts and gives thanks.

Everything is made by code and every run makes the same bag. It holds what a robot meets: questions,
something that it is asked to watch for and that comes, an interruption while it speaks, a hand on
the lens, a bang.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.media.resample import resample
from minicpmo_ros.media.world.drawing import draw
from minicpmo_ros.media.world.looks import Look
from minicpmo_ros.media.world.things import Life, Thing
from minicpmo_ros.media.world.things import Scene as World
from minicpmo_ros.messages import MIC_RATE_HZ, NS_PER_S, AudioChunk
from minicpmo_ros.replay.bag_writer import JPEG_QUALITY, BagWriter
from minicpmo_ros.replay.from_video import START_NS
from minicpmo_ros.replay.progress import Progress, no_progress
from minicpmo_ros.topics import MIC

LENGTH_S = 56.0
PICTURE_HZ = 10
CHUNK = MIC_RATE_HZ // 10
WIDTH, HEIGHT = 640, 480
FRAME_ID = "demo"

PERSON_VOICE = "en-gb+f3"
PERSON_RATE_WPM = 165
SPEECH_PEAK = 0.25  # of full scale: somebody a metre away
NOISE_DBFS = -62.0  # a quiet room

CUP_COMES_S = 21.4
COVERED_S = (41.0, 46.0)
BANG_S = 48.3
COVER_TIME_S = 0.3  # a hand takes so long to close over the lens

_HAND_RGB = np.array([34.0, 14.0, 11.0], np.float32)  # light through fingers


@dataclass(frozen=True)
class Line:
    """What the person says. Either its start or its end is fixed, the voice's pace gives the other.

    A brain of one-second units answers a turn at the end of the unit in which it is sure that the
    turn is over: a line that ends early in a second is answered at the next full one.
    """

    text: str
    starts_s: float | None = None
    ends_s: float | None = None


LINES = (
    Line("Hello robot.", ends_s=3.2),
    Line("What do you see?", ends_s=7.3),
    Line("Tell me when a yellow cup appears.", ends_s=14.3),
    # It does, and the robot says so; then:
    Line("Where is the cup?", ends_s=27.3),
    Line("Tell me a story.", ends_s=32.3),
    # The story begins at 33 s, so this one falls into the middle of a sentence.
    Line("Wait, wait! Please stop.", starts_s=35.4),
    Line("Thank you.", ends_s=52.2),
)
WORLD = World(
    (
        Life(Thing("ball", "red", "big", 0.17, 0.62)),
        Life(Thing("box", "blue", "big", 0.82, 0.6)),
        Life(Thing("cup", "yellow", "big", 0.5, 0.64), enters_s=CUP_COMES_S),
    )
)
LOOK = Look("brick", 3, vignette=0.15)


@dataclass(frozen=True)
class Spoken:
    """A line as it sounds in the scene, in seconds from its start."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Scene:
    """What was written. lines: who says what when."""

    bag: Path
    length_s: float
    lines: tuple[Spoken, ...]


def write_scene(
    out: str | Path,
    *,
    start_ns: int = START_NS,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Scene:
    """Write the scene as a bag: VGA pictures at 10 Hz, 16 kHz sound.

    Raises `DeviceError` where espeak-ng is missing, `InputError` where out exists.
    """
    sound, lines = scene_sound()
    with BagWriter(out, overwrite=overwrite) as bag:
        for i, picture in enumerate(scene_pictures()):
            at_ns = start_ns + i * NS_PER_S // PICTURE_HZ
            bag.write_jpeg(at_ns, at_ns, encode_jpeg(picture, JPEG_QUALITY), FRAME_ID)
            chunk = AudioChunk(
                at_ns, sound[i * CHUNK : (i + 1) * CHUNK], MIC_RATE_HZ, i, frame_id=FRAME_ID
            )
            bag.write(MIC, chunk.end_ns, chunk)
            progress((i + 1) / PICTURE_HZ)
    return Scene(bag.path, LENGTH_S, lines)


def scene_pictures() -> Iterator[np.ndarray]:
    """Every picture of the scene, uint8 RGB [480, 640, 3]."""
    rng = np.random.default_rng(7)
    things: tuple[Thing, ...] | None = None
    for i in range(round(LENGTH_S * PICTURE_HZ)):
        at_s = i / PICTURE_HZ
        if WORLD.at(at_s) != things:  # nothing else moves
            things = WORLD.at(at_s)
            rgb = draw(things, LOOK, at_s, (WIDTH, HEIGHT), rng=rng)
        open_part = max(COVERED_S[0] - at_s, at_s - COVERED_S[1]) / COVER_TIME_S
        yield rgb if open_part >= 1.0 else _under_hand(rgb, max(0.0, open_part))


def scene_sound() -> tuple[np.ndarray, tuple[Spoken, ...]]:
    """The microphone's sound, int16 [samples] at 16 kHz, and the lines in it."""
    rng = np.random.default_rng(7)
    sound = _room_noise(rng)
    lines = []
    voice = Synthesiser(voice=PERSON_VOICE, rate_wpm=PERSON_RATE_WPM)
    for line in LINES:
        spoken = voice.speak(line.text)
        speech = resample(spoken.data, spoken.rate_hz, MIC_RATE_HZ).astype(np.float32)
        speech *= SPEECH_PEAK * 32768.0 / max(1.0, float(np.abs(speech).max()))
        length_s = len(speech) / MIC_RATE_HZ
        start_s = line.starts_s if line.ends_s is None else line.ends_s - length_s
        assert start_s is not None, f"line {line.text!r} has neither start nor end"
        first = round(start_s * MIC_RATE_HZ)
        sound[first : first + len(speech)] += speech
        lines.append(Spoken(line.text, start_s, start_s + length_s))
    bang = _bang(rng)
    first = round(BANG_S * MIC_RATE_HZ)
    sound[first : first + len(bang)] += bang
    return np.clip(np.rint(sound), -32768, 32767).astype(np.int16), tuple(lines)


def _room_noise(rng: np.random.Generator) -> np.ndarray:
    """float32 [samples]: noise whose power falls with frequency, as of a fan next door."""
    samples = round(LENGTH_S * MIC_RATE_HZ)
    spectrum = np.fft.rfft(rng.normal(size=samples))
    hz = np.fft.rfftfreq(samples, 1 / MIC_RATE_HZ)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(hz, 50.0)), samples)
    level = 32768.0 * 10 ** (NOISE_DBFS / 20)
    return (noise * (level / np.sqrt(np.mean(noise**2)))).astype(np.float32)


def _bang(rng: np.random.Generator) -> np.ndarray:
    """float32 [samples]: a door that slams; a dull burst that dies away within 0.4 s."""
    samples = round(0.4 * MIC_RATE_HZ)
    at_s = np.arange(samples) / MIC_RATE_HZ
    dull = np.convolve(rng.normal(size=samples), np.ones(12) / 12, "same")
    bang = dull * np.exp(-at_s / 0.06)
    return (bang * (0.8 * 32768.0 / np.abs(bang).max())).astype(np.float32)


def _under_hand(rgb: np.ndarray, open_part: float) -> np.ndarray:
    """The picture with a hand over the lens; open_part: 0 (closed) to 1."""
    mixed = rgb.astype(np.float32) * open_part**2 + _HAND_RGB * (1.0 - open_part**2)
    return np.rint(mixed).astype(np.uint8)
