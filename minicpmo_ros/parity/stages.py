"""The stages of the network, each fed what the reference was fed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import torch

from minicpmo_ros.duplex.speech import CodeSampler, SpeechTurn
from minicpmo_ros.errors import InputError
from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.audio_stream import AudioStream, embed_sound
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.mel import CONTEXT, StreamingMel
from minicpmo_ros.model.part_configs import SliceConfig
from minicpmo_ros.model.picture import Slice, cut, slices
from minicpmo_ros.model.prompts import duplex_prompt
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.model.vision import VisionStage
from minicpmo_ros.parity.compare import Row, close, same
from minicpmo_ros.parity.draws import GREEDY, ReferenceNetwork
from minicpmo_ros.parity.entries import AudioStreamEntry, Picture, SpeechEntry
from minicpmo_ros.parity.golden import Golden
from minicpmo_ros.parity.inputs import picture, seconds_of, wave
from minicpmo_ros.parity.logits import compare_logits
from minicpmo_ros.runtime.torch_runtime import TorchNetwork

Tick = Callable[[], None]
"""Called once for each piece of work done, as `stages_work` counts them."""

# As reshape_by_patch lays them out: two patches.
HEAD_COLUMNS = 28


def stages_work(golden: Golden) -> int:
    """Pieces of work in `check_stages`: pictures, seconds of sound, and the rest one each."""
    batches = len(_batches(golden))
    stream = int(golden.audio_stream.seconds) if golden.audio_stream else 0
    others = (golden.voice, golden.greedy, golden.speech)
    return len(golden.pictures) + batches + stream + sum(one is not None for one in others)


def check_stages(
    golden: Golden, network: TorchNetwork, tokenizer: Tokenizer, tick: Tick
) -> Iterator[Row]:
    """A row for each entry of the stages, in the order of the data.

    Raises:
        InputError: the pair lacks an array, or names one that cannot be made sense of.
    """
    vision = cast(VisionStage, network.stages["vision"])
    audio = cast(Audio, network.stages["audio"])
    cutting = network.config.slices
    if golden.slicing:
        yield check_slicing(golden, cutting)
    for shown in golden.pictures:
        yield from check_picture(golden, shown, vision, cutting)
        tick()
    for key in _batches(golden):
        yield check_batch(golden, key, vision, cutting)
        tick()
    if golden.audio_stream is not None:
        yield from check_stream(golden, golden.audio_stream, audio, tick)
    if golden.voice is not None:
        yield from check_voice(golden, *golden.voice, audio)
        tick()
    yield from check_prompt(golden, tokenizer)
    if golden.greedy is not None:
        prompt = golden.prompt_prefix or duplex_prompt().ids(tokenizer)[0]
        yield from check_llm(golden, prompt, golden.greedy, cast(Llm, network.stages["llm"]))
        tick()
    if golden.speech is not None:
        yield from check_speech(golden, golden.speech, network)
        tick()


def check_slicing(golden: Golden, config: SliceConfig) -> Row:
    """Grid, source and cells of every size at every limit."""
    found, expected = {}, {}
    for one in golden.slicing:
        plan = cut(one.size, one.max_slices, config)
        columns, rows = plan.grid or (0, 0)
        cells = [[list(plan.cell or ())] * columns] * rows
        name = f"{one.size[0]}x{one.size[1]} in {one.max_slices}"
        grid = None if plan.grid is None else list(plan.grid)
        found[name] = {"grid": grid, "source": list(plan.source), "cells": cells}
        expected[name] = {"grid": one.grid, "source": one.source, "cells": one.cells}
    return same("slicing", found, expected, f"{len(golden.slicing)} pictures")


def check_picture(
    golden: Golden, shown: Picture, stage: VisionStage, config: SliceConfig
) -> Iterator[Row]:
    parts = _slices(shown.size, shown.seed, shown.max_slices, config)
    key, pixels = shown.key, parts[0].pixels
    yield same(f"{key} tgt_sizes", [[part.rows, part.columns] for part in parts], shown.tgt_sizes)
    if (name := f"{key}.pixels_head") in golden.arrays:
        yield close(name, pixels[:, :, :HEAD_COLUMNS], golden.array(name))
    if (name := f"{key}.pixels_mean_std") in golden.arrays:
        yield close(name, [pixels.mean(), pixels.std()], golden.array(name))
    yield close(key, stage.look(parts), golden.array(key))


def check_batch(golden: Golden, key: str, stage: VisionStage, config: SliceConfig) -> Row:
    """Whole pictures in one batch. The name has their sizes; they are those also shown alone."""
    seeds = {shown.size: shown.seed for shown in golden.pictures}
    parts: list[Slice] = []
    for width, height in re.findall(r"(\d+)x(\d+)", key):
        size = int(width), int(height)
        parts += _slices(size, seeds.get(size, golden.pictures[0].seed), 1, config)
    return close(key, stage.look(parts, batch_size=len(parts)), golden.array(key))


def check_stream(
    golden: Golden, entry: AudioStreamEntry, stage: Audio, tick: Tick
) -> Iterator[Row]:
    name = "audio_stream"
    sound = seconds_of(wave(entry.seconds, entry.seed))
    stream, mel = AudioStream(stage), StreamingMel(stage.config.mels)
    embeddings, lengths, windows = [], [], []
    for second in sound:
        embeddings.append(stream.step(second))
        lengths.append(stream.cache.length)
        windows.append(mel.push(second))
        tick()
    # In front of the first window there is no sound; the reference leaves those frames out.
    windows[:1] = [window[:, CONTEXT:] for window in windows[:1]]
    yield same(f"{name} kv_len", lengths, entry.kv_len)
    if entry.mel_frames is not None:
        yield same(f"{name} mel_frames", [window.shape[1] for window in windows], entry.mel_frames)
    for found in sorted(golden.names(r"audio_stream\.mel(\d+)"), key=lambda found: int(found[1])):
        if int(found[1]) >= len(windows):
            raise InputError(
                f"{golden.prefix}.npz has {found[0]}, but {golden.prefix.name}.json lists"
                f" {len(windows)} seconds"
            )
        yield close(found[0], windows[int(found[1])], golden.array(found[0]))
    yield close(f"{name}.emb", torch.stack(embeddings), golden.array(f"{name}.emb"))


def check_voice(golden: Golden, seconds: float, seed: int, stage: Audio) -> Iterator[Row]:
    """A whole sound, as a reference voice is read: by blocks of a second, and all at once."""
    sound = wave(seconds, seed)
    for name, blocks in (("audio_ref.chunk1", True), ("audio_ref.full", False)):
        found = embed_sound(stage, sound, blocks=blocks, reference_compat=True)
        yield close(name, found, golden.array(name))


def check_prompt(golden: Golden, tokenizer: Tokenizer) -> Iterator[Row]:
    halves = zip(
        ("prompt_prefix_ids", "prompt_suffix_ids"),
        duplex_prompt().ids(tokenizer),
        (golden.prompt_prefix, golden.prompt_suffix),
        strict=True,
    )
    for name, found, expected in halves:
        if expected is not None:
            yield same(name, found, expected)


def check_llm(golden: Golden, prompt: list[int], greedy: list[int], llm: Llm) -> Iterator[Row]:
    """The prompt, then the golden ids one by one, so that no mistake has a consequence."""
    cache = llm.cache(len(prompt) + len(greedy))
    with torch.inference_mode():
        hidden = [llm.extend(llm.embed(torch.tensor(prompt)), cache)[-1:]]
        hidden += [llm.extend(llm.embed(torch.tensor([token])), cache) for token in greedy]
        logits = llm.head(torch.cat(hidden)).numpy()
    yield close("llm.hidden", torch.cat(hidden), golden.array("llm.hidden"))
    yield from compare_logits(golden, "llm.logits", logits)
    yield same("llm greedy", logits[:-1].argmax(-1).tolist(), greedy)


def check_speech(golden: Golden, entry: SpeechEntry, plain: TorchNetwork) -> Iterator[Row]:
    """The condition, and chunk after chunk of one turn that all say the same."""
    thoughts = torch.from_numpy(np.asarray(golden.array("tts.hidden"), np.float32)).split(1)
    if len(thoughts) != len(entry.text_ids):
        raise InputError(
            f"{golden.prefix}: tts.hidden has {len(thoughts)} rows for"
            f" {len(entry.text_ids)} text_ids"
        )
    network = ReferenceNetwork(plain, entry.temperature)
    condition = network.condition(entry.text_ids, thoughts, text_ended=False, normalize=True)
    yield close("tts.condition", condition, golden.array("tts.condition"))
    eos = network.config.speech_sizes().eos
    turn = SpeechTurn(network, network.speech(), CodeSampler(eos, GREEDY))
    for number, codes in enumerate(entry.chunks, start=1):
        network.codes.expect([*codes, eos])
        yield same(f"tts chunk{number}", turn.chunk(entry.text_ids, thoughts), codes)


def _batches(golden: Golden) -> list[str]:
    """Arrays of pictures in one batch; only where pictures are listed, for they name the seed."""
    found = golden.names(r"vision\.batch(?:_\d+x\d+)+") if golden.pictures else ()
    return [one[0] for one in found]


def _slices(size: tuple[int, int], seed: int, max_slices: int, config: SliceConfig) -> list[Slice]:
    return slices(picture(*size, seed), max_slices, config)
