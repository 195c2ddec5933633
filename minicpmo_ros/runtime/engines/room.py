"""Whether a network fits into the memory where it will run, and what would fit where it does not.

Asked before anything is begun. No torch, but for recipes that run on it.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass, replace

from minicpmo_ros.errors import ConfigError, EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.vocoder import VocoderConfig
from minicpmo_ros.runtime.engines import recipe as recipes
from minicpmo_ros.runtime.engines.build_lock import Say
from minicpmo_ros.runtime.engines.disk import bytes_text
from minicpmo_ros.runtime.engines.host_memory import total_bytes
from minicpmo_ros.runtime.engines.pieces import PROCESS_BYTES
from minicpmo_ros.runtime.engines.planning import (
    RunMemory,
    run_memory,
    vocoder_is_beside,
    vocoder_memory,
)
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.engines.recipe_rules import TENSORRT
from minicpmo_ros.runtime.trt.card import Card

# A smaller context is no help: a prompt with a picture takes a good part of it.
LEAST_CAPACITY = 1024
STEP = 256
CPU_RECIPE = "cpu"


@dataclass(frozen=True)
class Room:
    """Memory where a network is to run, in bytes.

    nbytes: that it may take; 0: not known here. about: how much there is and where, or why that is
    not known. card: of a card with memory of its own, all that it has; else 0.
    """

    nbytes: int
    about: str
    card: int = 0


def host_room() -> Room:
    """The main memory of this machine, all of it."""
    total = total_bytes()
    return Room(total, f"there are {bytes_text(total)}")


def room_for(recipe: Recipe, runtime: str) -> Room:
    """Where a runtime of a recipe keeps what it runs: main memory, or what nobody uses of the
    memory of a card. What CPU and GPU share is main memory, as on a Jetson."""
    if not recipe.on_card(runtime):
        return host_room()
    index = 0 if runtime in TENSORRT else int(recipe.device.partition(":")[2] or 0)
    gc.collect()  # of a network that was closed, something may still hold the card's memory
    try:
        if runtime == "torch":
            return _torch_room(index)
        card = Card(index)
        if runtime == "tensorrt_rtx" and recipe.targets and card.target not in recipe.targets:
            return Room(0, f"the recipe does not build for the card that is here, {card.about}")
        if card.shares_memory:
            return _shared()
        return _of_card(card.name, card.free_bytes, card.total_bytes)
    except EngineError as error:
        return Room(0, str(error))


def _torch_room(index: int) -> Room:
    import torch

    if index >= torch.cuda.device_count():
        return Room(0, f"torch finds no card {index} here")
    about = torch.cuda.get_device_properties(index)
    if getattr(about, "is_integrated", False):
        return _shared()
    free, total = torch.cuda.mem_get_info(index)
    kept = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    return _of_card(about.name, free + kept, total)


def _shared() -> Room:
    room = host_room()
    return replace(room, about=f"{room.about}, which CPU and GPU share")


def _of_card(name: str, free: int, total: int) -> Room:
    about = f"there are {bytes_text(free)} free of the {bytes_text(total)} of {name}"
    return Room(max(free, 1), about, total)


def check_build_memory(recipe: Recipe, to_build: int, free: int) -> None:
    """Raise EngineError where a build will not fit; see `check_memory`."""
    if free and to_build > free:
        raise EngineError(
            f"building for the recipe '{recipe.name}' takes {bytes_text(to_build)} of memory at"
            f" once, {bytes_text(free)} are free: end other programs, or build on a larger machine"
            " and copy the folder of engines (`minicpmo engines list` names it)"
        )


def check_making(recipe: Recipe, memory: int, free: int) -> None:
    """Raise EngineError where a single file cannot be made now; what this process has loaded for it
    is taken already.

    memory: bytes that making it takes; free: see `check_memory`.
    """
    loaded = PROCESS_BYTES if "torch" in sys.modules else 0
    check_build_memory(recipe, memory - loaded, free)


def check_memory(
    config: ModelConfig,
    recipe: Recipe,
    room: Room,
    to_build: int,
    free: int,
    kv_tokens: int = 0,
    vocoder: VocoderConfig | None = None,
    say: Say = lambda text: None,
) -> None:
    """Raise EngineError where a build, or what it makes, will not fit; nothing was begun then.

    Args:
        room: where the network is to run.
        to_build: bytes of main memory that building takes; 0: nothing is to be built. free: bytes
            of it that may be taken now; 0: not known.
        kv_tokens: of context, in place of the recipe's; 0: the recipe's.
        vocoder: sizes of the one that speaks for the network, if one does.
        say: is told where it is to run on a card of which nothing is known here.
    """
    check_build_memory(recipe, to_build, free)
    need = run_memory(config, recipe, kv_tokens, vocoder)
    if not room.nbytes and need.where == "card":
        say(_unknown("the network", need.total, room))
    if not room.nbytes or need.total <= room.nbytes:
        return
    where = "the card's memory" if need.where == "card" else need.where
    speaks = f"the vocoder {bytes_text(need.vocoder)}, " if need.vocoder else ""
    said = (
        f"with {_name(recipe)} the network takes {bytes_text(need.total)} of {where} (weights"
        f" {bytes_text(need.weights)}, {need.kv_tokens} tokens of context {bytes_text(need.kv)},"
        f" {speaks}the rest {bytes_text(need.sound + need.work)}), and {room.about};"
        f" {_advice(config, recipe, room, need, vocoder)}"
    )
    if to_build and room.card and recipe.llm.runtime != "tensorrt":
        said += "; to build for another machine, hide this card: set CUDA_VISIBLE_DEVICES to ''"
    raise EngineError(said)


def check_vocoder_memory(
    config: VocoderConfig, recipe: Recipe, room: Room, say: Say = lambda text: None
) -> None:
    """Raise EngineError where a vocoder will not fit. room: where it is to run. say: is told where
    that is a card of which nothing is known here, if the network's check has not told it."""
    need = vocoder_memory(config, recipe)
    on_card = recipe.on_card(recipe.vocoder.runtime)
    if not room.nbytes and on_card and not vocoder_is_beside(recipe):
        say(_unknown("the vocoder", need, room))
    if room.nbytes and need > room.nbytes:
        raise EngineError(
            f"with {_name(recipe)} the vocoder takes {bytes_text(need)}, and {room.about}: take a"
            " smaller kv_capacity for the network beside it, or run it elsewhere"
            " (vocoder.runtime)"
        )


def _unknown(what: str, need: int, room: Room) -> str:
    return (
        f"{what} takes {bytes_text(need)} of the card's memory, and whether that is free is not"
        f" known here ({room.about})"
    )


def _name(recipe: Recipe) -> str:
    return f"the recipe '{recipe.name}'" if recipe.name else "this recipe"


def _advice(
    config: ModelConfig,
    recipe: Recipe,
    room: Room,
    need: RunMemory,
    vocoder: VocoderConfig | None,
) -> str:
    """All that was reckoned to fit."""

    def fitting(other: Recipe, where: Room) -> int:
        return _tokens(run_memory(config, other, need.kv_tokens, vocoder), where)

    ways = []
    if need.total <= room.card:
        ways.append("it would fit if nothing else used the card (`nvidia-smi` lists what does)")
    alone = fitting(recipe, room)
    if alone >= LEAST_CAPACITY:
        ways.append(
            f"kv_capacity: {alone} would fit, with window_high_tokens a few hundred below it"
        )
    others: list[tuple[str, Recipe, Room]] = []
    if (fewer := _fewer_bits(recipe)) is not None:
        others.append((*fewer, room))
    if need.where == "card" and (cpu := _on_cpu()) is not None:
        others.append((f"the recipe '{cpu.name}' in main memory", cpu, host_room()))
    for name, other, where in others:
        tokens = fitting(other, where) if where.nbytes else 0
        if tokens >= need.kv_tokens:
            ways.append(f"{name} would fit")
        elif tokens >= LEAST_CAPACITY:
            ways.append(f"{name}, with kv_capacity: {tokens}, would fit")
    said = "; or ".join(ways) or "take a smaller checkpoint, or a machine with more memory"
    if alone >= LEAST_CAPACITY:
        return said
    least = min(LEAST_CAPACITY, need.kv_tokens)
    few = run_memory(config, recipe, least, vocoder)
    return f"even with {least} tokens it takes {bytes_text(few.total)}: {said}"


def _tokens(need: RunMemory, room: Room) -> int:
    """How many tokens of context fit, all that are asked for or a multiple of STEP below."""
    if need.total <= room.nbytes:
        return need.kv_tokens
    rest = room.nbytes - (need.total - need.kv)
    fits = int(rest / (need.kv / need.kv_tokens)) if rest > 0 else 0
    return fits // STEP * STEP


def _fewer_bits(recipe: Recipe) -> tuple[str, Recipe] | None:
    """The same with a language model of four bits, and the keys that say so; None if it has it."""
    if recipe.runtimes == {"torch"}:
        if recipe.precision == "int4":
            return None
        return "precision: int4", recipes.in_torch(recipe, "int4", recipe.device)
    keys = [key for key in ("precision", "head") if getattr(recipe.llm, key) != "int4"]
    if not keys:
        return None
    try:
        fewer = replace(recipe, llm=replace(recipe.llm, precision="int4", head="int4"))
    except ConfigError:  # the runtime, or a target, does not take them
        return None
    return " and ".join(f"llm.{key}: int4" for key in keys), fewer


def _on_cpu() -> Recipe | None:
    try:
        return recipes.load(CPU_RECIPE)
    except ConfigError:
        return None
