"""The network in torch: the numerical reference, on the CPU or a CUDA device.

With four bits a weight and, on CUDA, a graph for each token, also what runs where nothing was
compiled.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minicpmo_ros.errors import BrainError, ConfigError
from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.audio_stream import AudioStream, embed_sound, embed_voice
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.kv import KvCache
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.packed import pack, size_of
from minicpmo_ros.model.picture import Slice
from minicpmo_ros.model.sound_stream import POSITIONS_PER_SECOND
from minicpmo_ros.model.speech import SpeechDecoder
from minicpmo_ros.model.vision import VisionStage
from minicpmo_ros.runtime.api import NO_SPEECH, Context, Logits, Network, Part, Sound
from minicpmo_ros.runtime.engines.recipe import Recipe, in_torch
from minicpmo_ros.runtime.torch_decode import StaticDecode
from minicpmo_ros.runtime.torch_int4 import Int4Linear, check_device, load_llm

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INT4 = "int4"
Progress = Callable[[str, float], None]
"""Called with what is being loaded, and the share of all that is done."""


class TorchContext:
    """See `runtime.api.Context`.

    graphs: read single tokens by `StaticDecode`.
    """

    def __init__(
        self, decoder: Llm | SpeechDecoder, capacity: int | None, *, graphs: bool = False
    ) -> None:
        self.decoder = decoder
        self.cache: KvCache = decoder.cache(capacity)  # type: ignore[arg-type]
        self._one = StaticDecode(decoder, self.cache) if graphs else None

    @property
    def length(self) -> int:
        return self.cache.length

    @property
    def capacity(self) -> int:
        return self.cache.capacity

    @property
    def nbytes(self) -> int:
        return self.cache.nbytes

    @torch.inference_mode()
    def read(self, *parts: Part, at: int | None = None) -> Tensor:
        embeds = [part if isinstance(part, Tensor) else self._embed(part) for part in parts]
        whole = embeds[0] if len(embeds) == 1 else torch.cat(embeds)
        if self._one is not None and len(whole) == 1:
            return self._one.read(whole, at)
        return self.decoder.extend(whole, self.cache, at)

    @torch.inference_mode()
    def logits(self, hidden: Any) -> Logits:
        return self.decoder.head(hidden[-1]).cpu().numpy()

    def check_room(self, rows: int) -> None:
        self.cache.check_room(rows)

    def truncate(self, length: int) -> None:
        if self._one is not None:
            self._one.wipe(length)
        self.cache.truncate(length)

    def remove(self, spans: Iterable[tuple[int, int]]) -> None:
        self.cache.remove(spans)

    def shift(self, start: int, to: int) -> None:
        self.cache.shift(start, to)

    def keys(self, last: int) -> NDArray[np.float32]:
        rows = self.cache.k[:, :, self.length - last : self.length]
        return rows.to("cpu", torch.float32, copy=True).numpy()

    def _embed(self, ids: Part) -> Tensor:
        return self.decoder.embed(torch.tensor(ids, dtype=torch.int64, device=self.cache.k.device))


class TorchNetwork(Network):
    """The torch modules of one checkpoint."""

    def __init__(
        self,
        config: ModelConfig,
        vision: VisionStage,
        audio: Audio,
        llm: Llm,
        speech: SpeechDecoder | None = None,
        *,
        graphs: bool | None = None,
    ) -> None:
        """See `load` for `graphs`."""
        self.config = config
        self.stages: dict[str, torch.nn.Module] = {"vision": vision, "audio": audio, "llm": llm}
        if speech is not None:
            self.stages["speech"] = speech
        self._vision, self._audio, self._llm, self._speech = vision, audio, llm, speech
        # The first is none of the language model's, whose matrices may have become something else.
        weight = next(one for stage in self.stages.values() for one in stage.parameters())
        self.graphs = weight.device.type == "cuda" if graphs is None else graphs
        nbytes = sum(size_of(stage) for stage in self.stages.values())
        precision = str(weight.dtype).removeprefix("torch.")
        if any(isinstance(module, Int4Linear) for module in llm.modules()):
            precision += ", the language model int4"
        self.about = f"torch on {weight.device}, {precision}, weights of {nbytes / 2**30:.2f} GiB"

    @classmethod
    def load(
        cls,
        directory: Path | str,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        packed: bool | None = None,
        int4_head: bool = True,
        graphs: bool | None = None,
        threads: int = 0,
        progress: Progress = lambda what, share: None,
    ) -> TorchNetwork:
        """Load all stages, one after the other.

        Args:
            device: "cpu", "cuda", "cuda:N", or "auto": cuda if there is one.
            precision: "fp32", "bf16" or "fp16" of weights and caches, or "auto": the checkpoint's;
                or "int4" of the language model's matrices, bf16 of all else.
            packed: lay the weights out for this CPU (`model.packed`); by default, on a CPU.
            int4_head: with precision "int4", also of the matrix that makes logits.
            graphs: read single tokens by a CUDA graph (`torch_decode`); by default, on CUDA. On a
                CPU they are then read in the same way, which is no faster.
            threads: of the whole process's torch on a CPU; 0 leaves them as they are, which is as
                many as cores. Where other programs use the cores, too, fewer are faster.
            progress: called often.

        Raises:
            CheckpointError: see `model.checkpoint.Checkpoint`.
            ConfigError: no such device or precision, or this device has not that precision.
        """
        where = torch_device(device)
        if threads:
            torch.set_num_threads(threads)
        checkpoint = Checkpoint(directory)
        dtype = _dtype(precision, checkpoint)
        if precision == INT4:
            check_device(where)
        c = checkpoint.config
        plans = {
            "audio": (lambda: Audio(c.audio), "", ("apm.", "audio_projection_layer.")),
            "vision": (lambda: VisionStage(c.vision, c.resampler), "", ("vpm.", "resampler.")),
            "speech": (lambda: SpeechDecoder(c.speech_sizes()), "tts.", ("tts.",)),
            "llm": (lambda: Llm(c.llm), "llm.", ("llm.",)),
        }
        if c.speech is None:
            del plans["speech"]
        total = checkpoint.bytes_below(*(p for plan in plans.values() for p in plan[2]))
        done = 0
        stages: dict[str, torch.nn.Module] = {}
        for name, (make, prefix, _) in plans.items():

            def advance(count: int, name: str = name) -> None:
                nonlocal done
                done += count
                progress(name, done / total)

            if precision == INT4 and name == "llm":
                stage: torch.nn.Module = load_llm(checkpoint, where, advance, head=int4_head)
            else:
                stage = checkpoint.build(make, prefix, dtype, where, advance)
            if packed if packed is not None else where.type == "cpu":
                pack(stage)
            stages[name] = stage
        return cls(c, **stages, graphs=graphs)  # type: ignore[arg-type]

    def look(self, slices: Sequence[Slice]) -> list[Tensor]:
        return list(self._vision.look(slices).unbind())

    def ears(self, overlap_s: int = 0) -> AudioStream:
        return AudioStream(self._audio, overlap_s=overlap_s)

    def voice(self, samples: Sound, *, reference_compat: bool = False) -> Tensor:
        return embed_voice(self._audio, samples, reference_compat=reference_compat)

    def sound(self, samples: Sound) -> Tensor:
        return embed_sound(self._audio, samples)

    def seconds(self, samples: Sound) -> list[Tensor]:
        return list(self.sound(samples).split(POSITIONS_PER_SECOND // self.config.audio.pool))

    def context(self, capacity: int) -> Context:
        return TorchContext(self._llm, capacity, graphs=self.graphs)

    def speech(self, capacity: int | None = None) -> Context:
        return TorchContext(self._speaker(), capacity, graphs=self.graphs)

    @torch.inference_mode()
    def condition(
        self, ids: Sequence[int], hidden: Sequence[Any], *, text_ended: bool, normalize: bool
    ) -> Tensor:
        speech = self._speaker()
        weight = speech.emb_text.weight
        states = torch.cat(list(hidden)) if hidden else weight.new_empty(0, self.config.llm.hidden)
        return speech.condition(
            torch.tensor(ids, dtype=torch.int64, device=weight.device),
            states,
            text_ended=text_ended,
            normalize=normalize,
        )

    def _speaker(self) -> SpeechDecoder:
        if self._speech is None:
            raise BrainError(NO_SPEECH)
        return self._speech


def torch_device(name: str) -> torch.device:
    """ "cpu", "cuda", "cuda:N", or "auto": cuda if there is one. Raises ConfigError for others."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    with contextlib.suppress(RuntimeError):
        device = torch.device(name)
        if device.type == "cpu":
            return device
        if device.type == "cuda" and (device.index or 0) < torch.cuda.device_count():
            return device
    found = ["auto", "cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    raise ConfigError(f"device '{name}': this machine has {', '.join(found)}")


def as_it_runs(recipe: Recipe, directory: Path | str) -> Recipe:
    """A recipe for torch with the device and the precision that `auto` means for a checkpoint here.

    Raises:
        CheckpointError, ConfigError: see `TorchNetwork.load`.
    """
    precision = precision_for(recipe, directory)
    return in_torch(recipe, precision, str(torch_device(recipe.device)))


def precision_for(recipe: Recipe, directory: Path | str) -> str:
    """A recipe's precision in torch: what `auto` means for a checkpoint.

    Raises:
        CheckpointError, ConfigError: see `TorchNetwork.load`.
    """
    if recipe.precision == INT4:
        return INT4
    dtype = _dtype(recipe.precision, Checkpoint(directory))
    return next(name for name, one in DTYPES.items() if one == dtype)


def _dtype(precision: str, checkpoint: Checkpoint) -> torch.dtype:
    if precision == "auto":
        parameters: Counter[torch.dtype] = Counter()
        for entry in checkpoint.entries.values():
            parameters[entry.dtype] += entry.parameters
        found = parameters.most_common(1)[0][0]
        return found if found in DTYPES.values() else torch.float32
    if precision == INT4:
        return torch.bfloat16
    if precision not in DTYPES:
        raise ConfigError(f"precision '{precision}': there are auto, {', '.join(DTYPES)}, {INT4}")
    return DTYPES[precision]
