"""A turn in chunks: the reference's samples, the whole sound's samples, and nothing left over."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.model.hift.history import OVERLAP, Array, Rendered, seeded_noise
from minicpmo_ros.model.hift.stream import VocoderStream
from tests.model.decoders import DATA, relative_error
from tests.model.hift_network import SMALL, frames, noise, small_vocoder

SIZE = SMALL.samples_per_frame
SILENCE = OVERLAP * SIZE
CHUNKS = [10, 3, 17, 24, 5]


def stream(**options: object) -> VocoderStream:
    return VocoderStream(small_vocoder().render, SMALL, **options)  # type: ignore[arg-type]


def spoken(of: VocoderStream, chunks: list[int], turn: int = 2) -> list[Array]:
    """A turn of so many frames a chunk, the last of which ends it."""
    mel, ends = frames(sum(chunks), turn), np.cumsum([0, *chunks]).tolist()
    return [of.push(mel[:, a:b], last=b == ends[-1]) for a, b in pairwise(ends)]


def whole(count: int, turn: int = 2, **options: object) -> Array:
    return stream(**options).push(frames(count, turn), last=True)


def error_db(found: Array, expected: Array) -> float:
    power = np.mean(np.square(found - expected)) / np.mean(np.square(expected))
    return float(10 * np.log10(power + 1e-20))


def test_chunks_are_the_references_sample_by_sample() -> None:
    reference = np.load(DATA / "hift.npz")
    found = spoken(stream(noise=noise, reference_compat=True), reference["chunks"].tolist())
    assert [len(chunk) for chunk in found] == reference["lengths"].tolist()
    assert relative_error(np.concatenate(found), reference["stream"]) < 5e-4


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("silence", [False, True])
def test_all_chunks_but_the_first_and_the_last_are_as_long_as_their_frames(
    compat: bool, silence: bool
) -> None:
    of = stream(reference_compat=compat, lead_silence=silence)
    lengths = [len(chunk) for chunk in spoken(of, CHUNKS)]
    first = CHUNKS[0] - (0 if silence else OVERLAP)
    assert lengths == [SIZE * n for n in (first, *CHUNKS[1:-1], CHUNKS[-1] + OVERLAP)]


def test_the_silence_in_front_is_all_that_it_adds() -> None:
    with_silence = np.concatenate(spoken(stream(), CHUNKS))
    without = np.concatenate(spoken(stream(lead_silence=False), CHUNKS))
    assert not with_silence[:SILENCE].any()
    assert np.array_equal(with_silence[SILENCE:], without)


@pytest.mark.parametrize(
    "chunks",
    [CHUNKS, [8, 1, 1, 1, 40, 8], [50, 50, 20], [16, 24, 50, 1], [3, 2, 4, 30, 20], [10] * 12],
)
def test_streamed_speech_is_the_whole_sound(chunks: list[int]) -> None:
    """Behind a cross-fade it equals it; before one, sound was made without what follows."""
    found = np.concatenate(spoken(stream(lead_silence=False), chunks))
    expected = whole(sum(chunks))
    assert len(found) == len(expected)
    assert error_db(found, expected) < -30
    border = (sum(chunks) - chunks[-1]) * SIZE
    assert relative_error(found[border:], expected[border:]) < 1e-3


def test_pitch_and_phase_go_on_as_in_the_whole_sound() -> None:
    """Long after a border nothing tells that there was one; the reference's phase is another."""
    chunks = [40, 40]
    far = slice(-22 * SIZE, None)
    found = np.concatenate(spoken(stream(), chunks))
    assert relative_error(found[far], whole(80)[far]) < 1e-3
    theirs = np.concatenate(spoken(stream(reference_compat=True), chunks))
    assert error_db(theirs[far], whole(80, reference_compat=True)[far]) > -10


def test_only_what_begins_with_the_turn_is_told_that_it_does() -> None:
    told: list[bool] = []

    def step(*given: object) -> Rendered:
        told.append(given[4])  # type: ignore[arg-type]
        return small_vocoder().render(*given)  # type: ignore[arg-type]

    spoken(VocoderStream(step, SMALL), [9, 2, 1, 1])
    assert told == [True, True, False, False]


def borders(chunks: list[int]) -> list[int]:
    """Samples at which a cross-fade starts, or ends, without silence in front."""
    starts = [SIZE * (end - OVERLAP) for end in np.cumsum(chunks)[:-1]]
    return [start + SIZE * place for start in starts for place in (0, OVERLAP - 5, OVERLAP)]


def test_no_border_jumps() -> None:
    chunks = [20, 12, 30, 25, 13]
    found, expected = np.concatenate(spoken(stream(lead_silence=False), chunks)), whole(100)
    for border in borders(chunks):
        near = slice(border - 3, border + 3)
        jump, of_whole = (np.abs(np.diff(sound[near])).max() for sound in (found, expected))
        assert jump < of_whole + 0.05 * np.abs(np.diff(expected)).max()


def test_no_border_crackles() -> None:
    """A click is wide-band: around each border there is no more above 8 kHz than in the whole."""
    chunks = [20, 12, 30, 25, 13]
    found, expected = np.concatenate(spoken(stream(lead_silence=False), chunks)), whole(100)

    def high(sound: Array, border: int) -> float:
        piece = sound[border - 128 : border + 128] * np.hanning(256)
        return float(np.sum(np.abs(np.fft.rfft(piece))[256 * 8 // 24 :] ** 2))

    for border in borders(chunks):
        assert high(found, border) < 1.2 * high(expected, border)


def hum(mel: Array, known_f0: Array, known_source: Array, *_: object) -> Rendered:
    """In place of a network: a tone whose phase is written in the frames."""
    places = mel[0].astype(np.float64)[:, None] * SIZE + np.arange(SIZE)
    tone = 0.5 * np.sin(2 * np.pi * 220 * places / SMALL.rate_hz)
    cycles = np.zeros((mel.shape[1], SMALL.harmonics), np.float32)
    return Rendered(tone.astype(np.float32), np.zeros_like(known_f0), known_source * 0, cycles)


@pytest.mark.parametrize("compat, gain", [(False, 1.0), (True, 1.08)])
def test_a_tone_stays_as_it_is_through_every_cross_fade(compat: bool, gain: float) -> None:
    of = VocoderStream(hum, SMALL, reference_compat=compat, lead_silence=False)
    mel = np.zeros((SMALL.mels, 60), np.float32)
    mel[0] = np.arange(60)
    ends = [0, 9, 20, 21, 45, 60]
    found = np.concatenate([of.push(mel[:, a:b], last=b == 60) for a, b in pairwise(ends)])
    tone, overlap = 0.5 * np.sin(2 * np.pi * 220 * np.arange(60 * SIZE) / SMALL.rate_hz), 37 * SIZE
    faded = slice(overlap, overlap + SILENCE)
    np.testing.assert_allclose(found[faded], gain * tone[faded], atol=1e-4)
    np.testing.assert_allclose(found[46 * SIZE :], tone[46 * SIZE :], atol=1e-6)


def test_a_start_of_few_frames_waits_for_more() -> None:
    of = stream()
    assert len(of.push(frames(3))) == 0 and len(of.push(frames(4))) == 0
    assert of.held == 0
    assert len(of.push(frames(1))) == SILENCE
    assert of.held == SILENCE


def test_a_turn_of_few_frames_is_said_whole() -> None:
    of = stream()
    of.push(frames(5)[:, :2])
    found = of.push(frames(5)[:, 2:], last=True)
    assert np.array_equal(found, whole(5, turn=0))


def test_an_end_without_frames_gives_what_was_held_back() -> None:
    of, mel = stream(lead_silence=False), frames(20)
    first = of.push(mel)
    end = of.push(mel[:, :0], last=True)
    assert np.array_equal(np.concatenate((first, end)), whole(20, turn=0))
    assert len(of.push(mel[:, :0], last=True)) == 0


@pytest.mark.parametrize("compat", [False, True])
def test_a_turn_sounds_the_same_after_another_and_after_a_reset(compat: bool) -> None:
    of = stream(reference_compat=compat)
    first = np.concatenate(spoken(of, CHUNKS))
    spoken(of, [30, 9, 2], turn=3)
    assert np.array_equal(np.concatenate(spoken(of, CHUNKS)), first)
    of.push(frames(30))
    of.push(frames(4))
    of.reset()
    of.push(frames(4))
    of.reset()
    assert of.held == 0
    assert np.array_equal(np.concatenate(spoken(of, CHUNKS)), first)


def test_a_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, same, other = (whole(12, seed=seed) for seed in (0, 0, 1))
    assert first.tobytes() == same.tobytes() != other.tobytes()


def test_noise_belongs_to_a_frame_however_it_is_asked_for() -> None:
    of = seeded_noise(7, SMALL)
    pieces = [of(2, 3), of(3, 3), of(3, 8)]
    assert np.array_equal(np.concatenate(pieces), of(2, 8))
    long = of(0, 100)
    assert long.dtype == np.float32 and long.shape == (100, SIZE, SMALL.harmonics)
    assert abs(long.mean()) < 0.01 and abs(long.std() - 1) < 0.01


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_is_a_number_of_64_bits(seed: int) -> None:
    with pytest.raises(ConfigError, match=r"seed is -?\d+, not 0 to 2\*\*64 - 1"):
        stream(seed=seed)


NAN = frames(6)
NAN[2, 3] = np.nan


@pytest.mark.parametrize(
    "mel, message",
    [
        (frames(4)[:7], r"are \[7, 4\], not \[20, frames\]"),
        (frames(4)[0], r"are \[4\], not \[20, frames\]"),
        (frames(4)[None], r"are \[1, 20, 4\], not \[20, frames\]"),
        (np.zeros((20, 3), np.int64), r"are int64, not float32"),
        (NAN, r"1 of 6 mel frames have values NaN or infinite"),
        (np.full((20, 2), np.inf), r"2 of 2 mel frames have values NaN or infinite"),
    ],
)
def test_frames_of_no_use_are_refused_and_change_nothing(mel: np.ndarray, message: str) -> None:
    of, good = stream(), frames(30)
    first = of.push(good[:, :12])
    with pytest.raises(InputError, match=message):
        of.push(mel)
    rest = of.push(good[:, 12:], last=True)
    expected = np.concatenate(spoken(stream(), [12, 18], turn=0))
    assert np.array_equal(np.concatenate((first, rest)), expected)


def test_a_stream_needs_no_torch() -> None:
    module = "minicpmo_ros.model.hift.stream"
    check = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
