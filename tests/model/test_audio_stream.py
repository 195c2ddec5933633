"""A session's sound, second by second for longer than the encoder has places; and whole sounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.audio_stream import AudioStream, capacity_s, embed_sound, embed_voice
from minicpmo_ros.model.mel import SECOND, StreamingMel
from minicpmo_ros.model.packed import pack
from tests.model.audio_stage import (
    REFERENCE,
    audio_stage,
    relative_error,
    seconds_of,
    wave,
)

FIVE_SECONDS = 300  # positions of an encoder whose cache holds five seconds


def heard_from(stage: Audio, windows: list[np.ndarray], first: int, second: int) -> torch.Tensor:
    """The embeddings of a second, by an encoder that began to listen at the second `first`."""
    stream = AudioStream(stage)
    for k in range(first, second + 1):
        embeddings = stream._encode(windows[k], k == 0, stream.cache)
    return embeddings


def test_45_seconds_are_those_of_the_reference():
    stream = AudioStream(audio_stage())
    found, lengths = [], []
    for second in seconds_of(wave(45, seed=7)):
        found.append(stream.step(second)[:, :32])
        lengths.append(stream.cache.length)
    assert relative_error(torch.stack(found), REFERENCE["stream"]) < 1e-5
    assert lengths == [50 * (k % 29 + 1) for k in range(45)]


@pytest.mark.parametrize(
    ("max_positions", "fits_s"), [(1500, 29), (1553, 31), (1552, 30), (300, 5), (60, 1)]
)
def test_a_second_must_fit_with_its_context(max_positions, fits_s):
    assert capacity_s(audio_stage(max_positions=max_positions).config) == fits_s


@pytest.mark.parametrize("overlap_s", [0, 1, 2])
def test_when_the_cache_is_full_each_second_still_hears_the_overlap(overlap_s):
    """Second by second as an encoder that began where the running cache began."""
    stage = audio_stage(max_positions=FIVE_SECONDS)
    sound = seconds_of(wave(14, seed=2))
    mel = StreamingMel()
    windows = [mel.push(second) for second in sound]
    stream = AudioStream(stage, overlap_s=overlap_s)
    first = 0
    for k, second in enumerate(sound):
        if k - first == 5:
            first = k - overlap_s
        expected = heard_from(stage, windows, first, k)
        assert relative_error(stream.step(second), expected) < 1e-5
        assert stream.cache.length == 50 * (k - first + 1)


def test_caches_never_move_and_never_grow():
    stream = AudioStream(audio_stage(max_positions=FIVE_SECONDS), overlap_s=2)
    caches = {stream.cache.k.data_ptr(), stream._next.k.data_ptr()}
    for second in seconds_of(wave(12, seed=2)):
        stream.step(second)
        assert {stream.cache.k.data_ptr(), stream._next.k.data_ptr()} == caches
        assert stream.cache.k.shape == (2, 4, 250, 16)


@pytest.mark.parametrize("overlap_s", [0, 2])
@pytest.mark.parametrize("heard", [1, 4, 5, 7])
def test_a_new_session_hears_nothing_of_the_old_one(overlap_s, heard):
    stage = audio_stage(max_positions=FIVE_SECONDS)
    used, new = (AudioStream(stage, overlap_s=overlap_s) for _ in range(2))
    for second in seconds_of(wave(heard, seed=4)):
        used.step(second)
    used.reset()
    for second in seconds_of(wave(7, seed=5)):
        assert torch.equal(used.step(second), new.step(second))


def test_two_sessions_at_once_do_not_hear_each_other():
    stage = audio_stage()
    alone, beside, other = (AudioStream(stage) for _ in range(3))
    for mine, theirs in zip(seconds_of(wave(3, seed=1)), seconds_of(wave(3, seed=2)), strict=True):
        expected = alone.step(mine)
        other.step(theirs)
        assert torch.equal(beside.step(mine), expected)


def test_a_stage_packed_for_a_cpu_hears_the_same():
    plain, packed = audio_stage(), audio_stage()
    if not pack(packed):
        pytest.skip("oneDNN packs nothing on this machine")
    one, other = AudioStream(plain), AudioStream(packed)
    for second in seconds_of(wave(3, seed=1)):
        assert relative_error(other.step(second), one.step(second)) < 1e-5


@pytest.mark.parametrize(
    "bad", [np.zeros(8000, np.float32), np.full(SECOND, np.nan, np.float32)], ids=["short", "nan"]
)
def test_a_bad_second_is_refused_and_the_stream_goes_on(bad):
    stage = audio_stage(max_positions=FIVE_SECONDS)
    disturbed, undisturbed = AudioStream(stage), AudioStream(stage)
    for second in seconds_of(wave(7, seed=4)):
        with pytest.raises(InputError, match="a second of sound has"):
            disturbed.step(bad)
        assert torch.equal(disturbed.step(second), undisturbed.step(second))


@pytest.mark.parametrize("overlap_s", [-1, 15])
def test_an_overlap_that_cannot_be_held_is_refused(overlap_s):
    with pytest.raises(ConfigError, match=f"overlap_s is {overlap_s}; .* 0 to 14"):
        AudioStream(audio_stage(), overlap_s=overlap_s)


def test_an_encoder_of_less_than_a_second_is_refused():
    with pytest.raises(ConfigError, match="knows 52 positions; a second of sound needs 53"):
        AudioStream(audio_stage(max_positions=52))


def test_a_voice_is_the_same_whatever_was_streamed_before():
    stage, voice = audio_stage(), wave(3.2, seed=11)
    before = embed_voice(stage, voice)
    AudioStream(stage).step(wave(1, seed=1))
    assert before.shape == (32, 128)
    assert torch.equal(embed_voice(stage, voice), before)


def test_sound_beyond_30_s_is_embedded_in_pieces():
    stage, sound = audio_stage(), wave(36.5, seed=11)
    pieces = [embed_sound(stage, part) for part in (sound[: 30 * SECOND], sound[30 * SECOND :])]
    assert torch.equal(embed_sound(stage, sound), torch.cat(pieces))


def test_a_piece_too_short_for_an_embedding_adds_none():
    stage, sound = audio_stage(), wave(30.05, seed=11)
    assert torch.equal(embed_sound(stage, sound), embed_sound(stage, sound[: 30 * SECOND]))


def test_as_in_the_reference_the_last_block_of_a_short_piece_sees_padding():
    stage, sound = audio_stage(), wave(36.5, seed=11)
    meant, compatible = (embed_sound(stage, sound, reference_compat=c) for c in (False, True))
    whole_blocks = 300 + 60
    assert torch.allclose(compatible[:whole_blocks], meant[:whole_blocks], atol=1e-4)
    assert relative_error(compatible[whole_blocks:], meant[whole_blocks:]) > 1e-3


def test_the_encoders_places_bound_a_piece():
    stage = audio_stage(max_positions=FIVE_SECONDS)
    assert embed_sound(stage, wave(13, seed=1)).shape == (130, 128)


@pytest.mark.parametrize(("samples", "embeddings"), [(1281, 1), (16_000, 10), (51_200, 32)])
def test_five_positions_are_an_embedding(samples, embeddings):
    assert len(embed_sound(audio_stage(), wave(4, seed=1)[:samples])) == embeddings


@pytest.mark.parametrize(
    ("voice", "says"),
    [
        (np.zeros(0, np.float32), "is 0.00 s long; 1 to 60 s"),
        (wave(0.99, seed=1), "is 0.99 s long; 1 to 60 s"),
        (wave(60.1, seed=1), "is 60.10 s long; 1 to 60 s"),
        (np.zeros(5 * SECOND, np.float32), "is silent"),
        (wave(5, seed=1) * 1e-3, r"is silent \(-7\d dBFS\)"),
        (np.full(5 * SECOND, np.nan, np.float32), "NaN or infinite"),
        ((wave(5, seed=1) * 32767).astype(np.int16), "the reference voice is int16"),
        (np.zeros((2, 5 * SECOND), np.float32), "one channel"),
    ],
)
def test_a_voice_that_is_none_is_refused(voice, says):
    with pytest.raises(InputError, match=says):
        embed_voice(audio_stage(), voice)


@pytest.mark.parametrize("seconds", [0.45, 60.3])
def test_the_reference_takes_voices_of_any_length(seconds: float):
    voice = wave(seconds, seed=1)
    with pytest.raises(InputError):
        embed_voice(audio_stage(), voice)
    assert len(embed_voice(audio_stage(), voice, reference_compat=True)) == int(seconds * 10)


@pytest.mark.parametrize("samples", [0, 1, 1280])
def test_sound_too_short_for_an_embedding_is_refused(samples):
    with pytest.raises(InputError, match=f"{samples} samples; an embedding needs 1281"):
        embed_sound(audio_stage(), np.ones(samples, np.float32))
