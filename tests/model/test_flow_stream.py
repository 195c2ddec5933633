"""Speech tokens become frames as they come: chunks, turns, noise and what cannot be said."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError, InputError, NumericsError
from minicpmo_ros.model.flow.config import SILENCE
from minicpmo_ros.model.flow.stream import LARGEST_CHUNK, FlowOptions, FlowStream
from minicpmo_ros.model.flow.tiny import TINY, random_flow
from tests.model.audio_stage import relative_error
from tests.model.flow_network import at_once, codes, said, voice

FLOW = random_flow(seed=1)
QUICK = FlowOptions(steps=2)


def stream(prompt_tokens: int = 12, options: FlowOptions = QUICK) -> FlowStream:
    return FlowStream(FLOW, voice(prompt_tokens), options)


def turn(tokens: int, seed: int = 2) -> np.ndarray:
    """Tokens that begin as every turn does, with the silence that the prompt was read before."""
    return np.concatenate(([SILENCE] * 3, codes(seed, tokens - 3)))


@pytest.mark.parametrize("prompt_tokens", [12, 60])
@pytest.mark.parametrize("chunks", [[25, 25, 25], [8, 12, 25, 5], [1, 1, 2, 46], [50], [3, 47]])
def test_streamed_is_as_if_computed_at_once_until_something_is_forgotten(
    prompt_tokens: int, chunks: list[int]
) -> None:
    tokens = turn(sum(chunks))
    options = FlowOptions(steps=4, seed=9)
    found = np.concatenate(said(stream(prompt_tokens, options), tokens, chunks))
    expected = at_once(FLOW, voice(prompt_tokens), tokens, steps=4, seed=9, chunks=chunks)
    assert relative_error(found, expected) < 5e-5


def test_a_frame_sees_to_the_end_of_its_chunk_so_chunks_matter() -> None:
    tokens = turn(50)
    early, late = (np.concatenate(said(stream(), tokens, c)) for c in ([8, 12, 30], [25, 25]))
    assert early.shape == late.shape
    assert relative_error(early[:16], late[:16]) > 1e-2


def test_chunks_that_end_together_again_leave_little_of_the_difference() -> None:
    tokens = turn(75)
    early, late = (
        np.concatenate(said(stream(60), tokens, chunks)) for chunks in ([8, 17, 50], [25, 50])
    )
    assert relative_error(early[:16], late[:16]) > 1e-2
    assert relative_error(early[50:], late[50:]) < 1e-2


def test_frames_do_not_change_with_what_comes_behind_the_look_ahead() -> None:
    one, other = turn(28), turn(28)
    other[25 + 2 :] = (other[25 + 2 :] + 1) % TINY.tokens
    inside, outside = stream(), stream()
    frames = inside.push(one)
    assert not np.array_equal(frames, outside.push(other))  # the last that is looked at differs
    outside.reset()
    assert np.array_equal(frames, outside.push(one[:28]))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=6), st.integers(0, 4))
def test_every_token_has_two_frames_however_they_come(sizes: list[int], flushed: int) -> None:
    running, tokens, frames = stream(2, FlowOptions(steps=1)), 0, 0
    for size in sizes:
        frames += len(running.push(codes(tokens, size)))
        tokens += size
        assert frames == 2 * max(tokens - 3, 0)
        assert running.pending == min(tokens, 3)
    frames += len(running.push(codes(7, flushed), last=True))
    assert frames == 2 * (tokens + flushed)
    assert running.pending == 0


def test_many_tokens_at_once_are_several_chunks() -> None:
    tokens = turn(2 * LARGEST_CHUNK + 17)
    chunks = [LARGEST_CHUNK, LARGEST_CHUNK, 17]
    assert np.array_equal(
        stream().push(tokens, last=True), np.concatenate(said(stream(), tokens, chunks))
    )


@pytest.mark.parametrize("forget", ["reference", "oldest"])
def test_two_minutes_take_no_more_memory_than_the_start(forget: str) -> None:
    running = stream(options=FlowOptions(steps=1, forget=forget))  # type: ignore[arg-type]
    memory, frames = running.nbytes, []
    tokens = codes(3, 3000)
    for start in range(0, 3000, 25):
        frames.append(running.push(tokens[start : start + 25], last=start == 2975))
        assert running._encoded.tokens <= 12 + 50 + 25
    assert np.concatenate(frames).shape == (6000, TINY.mels)
    assert running.nbytes == memory


def test_a_turn_after_a_reset_is_as_the_first() -> None:
    running, tokens = stream(60), codes(4, 200)
    first = running.push(tokens, last=True)
    running.reset()
    running.push(codes(5, 170))
    running.reset()
    assert np.array_equal(running.push(tokens, last=True), first)


def test_a_turn_of_no_tokens_has_no_frames() -> None:
    running = stream()
    assert running.push([], last=True).shape == (0, TINY.mels)
    running.reset()
    assert len(running.push([1], last=True)) == 2


def test_a_turn_that_has_ended_takes_nothing_until_the_next_begins() -> None:
    running = stream()
    running.push([1, 2], last=True)
    with pytest.raises(InputError, match="`reset` begins the next one"):
        running.push([3])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_voice_quality() -> None:
    tokens = codes(6, 40)
    frames = [
        stream(options=FlowOptions(steps=2, seed=seed)).push(tokens, last=True)
        for seed in (3, 3, 4)
    ]
    assert np.array_equal(frames[0], frames[1])
    assert relative_error(frames[2], frames[0]) > 1e-2


def test_noise_belongs_to_a_place_whatever_the_chunks_are() -> None:
    drawn: list[list[tuple[int, int]]] = []
    for chunks in ([25] * 8, [8, 12] + [30] * 6):
        running = stream()
        noise = running._noise.frames
        drawn.append(places := [])

        def frames(start: int, count: int, places=places, noise=noise):  # type: ignore[no-untyped-def]
            places.append((start, start + count))
            return noise(start, count)

        running._noise.frames = frames  # type: ignore[method-assign]
        said(running, codes(1, 200), chunks)
    for places in drawn:
        assert places[0][0] == 24 and places[-1][1] == 24 + 400
        assert all(before[1] == after[0] for before, after in itertools.pairwise(places))


def test_with_noise_by_cache_every_chunk_behind_a_full_cache_has_the_same() -> None:
    same = [codes(1, 25)] * 12
    by_place, by_cache = (
        stream(2, FlowOptions(steps=1, noise=noise))  # type: ignore[arg-type]
        for noise in ("place", "cache")
    )
    frames = [[running.push(tokens) for tokens in same] for running in (by_place, by_cache)]
    assert np.array_equal(frames[0][1], frames[1][1])  # as long as nothing was forgotten
    assert relative_error(frames[0][11], frames[1][11]) > 1e-2


def test_what_is_forgotten_makes_a_difference_only_behind_two_seconds() -> None:
    tokens, chunks = turn(125), [25] * 5
    one, other = (
        said(stream(60, FlowOptions(steps=2, forget=forget)), tokens, chunks)  # type: ignore[arg-type]
        for forget in ("reference", "oldest")
    )
    for index in range(3):
        assert relative_error(one[index], other[index]) < 5e-5
    assert relative_error(one[4], other[4]) > 1e-3


def test_voice_and_prompt_are_heard() -> None:
    tokens, prompt = codes(8, 20), voice(12)
    expected = stream().push(tokens, last=True)
    changed = (
        replace(prompt, voice=-prompt.voice),
        replace(prompt, mel=prompt.mel[::-1].copy()),
        replace(prompt, tokens=prompt.tokens[::-1].copy()),
    )
    for other in changed:
        found = FlowStream(FLOW, other, QUICK).push(tokens, last=True)
        assert relative_error(found, expected) > 1e-2
    louder = FlowStream(FLOW, replace(prompt, voice=3 * prompt.voice), QUICK)
    assert relative_error(louder.push(tokens, last=True), expected) < 1e-5


@pytest.mark.parametrize("steps", [1, 3, 5, 10])
def test_more_steps_come_closer_to_the_whole_way(steps: int) -> None:
    tokens = codes(8, 20)
    expected = stream(options=FlowOptions(steps=40)).push(tokens, last=True)
    coarse, fine = (
        np.abs(stream(options=FlowOptions(steps=n)).push(tokens, last=True) - expected).mean()
        for n in (steps, 2 * steps)
    )
    assert fine < 0.75 * coarse


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(dtype: torch.dtype) -> None:
    tokens = codes(8, 40)
    half = random_flow(seed=1).to(dtype)
    found = FlowStream(half, voice(12), QUICK).push(tokens, last=True)
    assert found.dtype == np.float32
    tolerance = 0.01 if dtype == torch.float16 else 0.06
    assert relative_error(found, stream().push(tokens, last=True)) < tolerance


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([5, 6561], r"1 of 2 speech tokens are not in 0 to 6560, the first of them 6561 at 1"),
        ([-1], "not in 0 to 6560"),
        ([0.5], "whole numbers"),
        ([[1, 2]], "one behind the other"),
        ([True, False], "whole numbers"),
    ],
)
def test_tokens_that_are_no_speech_are_refused_and_change_nothing(
    tokens: list, message: str
) -> None:
    running, good = stream(), codes(9, 30)
    with pytest.raises(InputError, match=message):
        running.push(tokens, last=True)
    assert np.array_equal(running.push(good, last=True), stream().push(good, last=True))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": codes(1, 0)}, "no speech tokens"),
        ({"tokens": codes(1, 12) + 9999}, "not in 0 to 6560"),
        ({"mel": np.zeros((23, 16), np.float32)}, r"\[23, 16\]; for its 12 tokens.*\[24, 16\]"),
        ({"mel": np.full((24, 16), np.nan, np.float32)}, "NaN"),
        ({"voice": np.zeros(192, np.float32)}, r"vector is \[192\], not \[12\]"),
        ({"voice": np.zeros(12, np.float32)}, "zeros"),
    ],
)
def test_a_voice_of_no_use_is_refused(changed: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FlowStream(FLOW, replace(voice(12), **changed), QUICK)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"guidance": -0.1}, {"seed": -1}, {"forget": "all"}, {"noise": "white"}]
)
def test_options_out_of_their_range_are_named(wrong: dict) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"flow: {name} is"):
        FlowOptions(**wrong)


def test_a_network_that_gives_nan_says_so_and_needs_a_reset() -> None:
    broken = random_flow(seed=1)
    running = FlowStream(broken, voice(12), QUICK)
    broken.encoder.encoder_proj.bias.fill_(torch.nan)
    with pytest.raises(NumericsError, match="NaN"):
        running.push(codes(1, 10))
    with pytest.raises(InputError, match="reset"):
        running.push([1])
