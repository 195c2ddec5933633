"""How the local brain runs, as plain settings; the omni node's parameters have the same names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from minicpmo_ros.duplex.config import DuplexConfig, SamplerConfig, WindowConfig
from minicpmo_ros.duplex.dialogue import DialogueConfig
from minicpmo_ros.duplex.vocoding import checked_chunks
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.shipped import NANO, checkpoint_directory
from minicpmo_ros.runtime.engines.recipe import Recipe, load
from minicpmo_ros.runtime.engines.recipe_rules import TENSORRT

LEAST_CAPACITY = 128


@dataclass(frozen=True)
class LocalConfig:
    """What to load and how to converse; raises ConfigError for values out of their range.

    checkpoint: directory in the published layout, or nano, which ships. recipe: what runs it; None:
    torch, on device and in precision. device: cpu, cuda, cuda:N or auto (cuda if there is one).
    precision: fp32, bf16, fp16, int4 (the language model; bf16 all else) or auto (the checkpoint's
    own). threads: of the network on a CPU; 0: its own choice. reference_voice: sound file with the
    voice to speak in; empty: that of the checkpoint. voices: folder of sound files, by whose names
    another can be chosen; empty: none. speech_steps: of the vocoder's solver. synthesiser_fallback:
    where the checkpoint cannot speak, the synthesiser speaks its text. prompt_file: system prompt
    of the user's own; empty: the model's. scene: omni, or audio where there is no camera.
    pictures_per_unit: as the timeline has it. turn_end_ms: in streaming mode, so long a silence
    ends the user's turn. reply_tokens_per_unit: of a streamed reply. unasked_after_s: speaking when
    nobody has spoken for so long is the model's own initiative.
    """

    checkpoint: str = ""
    recipe: Recipe | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    reference_voice: str = ""
    voices: str = ""
    speech_steps: int = 10
    synthesiser_fallback: bool = True
    prompt_file: str = ""
    scene: str = "omni"
    pictures_per_unit: int = 1
    duplex: DuplexConfig = field(default_factory=lambda: DuplexConfig(speaks=False))
    turn_end_ms: int = 600
    reply_tokens_per_unit: int = 10
    unasked_after_s: float = 3.0

    @classmethod
    def of(
        cls,
        *,
        checkpoint: str,
        recipe: str,
        device: str,
        precision: str,
        kv_capacity: int,
        window: str,
        window_high_tokens: int,
        window_low_tokens: int,
        window_units: int,
        window_previous_tokens: int,
        temperature: float,
        length_penalty: float,
        listen_scale: float,
        forced_listens: int,
        max_slices: int,
        audio_overlap_s: int,
        speech_chunks: str,
        speech_lead_ms: int,
        speech_steps: int,
        forgets_unheard: bool,
        reference_compat: bool,
        **others: object,
    ) -> LocalConfig:
        """From settings as the omni node has them: auto, and 0 or -1, are what the recipe says."""
        if not recipe and device == precision == "auto" and checkpoint == NANO:
            recipe = NANO  # what runs it lies beside its weights, and needs no torch
        chosen = _recipe(recipe, device, precision)
        says = chosen or Recipe(runtime="torch")
        _check_capacity(kv_capacity, chosen)
        duplex = DuplexConfig(
            sampler=SamplerConfig(
                temperature=temperature, length_penalty=length_penalty, listen_scale=listen_scale
            ),
            window=WindowConfig(
                says.window.kind if window == "auto" else window,
                window_high_tokens or says.window.high,
                window_low_tokens or says.window.low,
                window_units or says.window.units,
                says.window.previous if window_previous_tokens < 0 else window_previous_tokens,
            ),
            kv_capacity=kv_capacity or says.kv_capacity,
            forced_listens=says.forced_listens if forced_listens < 0 else forced_listens,
            max_slices=max_slices or None,
            speaks=False,  # until it is known that something makes sound of the codes
            speech_chunks=_chunks(speech_chunks),
            speech_lead_ms=speech_lead_ms,
            forgets_unheard=forgets_unheard,
            audio_overlap_s=audio_overlap_s,
            reference_compat=reference_compat,
        )
        return cls(
            checkpoint=checkpoint,
            recipe=chosen,
            device=device,
            precision=precision,
            speech_steps=speech_steps or says.vocoder.steps,
            duplex=duplex,
            **others,  # type: ignore[arg-type]
        )

    def dialogue(self) -> DialogueConfig:
        """Streaming and chat, in a context of the same size."""
        capacity = self.duplex.kv_capacity
        return DialogueConfig(
            kv_capacity=capacity,
            reply_tokens=min(512, capacity // 4),
            high_tokens=capacity * 3 // 4,
            low_tokens=capacity // 2,
            max_slices=self.duplex.max_slices or 1,
        )

    def directory(self) -> Path:
        """The checkpoint; raises ConfigError where none was named, and CheckpointError where `nano`
        is not in this installation."""
        if not self.checkpoint:
            raise ConfigError(
                "the local brain needs a checkpoint: set the parameter 'checkpoint' to its"
                " directory (`minicpmo checkpoint fetch` downloads one, `minicpmo checkpoint tiny`"
                " makes a small random one)"
            )
        return checkpoint_directory(self.checkpoint)


def _chunks(text: str) -> tuple[int, ...]:
    try:
        return checked_chunks([int(word) for word in text.replace(",", " ").split()])
    except ValueError:
        raise ConfigError(f"speech_chunks: '{text}': must be whole numbers of codes") from None


def _recipe(name: str, device: str, precision: str) -> Recipe | None:
    if not name:
        return None
    for parameter, value in (("device", device), ("precision", precision)):
        if value != "auto":
            raise ConfigError(
                f"{parameter}: '{value}' has no effect with the recipe '{name}', which says it"
                " itself; leave one of them out"
            )
    return load(name)


def _check_capacity(capacity: int, recipe: Recipe | None) -> None:
    if 0 < capacity < LEAST_CAPACITY:
        raise ConfigError(f"kv_capacity: {capacity} must be {LEAST_CAPACITY} or more, or 0")
    if recipe is None or recipe.llm.runtime not in TENSORRT or capacity <= recipe.kv_capacity:
        return
    raise ConfigError(
        f"kv_capacity: {capacity} is above the {recipe.kv_capacity} tokens that the recipe"
        f" '{recipe.name}' builds engines for; take fewer, or a recipe with a larger kv_capacity"
    )
