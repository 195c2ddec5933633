"""A recipe: which runtime and precision each part of the network has on a kind of machine.

One YAML file a recipe, in engines/ or of one's own. What in it is unknown, of the wrong type or
without effect is refused when it is read.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.flow.solver import TABLE_STEPS
from minicpmo_ros.runtime.engines.recipe_key import check, key, keys_of, table
from minicpmo_ros.runtime.engines.recipe_rules import (
    DEVICE,
    PRECISIONS,
    RUNTIMES,
    TABLE_PRECISIONS,
    TARGETS,
    TENSORRT,
    VOCODER_PRECISIONS,
    check_together,
)
from minicpmo_ros.share import share_directory

Settings = TypeVar("Settings")

_RUNTIME = "What runs it; empty: as the recipe has it."
_PRECISION = "Of its matrices; empty: as the recipe has it."
_HEAD = "Precision of what makes logits; empty: as the layers."
_TABLE = "Precision of the tables of embeddings, which stay in main memory."


@dataclass(frozen=True)
class VisionRecipe:
    """The vision encoder with its resampler."""

    runtime: str = key("", _RUNTIME, choices=("", *RUNTIMES))
    precision: str = key("", _PRECISION, choices=("", *PRECISIONS))
    patches: tuple[int, ...] = key(
        (),
        "Most patches of a slice for which TensorRT optimises, one profile each, rising.",
        low=1,
        high=4900,
    )

    def __post_init__(self) -> None:
        check(self, "vision.")
        if list(self.patches) != sorted(set(self.patches)):
            raise ConfigError(f"vision.patches: {list(self.patches)} must rise")


@dataclass(frozen=True)
class AudioRecipe:
    """The audio encoder, one second at a time."""

    runtime: str = key("", _RUNTIME, choices=("", *RUNTIMES))
    precision: str = key("", _PRECISION, choices=("", *PRECISIONS))

    def __post_init__(self) -> None:
        check(self, "audio.")


@dataclass(frozen=True)
class LlmRecipe:
    """The language model."""

    runtime: str = key("", _RUNTIME, choices=("", *RUNTIMES))
    precision: str = key("", _PRECISION, choices=("", *PRECISIONS))
    head: str = key("", _HEAD, choices=("", *PRECISIONS))
    embeddings: str = key("", _TABLE, choices=("", *TABLE_PRECISIONS))
    layers_per_file: int = key(
        4, "Layers that are built together: more need more memory while building.", low=1, high=128
    )
    prefill: int = key(512, "Tokens that are read in one step, at most.", "tokens", 16, 8192)

    def __post_init__(self) -> None:
        check(self, "llm.")


@dataclass(frozen=True)
class SpeechRecipe:
    """The decoder of speech codes."""

    runtime: str = key("", _RUNTIME, choices=("", *RUNTIMES))
    precision: str = key("", _PRECISION, choices=("", *PRECISIONS))
    head: str = key("", _HEAD, choices=("", *PRECISIONS))
    embeddings: str = key("", _TABLE, choices=("", *TABLE_PRECISIONS))

    def __post_init__(self) -> None:
        check(self, "speech.")


@dataclass(frozen=True)
class VocoderRecipe:
    """What makes sound of codes, where the checkpoint has its assets."""

    runtime: str = key("", _RUNTIME, choices=("", *RUNTIMES))
    precision: str = key(
        "",
        "Of the flow network's matrices; empty: fp16 on a card, else fp32. HiFT is always in fp32.",
        choices=("", *VOCODER_PRECISIONS),
    )
    steps: int = key(
        TABLE_STEPS,
        "Of the flow network's solver, where the node's `speech_steps` is 0: fewer are faster and "
        "sound worse.",
        low=1,
        high=TABLE_STEPS,
    )

    def __post_init__(self) -> None:
        check(self, "vocoder.")


@dataclass(frozen=True)
class WindowRecipe:
    """What a long conversation forgets; see the omni node's parameter `window`."""

    kind: str = key("basic", "As the omni node's `window`.", choices=("basic", "context", "off"))
    high: int = key(
        4000, "Kind basic: above so many tokens the oldest units go.", "tokens", 1, 10**6
    )
    low: int = key(3500, "Kind basic: they go down to so many.", "tokens", 0, 10**6)
    units: int = key(24, "Kind context: units that are kept.", "units", 1, 10**5)
    previous: int = key(
        500, "Kind context: what the robot said before them, at most.", "tokens", 0, 10**5
    )

    def __post_init__(self) -> None:
        check(self, "window.")
        if self.low > self.high:
            raise ConfigError(
                f"window.low: {self.low} is above window.high, {self.high}; the window slides from"
                " high to low"
            )


Part = VisionRecipe | AudioRecipe | LlmRecipe | SpeechRecipe


@dataclass(frozen=True)
class Recipe:
    """How the whole network runs. What parts left empty is filled in: nothing here is empty then.

    Raises:
        ConfigError: a value is unknown or out of its range, a runtime does not take a precision, or
            a key has no effect with the runtimes that are chosen; the message begins with the key.
    """

    name: str = key("", "What it is called; the file's name.")
    description: str = key("", "For which machines, in a few words.")
    runtime: str = key("onnxruntime", "What runs the parts that do not say.", choices=RUNTIMES)
    precision: str = key(
        "", "Of the parts that do not say; with torch, of all.", choices=("", *PRECISIONS)
    )
    device: str = key(
        "cpu",
        "Where onnxruntime and torch compute; auto is torch's alone.",
        form=DEVICE,
    )
    threads: int = key(0, "Of torch and onnxruntime on a CPU; 0: one a core.", low=0, high=256)
    vision: VisionRecipe = field(default_factory=VisionRecipe)
    audio: AudioRecipe = field(default_factory=AudioRecipe)
    llm: LlmRecipe = field(default_factory=LlmRecipe)
    speech: SpeechRecipe = field(default_factory=SpeechRecipe)
    vocoder: VocoderRecipe = field(default_factory=VocoderRecipe)
    targets: tuple[str, ...] = key(
        (), "tensorrt_rtx: cards to build for; none: all from sm80 on.", choices=TARGETS
    )
    scaling: str = key(
        "none",
        "How matrices of four bits are scaled before rounding: awq, by the inputs that they meet "
        "in a calibration bag, or none.",
        choices=("awq", "none"),
    )
    kv_capacity: int = key(8192, "Context that fits, at most.", "tokens", 128, 1_000_000)
    window: WindowRecipe = field(default_factory=WindowRecipe)
    forced_listens: int = key(3, "So many first units only listen.", "units", 0, 1000)

    def __post_init__(self) -> None:
        check(self, "")
        if self.runtime == "torch" and not self.precision:
            object.__setattr__(self, "precision", "auto")
        for name in PARTS:
            object.__setattr__(self, name, self._filled(getattr(self, name)))
        runtime = self.vocoder.runtime or self.runtime
        usual = "fp16" if self.on_card(runtime) else "fp32"
        precision = self.vocoder.precision or usual
        vocoder = replace(self.vocoder, runtime=runtime, precision=precision)
        object.__setattr__(self, "vocoder", vocoder)
        check_together(self)

    @property
    def parts(self) -> dict[str, Part]:
        """By name: vision, audio, llm, speech. The vocoder stands by itself."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def runtimes(self) -> set[str]:
        """All that the network needs, the vocoder left out."""
        return {part.runtime for part in self.parts.values()}

    def on_card(self, runtime: str) -> bool:
        """Whether what has this runtime runs on a graphics card."""
        return runtime in TENSORRT or self.device.startswith("cuda")

    def _filled(self, part: Part) -> Part:
        runtime = part.runtime or self.runtime
        precision = part.precision or self.precision
        part = replace(part, runtime=runtime, precision=precision)
        if isinstance(part, LlmRecipe | SpeechRecipe):
            table = precision if runtime == "torch" else "fp16"
            part = replace(part, head=part.head or precision, embeddings=part.embeddings or table)
        return part


PARTS = ("vision", "audio", "llm", "speech")
_SECTIONS: dict[str, type] = {
    "vision": VisionRecipe,
    "audio": AudioRecipe,
    "llm": LlmRecipe,
    "speech": SpeechRecipe,
    "vocoder": VocoderRecipe,
    "window": WindowRecipe,
}


def names() -> list[str]:
    """The recipes that come with the package; raises MinicpmoError where share/ is missing."""
    return sorted(file.stem for file in (share_directory() / "engines").glob("*.yaml"))


def load(recipe: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        recipe: a name of `names()`, or the path of a YAML file.

    Raises:
        ConfigError: there is no such recipe, or something in it is wrong; the message names the
            file, the key, its value and what would be right.
    """
    file = Path(recipe).expanduser()
    if file.suffix not in (".yaml", ".yml") and len(file.parts) == 1:
        file = share_directory() / "engines" / f"{recipe}.yaml"
        if not file.is_file():
            known = names()
            near = difflib.get_close_matches(str(recipe), known, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise ConfigError(
                f"recipe '{recipe}' is unknown{hint}; there are {', '.join(known)}, or give the"
                " path of a YAML file"
            )
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"recipe {file} cannot be read: {error}") from None
    try:
        return of({"name": file.stem, **_mapping("", {} if content is None else content)})
    except ConfigError as error:
        raise ConfigError(f"recipe {file}: {error}") from None


def of(content: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values, as they stand in a file; see `Recipe` for what it raises."""
    values: dict[str, Any] = dict(content)
    for name, section in _SECTIONS.items():
        if name in values:
            values[name] = _of(section, f"{name}.", _mapping(name, values[name]))
    return _of(Recipe, "", values)


def _of(kind: type[Settings], prefix: str, values: Mapping[str, Any]) -> Settings:
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" (did you mean '{prefix}{near[0]}'?)" if near else ""
            where = f"{prefix.rstrip('.')} has" if prefix else "a recipe has"
            raise ConfigError(f"key '{prefix}{name}' is unknown{hint}; {where}: {', '.join(known)}")
    plain = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    for name, declared in keys_of(kind).items():
        if plain.get(name) is False and "off" in declared.choices:
            plain[name] = "off"  # YAML takes this word for false
    return kind(**plain)


def _mapping(name: str, content: object) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        what = f"'{name}'" if name else "a recipe"
        raise ConfigError(f"{what} must be keys with values, not {content!r}")
    return content


def in_torch(recipe: Recipe, precision: str, device: str) -> Recipe:
    """A recipe for torch with another precision and device, such as those that `auto` means."""
    kept = ("name", "description", "threads", "vocoder", "kv_capacity", "window", "forced_listens")
    values = {name: getattr(recipe, name) for name in kept}
    return Recipe(runtime="torch", precision=precision, device=device, **values)


def markdown() -> str:
    """The table of all keys in docs/engines.md."""
    lines = ["| key | default | range | meaning |", "|---|---|---|---|", *table(Recipe)]
    return "\n".join(lines) + "\n"
