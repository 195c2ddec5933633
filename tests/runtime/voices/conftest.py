"""Both networks of a voice, small ones, in a folder as a checkpoint has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from minicpmo_ros.runtime.voices.assets import SPEAKER, TOKENIZER, VoiceAssets
from tests.runtime.voices.networks import SpeakerNetwork, Tokenizer


@pytest.fixture
def assets(tmp_path: Path) -> VoiceAssets:
    folder = tmp_path / "assets" / "token2wav"
    Tokenizer().write(folder / TOKENIZER)
    SpeakerNetwork().write(folder / SPEAKER)
    return VoiceAssets(folder, threads=1)
