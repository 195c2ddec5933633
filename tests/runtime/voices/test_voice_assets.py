"""The two networks that hear a voice: what they compute, and files that are not those."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.runtime.voices.assets import SPEAKER, TOKENIZER, VoiceAssets
from minicpmo_ros.runtime.voices.reference import hear
from minicpmo_ros.runtime.voices.sound import VoiceSound
from tests.runtime.voices.networks import SpeakerNetwork, Tokenizer
from tests.runtime.voices.sounds import speech


def log_mel(frames: int = 203, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (128, frames)).astype(np.float32)


def bank(frames: int = 98, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, 80)).astype(np.float32)


@pytest.mark.parametrize("frames", [200, 201, 202, 203])
@pytest.mark.parametrize("length", ["INT32", "INT64"])
def test_tokens_are_what_the_file_computes_one_for_four_frames(
    assets: VoiceAssets, frames: int, length: str
) -> None:
    network = Tokenizer(seed=1, length=length)
    network.write(assets.folder / TOKENIZER)
    tokens = assets.tokens(log_mel(frames))
    assert tokens.dtype == np.int64 and tokens.shape == (-(-frames // 4),)
    assert np.array_equal(tokens, network(log_mel(frames)))
    assert len(set(tokens)) > 20 and tokens.max() < 6561


def test_the_speaker_is_what_the_file_computes(assets: VoiceAssets) -> None:
    found = assets.speaker(bank())
    assert found.dtype == np.float32 and found.shape == (192,)
    assert np.allclose(found, SpeakerNetwork()(bank()), atol=1e-5)
    assert not np.allclose(found, assets.speaker(bank(seed=1)), atol=1e-5)


def hear_both(assets: VoiceAssets) -> None:
    assets.tokens(log_mel())
    assets.speaker(bank())


@pytest.mark.parametrize("name", [TOKENIZER, SPEAKER])
def test_a_missing_file_is_named_with_where_it_comes_from(
    assets: VoiceAssets, name: str, tmp_path: Path
) -> None:
    (assets.folder / name).unlink()
    says = rf"{re.escape(name)} is missing.*assets/token2wav of a checkpoint.*checkpoint fetch"
    for use in (hear_both, lambda assets: assets.digest(tmp_path / "memory.json")):
        with pytest.raises(CheckpointError, match=says):
            use(assets)


@pytest.mark.parametrize("name", [TOKENIZER, SPEAKER])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_named_with_its_size(
    assets: VoiceAssets, name: str, share: float
) -> None:
    file = assets.folder / name
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    says = rf"cannot load .*{re.escape(name)}.*its {int(share * len(content))} bytes may not be all"
    with pytest.raises(CheckpointError, match=says):
        hear_both(assets)


def test_another_network_in_place_of_one_is_told_by_its_inputs(assets: VoiceAssets) -> None:
    SpeakerNetwork().write(assets.folder / TOKENIZER)
    with pytest.raises(CheckpointError, match=r"takes input tensor\(float\).*not floats \[1, 128"):
        assets.tokens(log_mel())
    Tokenizer(mels=80).write(assets.folder / TOKENIZER)
    with pytest.raises(CheckpointError, match=r"another network: it takes feats.*80, 'frames'"):
        assets.tokens(log_mel())
    Tokenizer().write(assets.folder / SPEAKER)
    with pytest.raises(CheckpointError, match=r"takes feats.*not floats \[1, frames, 80\]"):
        assets.speaker(bank())


def test_a_tokenizer_of_another_rate_or_code_book_is_refused(assets: VoiceAssets) -> None:
    Tokenizer(strides=(2, 1)).write(assets.folder / TOKENIZER)
    with pytest.raises(CheckpointError, match=r"gave 100 tokens for 2\.00 s.*gives 50: it is anot"):
        assets.tokens(log_mel(200))
    Tokenizer(base=4).write(assets.folder / TOKENIZER)
    with pytest.raises(CheckpointError, match=r"those of the vocoder are 0 to 6560"):
        assets.tokens(log_mel())


def test_a_tokenizer_may_leave_out_the_last_token(assets: VoiceAssets) -> None:
    Tokenizer(pads=(0, 0)).write(assets.folder / TOKENIZER)
    assert len(assets.tokens(log_mel(200))) == 49
    assert len(hear("anna", VoiceSound(speech(2), speech(2, 24_000)), assets).mel) == 98


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (SpeakerNetwork(size=256), "256 numbers, not 192"),
        (SpeakerNetwork(factor=np.nan), "NaN, infinity or nothing but zeros"),
        (SpeakerNetwork(factor=0.0), "NaN, infinity or nothing but zeros"),
    ],
)
def test_a_speaker_that_is_none_is_refused(assets: VoiceAssets, network, says: str) -> None:
    network.write(assets.folder / SPEAKER)
    with pytest.raises(CheckpointError, match=rf"campplus\.onnx gave {says}.*Remove it, and"):
        assets.speaker(bank())


@pytest.mark.parametrize("name", [TOKENIZER, SPEAKER])
def test_the_digest_is_that_of_both_files(assets: VoiceAssets, tmp_path: Path, name: str) -> None:
    memory = tmp_path / "memory.json"
    before = assets.digest(memory)
    assert before == assets.digest(memory) and len(before) == 64
    {TOKENIZER: Tokenizer, SPEAKER: SpeakerNetwork}[name](seed=5).write(assets.folder / name)
    assert assets.digest(memory) != before
