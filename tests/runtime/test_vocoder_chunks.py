"""From codes to samples in chunks: against the whole turn at once, and against other chunks.

The networks are small and random. Tolerances are those that docs/model.md states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from minicpmo_ros.duplex.vocoding import CODES_PER_SECOND, RATE_HZ, SAMPLES_PER_CODE, CodeStream
from minicpmo_ros.model.flow.config import SILENCE
from minicpmo_ros.model.flow.rows import Forget
from minicpmo_ros.model.flow.stream import FlowOptions, FlowStream
from minicpmo_ros.model.flow.tiny import TINY, random_flow
from minicpmo_ros.model.hift.history import OVERLAP, UNKNOWN, Array, Rendered, seeded_noise
from minicpmo_ros.model.hift.vocoder import Vocoder
from minicpmo_ros.model.hift.weights import PREFIX, folded
from minicpmo_ros.runtime.vocoder import LOOK_AHEAD, VocoderNetworks, VoiceVocoder
from minicpmo_ros.runtime.voices.reference import ReferenceVoice
from tests.model.flow_network import at_once, codes, said, voice
from tests.model.hift_network import SMALL, published

FLOW = random_flow(replace(TINY, mels=80, voice=192), seed=1)
HIFT = replace(SMALL, mels=80)
PROMPT = voice(60, config=FLOW.config)
STEPS = 4
SIZE = HIFT.samples_per_frame
LONG, EARLY, TIGHT = (25,), (8, 17, 25), (8, 12, 25)
# Frames on either side of a cross-fade's start that sound otherwise as long as their chunk lacks
# what follows it: those before it are out by then, the others fade into what is right.
NEAR = 7
# Samples of a spectrum, and its bin at 8 kHz: a click has more above it than speech has.
SPECTRUM = 256
HIGH = SPECTRUM * 8_000 // RATE_HZ


@cache
def hift() -> Vocoder:
    """Weights such that samples follow the frames as closely as the pitch; those of the other tests
    hardly hear what is in a frame."""
    tensors = folded({name: torch.from_numpy(x) for name, x in published(HIFT).items()})
    tensors["conv_pre.weight"] = 20 * tensors["conv_pre.weight"]
    vocoder = Vocoder(HIFT)
    names = vocoder.state_dict()
    vocoder.load_state_dict({name: tensors[name.removeprefix(PREFIX)] for name in names})
    return vocoder.requires_grad_(False).eval()


def turn(count: int, seed: int) -> NDArray[np.int64]:
    """Codes that begin with the silence which the prompt was read before."""
    return np.concatenate(([SILENCE] * LOOK_AHEAD, codes(seed, count - LOOK_AHEAD)))


def whole(mel: Array, f0: Array | None = None) -> Rendered:
    """Frames [frames, mels] as sound, all at once; f0: Hz [frames], in place of what they say."""
    count = len(mel)
    return hift().render(
        np.ascontiguousarray(mel.T),
        np.full(count, UNKNOWN, np.float32) if f0 is None else f0,
        np.full((count, SIZE), UNKNOWN, np.float32),
        np.zeros(HIFT.harmonics, np.float32),
        True,
        seeded_noise(0, HIFT)(0, count),
    )


def off(found: Array, expected: Array) -> float:
    """Root of the mean square of the difference, as a share of that of what is expected."""
    return float(np.sqrt(np.mean(np.square(found - expected)) / np.mean(np.square(expected))))


class Chunks(VoiceVocoder):
    """Remembers how many codes each chunk turned into sound."""

    def __init__(self) -> None:
        prompt = ReferenceVoice("a voice", PROMPT.tokens, PROMPT.voice, PROMPT.mel)
        networks = VocoderNetworks(FLOW, hift().render, HIFT)
        super().__init__(networks, prompt, steps=STEPS)
        self.said: list[int] = []

    def stream(self, codes: Sequence[int], last: bool) -> NDArray[np.float32]:
        self.said.append(len(codes) - (0 if last else LOOK_AHEAD))
        return super().stream(codes, last)


@cache
def spoken(schedule: tuple[int, ...]) -> tuple[Array, Array, tuple[int, ...]]:
    """A turn code by code, as a mouth gives them, and what the same chunks are all at once: samples
    of both, and the frames at which chunks end. It ends before anything of it is forgotten."""
    vocoder = Chunks()
    stream, ids, sound = CodeStream(vocoder, schedule), turn(72, seed=2), []
    for number, code in enumerate(ids.tolist(), 1):
        sound.append(stream.feed([code]))
        if number % CODES_PER_SECOND == 0:
            sound.append(stream.flush(last=False))
    sound.append(stream.flush(last=True))
    mel = at_once(FLOW, PROMPT, ids, steps=STEPS, seed=0, chunks=vocoder.said)
    ends = tuple(2 * int(end) for end in np.cumsum(vocoder.said)[:-1])
    return np.concatenate(sound), whole(mel).samples.ravel(), ends


@pytest.mark.parametrize("schedule", [EARLY, TIGHT, LONG])
def test_a_turn_code_by_code_is_the_turn_at_once(schedule: tuple[int, ...]) -> None:
    found, expected, ends = spoken(schedule)
    assert len(found) == len(expected) == 72 * SAMPLES_PER_CODE and len(ends) >= 2
    difference = np.abs(found - expected).reshape(-1, SIZE).max(axis=1) / np.abs(expected).max()
    faded = np.zeros(len(difference), bool)
    for end in ends:
        faded[max(end - OVERLAP - NEAR, 0) : end - OVERLAP + NEAR] = True
    assert difference[~faded].max() < 3e-3
    assert difference[faded].max() < 0.1
    assert off(found, expected) < 0.03


@pytest.mark.parametrize("schedule", [EARLY, TIGHT, LONG])
def test_no_border_of_chunks_jumps_or_crackles(schedule: tuple[int, ...]) -> None:
    found, expected, ends = spoken(schedule)
    usual = np.abs(np.diff(expected)).max()

    def spectrum(sound: Array, place: int) -> Array:
        half = SPECTRUM // 2
        return np.abs(np.fft.rfft(sound[place - half : place + half] * np.hanning(SPECTRUM)))

    for end in ends:
        start = (end - OVERLAP) * SIZE  # of the cross-fade
        for place in (start, start + (OVERLAP - HIFT.f0_reach) * SIZE, end * SIZE):
            near = slice(place - 3, place + 3)
            jump, of_whole = (np.abs(np.diff(sound[near])).max() for sound in (found, expected))
            mine, right = spectrum(found, place), spectrum(expected, place)
            assert jump < of_whole + 0.02 * usual
            assert off(mine, right) < 0.08
            assert 0.8 < np.sum(mine[HIGH:] ** 2) / np.sum(right[HIGH:] ** 2) < 1.25


@cache
def frames(schedule: tuple[int, ...], seed: int, forget: Forget = "reference") -> Array:
    """Of five seconds in chunks of a schedule, [250, mels]."""
    ids, chunks = turn(125, seed), list[int]()
    while sum(chunks) < len(ids):
        chunk = schedule[min(len(chunks), len(schedule) - 1)]
        chunks.append(min(chunk, len(ids) - sum(chunks)))
    stream = FlowStream(FLOW, PROMPT, FlowOptions(steps=STEPS, forget=forget))
    return np.concatenate(said(stream, ids, chunks))


WINDOWS = (0, 8, 25, 50, 75, 100, 125)  # codes
# Of the first 8 codes, of those up to the first second, and of each second that follows.
LIMITS: dict[tuple[int, ...], tuple[float, float, float]] = {
    EARLY: (0.05, 0.01, 0.025),
    TIGHT: (0.05, 0.03, 0.04),
}


@pytest.mark.parametrize("seed", [2, 7])
@pytest.mark.parametrize("schedule", LIMITS)
def test_frames_of_a_smaller_first_chunk_are_those_of_long_chunks_within_a_few_percent(
    schedule: tuple[int, ...], seed: int
) -> None:
    found, expected = frames(schedule, seed), frames(LONG, seed)
    first, second, later = LIMITS[schedule]
    limits = (first, second, later, later, later, later)
    for (start, stop), limit in zip(pairwise(WINDOWS), limits, strict=True):
        window = slice(2 * start, 2 * stop)
        assert off(found[window], expected[window]) < limit


def test_chunks_that_end_together_again_differ_later_by_what_is_forgotten() -> None:
    later = slice(2 * WINDOWS[2], None)
    by_reference, by_age = (
        off(frames(EARLY, 2, forget)[later], frames(LONG, 2, forget)[later])
        for forget in ("reference", "oldest")
    )
    assert by_age < 1e-3 < by_reference


@pytest.mark.parametrize("seed", [2, 7])
@pytest.mark.parametrize("schedule", LIMITS)
def test_at_the_same_pitch_the_samples_of_a_smaller_first_chunk_are_as_close_as_its_frames(
    schedule: tuple[int, ...], seed: int
) -> None:
    """With a pitch of its own the phase goes another way, which is all that makes samples far from
    each other; what another turn's frames do at this pitch shows that frames are heard."""
    found, expected = frames(schedule, seed), frames(LONG, seed)
    right = whole(expected)
    alike = whole(found, right.f0).samples
    own = whole(found).samples
    for start, stop in pairwise(WINDOWS):
        window = slice(2 * start, 2 * stop)
        assert off(alike[window], right.samples[window]) < 0.04
    assert off(own, right.samples) > 10 * off(alike, right.samples)
    other = whole(frames(LONG, 9 - seed), right.f0).samples
    assert off(other, right.samples) > 0.3
