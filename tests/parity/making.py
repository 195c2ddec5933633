"""A golden pair of our own making, for any checkpoint: what our network says today, in the format.

It says nothing about the reference; it is there to be read back, with other sizes, and spoiled.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minicpmo_ros.duplex.speech import CodeSampler, SpeechTurn
from minicpmo_ros.model.audio_stream import embed_sound
from minicpmo_ros.model.mel import StreamingMel
from minicpmo_ros.model.picture import cut, slices
from minicpmo_ros.model.prompts import duplex_prompt
from minicpmo_ros.model.tiny import config_json, write_checkpoint
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.parity.draws import GREEDY
from minicpmo_ros.parity.entries import OPTIONS, Session
from minicpmo_ros.parity.inputs import picture, seconds_of, wave
from minicpmo_ros.parity.logits import logsumexp
from minicpmo_ros.parity.session import play
from minicpmo_ros.runtime.torch_runtime import TorchNetwork

Json = dict[str, Any]
Arrays = dict[str, Any]

SIZES = ((90, 60), (900, 500))
SECONDS = 3
VOICE = (1.5, 5)
TEMPERATURE = 1e-3


def write_wide(directory: Path, seed: int) -> Path:
    """Another size of everything that has one, pictures included; 3000 tokens."""
    config = config_json("wide", 3000)
    config["slice_config"] |= {"scale_resolution": 210}
    return write_checkpoint(directory, seed, config)


def make_pair(checkpoint: Path, prefix: Path) -> Path:
    """Write PREFIX.json and PREFIX.npz with an entry of every kind; returns the prefix."""
    network, tokenizer = TorchNetwork.load(checkpoint), Tokenizer(checkpoint)
    before, after = duplex_prompt().ids(tokenizer)
    arrays: Arrays = {}
    listed: Json = {
        "made by": "minicpmo_ros",
        "slicing": _slicing(network),
        "vision": _vision(network, arrays),
        "audio_stream": _stream(network, arrays),
        "audio_ref": _voice(network, arrays),
        "prompt_prefix_ids": before,
        "prompt_suffix_ids": after,
        "llm": _llm(network, before, arrays),
        "tts": _speech(network, arrays),
        "token_bytes": {str(token): tokenizer.bytes_of(token).hex() for token in range(270, 280)},
    }
    for session in _sessions(tokenizer):
        listed[session.name] = _session(session, (before, after), network, tokenizer, arrays)
    write_pair(prefix, listed, arrays)
    return prefix


def write_pair(prefix: Path, listed: Json, arrays: Arrays) -> None:
    prefix.with_name(prefix.name + ".json").write_text(json.dumps(listed))
    np.savez(prefix.with_name(prefix.name + ".npz"), **arrays)


def read_pair(prefix: Path) -> tuple[Json, Arrays]:
    """What may be changed and written again."""
    listed = json.loads(prefix.with_name(prefix.name + ".json").read_text())
    with np.load(prefix.with_name(prefix.name + ".npz")) as arrays:
        return listed, dict(arrays)


def _slicing(network: TorchNetwork) -> list[Json]:
    made = []
    for size in SIZES:
        for limit in (1, 4):
            plan = cut(size, limit, network.config.slices)
            columns, rows = plan.grid or (0, 0)
            cells = [[plan.cell] * columns] * rows
            made.append(
                {"size": size, "max_slice_nums": limit, "grid": plan.grid, "source": plan.source}
                | {"cells": cells}
            )
    return made


def _vision(network: TorchNetwork, arrays: Arrays) -> list[Json]:
    made, wholes = [], []
    for (width, height), limit in zip(SIZES, (1, 2), strict=True):
        parts = slices(picture(width, height, 4), limit, network.config.slices)
        key, pixels = f"vision.{width}x{height}_s{limit}", parts[0].pixels
        arrays[key] = np.stack([network.look([part])[0] for part in parts])
        arrays[f"{key}.pixels_head"] = pixels[..., :28]
        arrays[f"{key}.pixels_mean_std"] = np.array([pixels.mean(), pixels.std()])
        wholes += slices(picture(width, height, 4), 1, network.config.slices)
        made.append(
            {"key": key, "size": [width, height], "max_slice_nums": limit, "image_seed": 4}
            | {"tgt_sizes": [[part.rows, part.columns] for part in parts]}
        )
    names = "_".join(f"{width}x{height}" for width, height in SIZES)
    arrays[f"vision.batch_{names}"] = np.stack(network.look(wholes))
    return made


def _stream(network: TorchNetwork, arrays: Arrays) -> Json:
    ears, mel = network.ears(), StreamingMel()
    sound = seconds_of(wave(SECONDS, 6))
    arrays["audio_stream.emb"] = np.stack([ears.step(second) for second in sound])
    windows = [mel.push(second) for second in sound]
    arrays["audio_stream.mel0"], arrays["audio_stream.mel2"] = windows[0][:, 2:], windows[2]
    lengths = [50 * (second + 1) for second in range(SECONDS)]
    return {"seconds": SECONDS, "wave_seed": 6, "kv_len": lengths, "mel_frames": [102, 104, 104]}


def _voice(network: TorchNetwork, arrays: Arrays) -> Json:
    audio: Any = network.stages["audio"]
    arrays["audio_ref.chunk1"] = embed_sound(audio, wave(*VOICE)).numpy()
    arrays["audio_ref.full"] = embed_sound(audio, wave(*VOICE), blocks=False).numpy()
    return {"seconds": VOICE[0], "wave_seed": VOICE[1]}


def _llm(network: TorchNetwork, prompt: list[int], arrays: Arrays) -> Json:
    context = network.context(64)
    hidden, logits, fed = [], [], prompt
    for _ in range(4):
        hidden.append(context.read(fed)[-1:])
        logits.append(context.logits(hidden[-1]))
        fed = [int(logits[-1].argmax())]
    arrays["llm.hidden"] = torch.cat(hidden).numpy()
    _keep_logits("llm.logits", np.stack(logits), arrays)
    return {"greedy": [int(step.argmax()) for step in logits[:-1]]}


def _speech(network: TorchNetwork, arrays: Arrays) -> Json:
    ids = [300, 301, 302]
    hidden = torch.randn(3, network.config.llm.hidden, generator=torch.Generator().manual_seed(0))
    arrays["tts.hidden"] = hidden.numpy()
    thoughts = list(hidden.split(1))
    condition = network.condition(ids, thoughts, text_ended=False, normalize=True)
    arrays["tts.condition"] = condition.numpy()
    eos = network.config.speech.eos
    turn = SpeechTurn(network, network.speech(), CodeSampler(eos, GREEDY))
    chunks = {f"chunk{number}": turn.chunk(ids, thoughts) for number in (1, 2)}
    return {"text_ids": ids, "temperature": TEMPERATURE} | chunks


def _sessions(tokenizer: Tokenizer) -> list[Session]:
    """One with pictures and speech, by a script; and one for each window."""
    control = tokenizer.control
    scripted = Session(
        name="duplex_scripted", window="off", units=4, pictures=(60, 80, 3), wave_seed=9,
        voice=VOICE, forced_listens=1, length_penalty=1.1, speech_temperature=TEMPERATURE, bias={},
        options={}, prompt_length=0, total_ids=[], previous_ids=[],
        script=[
            None,
            ["<|speak|>", 300, 301, "<|chunk_eos|>"],
            ["<|speak|>", 302, "<|turn_eos|>", "<|chunk_eos|>", 303],
            ["<|listen|>"],
        ],
        rows=[{"vocoder": [[[], False]]} for _ in range(4)],
    )  # fmt: skip
    windows = {
        "basic": {"high_tokens": 90, "low_tokens": 70},
        "context": {"max_units": 2, "previous_tokens": 9},
    }
    greedy = [
        replace(
            scripted, name=f"duplex_{window}", window=window, options=options, units=6, script=None,
            pictures=None, bias={control.speak: 9.0, control.chunk_eos: 1.0}, rows=[{}] * 6,
        )
        for window, options in windows.items()
    ]  # fmt: skip
    return [scripted, *greedy]


def _session(
    session: Session,
    prompt: tuple[list[int], list[int]],
    network: TorchNetwork,
    tokenizer: Tokenizer,
    arrays: Arrays,
) -> Json:
    played = play(session, prompt, network, tokenizer, lambda: None)
    _keep_logits(f"{session.name}.unit_logits", played.decisions, arrays)
    arrays[f"{session.name}.K_last8"] = played.keys[:, :, -8:]
    width, height, seed = session.pictures or (0, 0, 0)
    names = {ours: name for name, ours in OPTIONS.items()}
    options = {names[ours]: value for ours, value in session.options.items()}
    frames = {"width": width, "height": height, "seed_of_unit_0": seed}
    return {
        "window": session.window,
        "units": session.units,
        "frames": frames if session.pictures else None,
        "wave_seed": session.wave_seed,
        "ref_wave": session.voice,
        "force_listen_count": session.forced_listens,
        "decode": "greedy",
        "length_penalty": session.length_penalty,
        "tts_temperature": session.speech_temperature,
        "logit_bias_added_to_lm_head": session.bias,
        "options": options,
        "scripted_samples": session.script,
        "prompt_cache_len": played.prompt_length,
        "rows": played.rows,
        "total_ids": played.total_ids,
        "previous_ids": played.previous_ids,
    }


def _keep_logits(name: str, logits: np.ndarray, arrays: Arrays) -> None:
    ids = np.argsort(-logits, axis=-1)[:, :64]
    arrays[f"{name}.top_ids"] = ids.astype(np.int32)
    arrays[f"{name}.top_values"] = np.take_along_axis(logits, ids, -1)
    arrays[f"{name}.logsumexp"] = logsumexp(logits)
    arrays[f"{name}.every_997th"] = logits[:, ::997]
