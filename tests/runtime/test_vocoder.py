"""A checkpoint's vocoder whole: five asset files and a sound file, then codes to samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.duplex import vocoding
from minicpmo_ros.duplex.vocoding import CodeStream
from minicpmo_ros.errors import CheckpointError, ConfigError, InputError
from minicpmo_ros.runtime import vocoder
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.planning import vocoder_memory
from minicpmo_ros.runtime.export.vocoder_weights import sized
from minicpmo_ros.runtime.vocoder import VocoderNetworks, VoiceVocoder, load_vocoder
from minicpmo_ros.runtime.voices.reference import ReferenceVoice
from tests.vocoder_assets import write_assets

CODES = np.random.default_rng(0).integers(0, 6561, 200).tolist()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_assets(folder)
    return folder


@pytest.fixture(scope="module")
def networks(checkpoint: Path) -> VocoderNetworks:
    return load_vocoder(checkpoint)


def a_voice(seed: int = 0, tokens: int = 12) -> ReferenceVoice:
    random = np.random.default_rng(seed)
    return ReferenceVoice(
        f"voice {seed}",
        random.integers(0, 6561, tokens),
        random.standard_normal(192).astype(np.float32),
        random.standard_normal((2 * tokens, 80)).astype(np.float32),
    )


def speaker(networks: VocoderNetworks, seed: int = 0, **how: object) -> VoiceVocoder:
    return VoiceVocoder(networks, a_voice(seed), steps=2, **how)


def test_a_code_becomes_960_samples_and_the_first_chunk_sounds_160_ms_sooner(networks) -> None:
    stream = CodeStream(speaker(networks))
    # Of 8 codes 4 are held back: their sound is faded over into that of the next.
    assert [len(stream.feed([code])) // 960 for code in CODES[:11]] == [0] * 10 + [4]
    assert len(stream.feed(CODES[11:25])) == 0
    assert len(stream.flush(last=False)) == 14 * 960
    rest = stream.push(CODES[25:40], last=True)
    assert 4 * 960 + 14 * 960 + len(rest) == 40 * 960
    assert np.isfinite(rest).all() and rest.std() > 1e-4


def test_the_published_turn_has_a_second_in_its_first_second(networks) -> None:
    stream = CodeStream(speaker(networks, reference_compat=True), reference_compat=True)
    first = stream.push(CODES[:25], last=False)
    assert len(first) == vocoding.RATE_HZ
    assert not first[:3840].any()
    assert len(stream.push(CODES[25:50], last=False)) == vocoding.RATE_HZ


def test_a_turn_leaves_nothing_for_the_next_however_it_ends(networks) -> None:
    used, fresh = (CodeStream(speaker(networks)) for _ in range(2))
    used.push(CODES[40:70], last=True)
    used.push(CODES[70:100], last=False)
    used.restart()
    for codes, last in ((CODES[:25], False), (CODES[25:30], True)):
        np.testing.assert_array_equal(*(one.push(codes, last=last) for one in (used, fresh)))


def test_another_voice_or_seed_is_heard(networks) -> None:
    def sound(**how: object) -> np.ndarray:
        return CodeStream(speaker(networks, **how)).push(CODES[:10], last=True)

    assert np.array_equal(sound(), sound())
    assert not np.allclose(sound(), sound(seed=1), atol=1e-3)
    other = CodeStream(VoiceVocoder(networks, a_voice(5), steps=2)).push(CODES[:10], last=True)
    assert not np.allclose(sound(), other, atol=1e-3)


def test_a_code_that_there_is_not_is_named_and_a_reset_makes_it_good(networks) -> None:
    stream = CodeStream(speaker(networks))
    with pytest.raises(InputError, match="not in 0 to 6560"):
        stream.push([*CODES[:20], 6561], last=False)
    stream.restart()
    fresh = CodeStream(speaker(networks))
    np.testing.assert_array_equal(*(one.push(CODES[:20], last=True) for one in (stream, fresh)))


def test_a_turn_of_two_minutes_neither_grows_nor_stops(networks) -> None:
    stream = CodeStream(VoiceVocoder(networks, a_voice(), steps=1))
    before = stream.vocoder._flow.nbytes
    samples = 0
    for second in range(120):
        codes = [(7 * second + code) % 6561 for code in range(25)]
        samples += len(stream.push(codes, last=second == 119))
    assert samples == 120 * vocoding.RATE_HZ
    assert stream.vocoder._flow.nbytes == before


def test_what_conversation_and_vocoder_take_for_granted_of_each_other_is_the_same() -> None:
    assert vocoder.LOOK_AHEAD == vocoding.LOOK_AHEAD
    assert vocoder.SAMPLES_PER_CODE == vocoding.SAMPLES_PER_CODE


def test_a_recipe_of_half_the_steps_needs_half_of_what_steps_remember(networks) -> None:
    config = sized(networks.flow.config, networks.hift_config)
    ten, five, one = (
        vocoder_memory(config, recipe.of({"precision": "int8", "vocoder": {"steps": steps}}))
        for steps in (10, 5, 1)
    )
    of_a_step = (five - one) / 4
    assert ten - five == 5 * of_a_step
    # A voice of five seconds, 50 rows a second, and as many of the turn.
    rows = networks.flow.solver(np.zeros(1, np.float32), 500).nbytes
    assert of_a_step == pytest.approx(rows, rel=0.02)


def test_networks_that_do_not_fit_each_other_are_refused(networks) -> None:
    def of(**sizes: object) -> VocoderNetworks:
        config = replace(networks.hift_config, **sizes)
        return VocoderNetworks(networks.flow, networks.hift, config)

    with pytest.raises(CheckpointError, match="makes 80 bands of mel, the vocoder takes 40"):
        of(mels=40)
    with pytest.raises(CheckpointError, match="1920 samples at 24000 Hz of a code; 960"):
        of(hop=8)


def test_without_assets_it_says_where_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"assets/token2wav is missing.*checkpoint fetch"):
        load_vocoder(tmp_path)


@pytest.mark.parametrize("name", ["flow.pt", "hift.pt"])
def test_a_truncated_or_missing_asset_is_named(tmp_path: Path, name: str) -> None:
    folder = write_assets(tmp_path)
    file = folder / name
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=name):
        load_vocoder(tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match=name.removesuffix(".pt")):
        load_vocoder(tmp_path)


def test_a_device_that_there_is_not_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="quantum"):
        load_vocoder(checkpoint, device="quantum")
