"""The five files of assets/token2wav, of small random networks with the sizes of a real voice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile


def write_assets(checkpoint: Path, seed: int = 0) -> Path:
    """Write them into a checkpoint's directory; the folder that they are in."""
    import torch

    from minicpmo_ros.model.flow.tiny import TINY, write_flow
    from minicpmo_ros.runtime.voices.assets import SPEAKER, TOKENIZER
    from tests.model.hift_network import SMALL, published
    from tests.runtime.voices.networks import SpeakerNetwork, Tokenizer

    folder = write_flow(
        checkpoint / "assets" / "token2wav", replace(TINY, mels=80, voice=192), seed
    )
    weights = published(replace(SMALL, mels=80))
    torch.save(
        {name: torch.from_numpy(np.array(x)) for name, x in weights.items()}, folder / "hift.pt"
    )
    Tokenizer(seed).write(folder / TOKENIZER)
    SpeakerNetwork(seed).write(folder / SPEAKER)
    return folder


def write_voice(
    file: Path,
    seconds: float = 1.2,
    pitch_hz: float = 220.0,
    rate_hz: int = 24_000,
    channels: int = 1,
) -> Path:
    """A sound file with something like a voice in it."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(t))
    sound = 0.2 * (np.sin(2 * np.pi * pitch_hz * t) * (1 + 0.3 * np.sin(18 * t)) + noise)
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.tile(sound.astype(np.float32)[:, None], channels), rate_hz)
    return file
