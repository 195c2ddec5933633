"""Speech codes become sound in a reference voice: the flow network and HiFT, one behind the other.

The networks are loaded once and may run on any runtime; each voice has a stream of its own over
them. No torch is imported where they are not torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import BrainError, CheckpointError
from minicpmo_ros.model.flow.prompt import VoicePrompt
from minicpmo_ros.model.flow.stages import FlowStages
from minicpmo_ros.model.flow.stream import FlowOptions, FlowStream
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.hift.history import Step
from minicpmo_ros.model.hift.stream import VocoderStream
from minicpmo_ros.model.vocoder import ASSETS
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.voices.reference import ReferenceVoice

RATE_HZ = 24_000
SAMPLES_PER_CODE = RATE_HZ // 25
LOOK_AHEAD = 3
"""Codes that must be seen behind those that become sound."""


@dataclass(frozen=True, eq=False)
class VocoderNetworks:
    """What runs, on whatever runtime. hift: `model.hift.vocoder.Vocoder.render`, or the same of a
    built file. about: in words.

    Raises:
        CheckpointError: the two do not fit each other, or are not for 25 codes a second.
    """

    flow: FlowStages
    hift: Step
    hift_config: HiftConfig
    about: str = ""

    def __post_init__(self) -> None:
        flow, hift = self.flow.config, self.hift_config
        if flow.mels != hift.mels:
            raise CheckpointError(
                f"the flow network makes {flow.mels} bands of mel, the vocoder takes {hift.mels}:"
                " flow.pt and hift.pt are of different sets"
            )
        samples = flow.conformer.up * hift.samples_per_frame
        if (samples, hift.rate_hz) != (SAMPLES_PER_CODE, RATE_HZ):
            raise CheckpointError(
                f"flow.pt and hift.pt make {samples} samples at {hift.rate_hz} Hz of a code;"
                f" {SAMPLES_PER_CODE} at {RATE_HZ} Hz are needed"
            )
        if flow.conformer.look_ahead != LOOK_AHEAD:
            raise CheckpointError(
                f"flow.pt looks {flow.conformer.look_ahead} codes ahead, not {LOOK_AHEAD}"
            )


class VoiceVocoder:
    """`duplex.vocoding.Vocoder` in one voice.

    Args:
        voice: read once, here, which takes as long as its sound.
        steps: of the flow's solver.
        seed: of all noise; the same codes then give the same samples.
        reference_compat: as the published code does: silence in front of a turn, and noise, phase
            and cross-fade with the flaws that it has.

    Raises:
        InputError: the voice is not for these networks.
        ConfigError: steps or seed is out of its range.
    """

    def __init__(
        self,
        networks: VocoderNetworks,
        voice: ReferenceVoice,
        *,
        steps: int = 10,
        seed: int = 0,
        reference_compat: bool = False,
    ) -> None:
        self.voice = voice
        options = FlowOptions(
            steps=steps, seed=seed, noise="cache" if reference_compat else "place"
        )
        prompt = VoicePrompt(voice.tokens, voice.mel, voice.speaker)
        self._flow = FlowStream(networks.flow, prompt, options)
        self._hift = VocoderStream(
            networks.hift,
            networks.hift_config,
            seed=seed,
            lead_silence=reference_compat,
            reference_compat=reference_compat,
        )

    def stream(self, codes: Sequence[int], last: bool) -> NDArray[np.float32]:
        """The next samples of the turn: see `duplex.vocoding.Vocoder`. After an error, `reset`."""
        # What was only looked at waits in the flow's stream.
        mel = self._flow.push(codes[self._flow.pending :], last)
        sound = self._hift.push(mel.T, last=last)
        if last:
            self._flow.reset()
        return sound

    def reset(self) -> None:
        """A new turn begins."""
        self._flow.reset()
        self._hift.reset()


def load_vocoder(
    directory: Path | str,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    cache: Path | None = None,
    recipe: Recipe | None = None,
    threads: int = 0,
    progress: Callable[[str, float], None] = lambda what, share: None,
    say: Callable[[str], None] = lambda text: None,
) -> VocoderNetworks:
    """The networks of a checkpoint, in torch or as a recipe has them.

    Args:
        directory: of the checkpoint, with flow.pt, flow.yaml and hift.pt in assets/token2wav.
        device: "cpu", "cuda", "cuda:N", or "auto": cuda if there is one.
        precision: of the flow network, "fp32", "fp16" or "bf16".
        cache: a folder for converted weights where they cannot be kept beside the files.
        recipe: with one, all before counts for nothing: its `vocoder` says what runs them. What is
            not built yet is built; progress and say hear of it, see `vocoder_load.load_stages`.
        threads: with a recipe, in place of its own where they are not 0.

    Raises:
        CheckpointError: a file is missing, damaged, or of another network; the message names it.
        ConfigError: there is no such device.
        BrainError: torch is not installed.
        EngineError: a stage cannot be built or loaded.
    """
    if recipe is not None:
        from minicpmo_ros.runtime.vocoder_load import load_stages

        return load_stages(Path(directory), recipe, threads=threads, progress=progress, say=say)
    assets = Path(directory) / ASSETS
    if not assets.is_dir():
        raise CheckpointError(
            f"{assets} is missing: the checkpoint has no vocoder; `minicpmo checkpoint fetch`"
            " brings it"
        )
    try:
        from minicpmo_ros.model.flow.loader import load_flow
        from minicpmo_ros.model.hift.weights import load_vocoder as load_hift
        from minicpmo_ros.model.hift.weights import vocoder_file
        from minicpmo_ros.runtime.torch_runtime import DTYPES, torch_device
    except ImportError as error:
        raise BrainError(
            f"the vocoder runs on torch, which is missing ({error}): pip install"
            " 'minicpmo_ros[model]'"
        ) from None
    where = torch_device(device)
    flow = load_flow(assets, DTYPES[precision], where, cache)
    hift = load_hift(vocoder_file(assets), cache, where)
    about = f"vocoder in torch on {where}, flow in {precision}"
    return VocoderNetworks(flow, hift.render, hift.config, about)
