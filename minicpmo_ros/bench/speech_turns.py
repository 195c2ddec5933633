"""Turns of speech through one vocoder, in a process of its own: its times and its memory.

    python -m minicpmo_ros.bench.speech_turns SPEC.json

prints one line of JSON: figures by name. No torch but where the recipe asks for it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from minicpmo_ros.bench.process import tick
from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.prompt import VoicePrompt
from minicpmo_ros.model.flow.stream import FlowOptions, FlowStream
from minicpmo_ros.model.hift.stream import VocoderStream
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.host_memory import peak_bytes
from minicpmo_ros.runtime.vocoder import VocoderNetworks, load_vocoder

MS = 1e3
# Tokens of the chunks behind a first one of so many: they meet again at 25.
SCHEDULES = {8: (8, 17, 25), 12: (12, 13, 25), 25: (25,)}
READS = 3


def measure(spec: dict[str, Any]) -> dict[str, float]:
    """Load, read a voice and say turns.

    spec: directory (with assets), recipe (plain values), steps and firsts (lists: all pairs are
    measured), tokens (of a turn), voice (tokens of the prompt), rounds (turns behind one to warm
    up), threads, bytes (that a step of the solver reads of its weights), frames (a file for the
    last frames, or "").

    Returns:
        For each pair as "10.8.": first_ms (from the last of the tokens that are waited for to the
        first sound), first_tokens (that must be there before), first_sound_s (that is there then),
        turn_s, flow_s, hift_s, sound_s, chunk_ms (of 25 tokens, later in the turn); and of each
        chunk that gives sound, as "chunk1.": tokens (that must be there), made_ms (since the first
        chunk was begun, tokens being there when they are wanted), ready_ms (of speech, from the
        beginning of the turn) and, but for the first, reserve_ms (of speech that is not heard yet
        when the chunk comes, if the first is heard at once; below 0 there is a gap). And rss.begun,
        rss.loaded, rss.peak and pasts in bytes, card.peak (of a card's memory, that torch has taken
        at most) where torch runs on one, read_ms (one read of so many bytes), voice_s (that reading
        the voice took), torch (1 if it was loaded).
    """
    begun = peak_bytes()
    wanted = recipe.of(spec["recipe"])
    networks = load_vocoder(spec["directory"], recipe=wanted, threads=spec["threads"])
    found: dict[str, float] = {"rss.begun": begun, "rss.loaded": peak_bytes(), "pasts": 0}
    voice = random_voice(networks.flow.config, spec["voice"])
    frames = np.zeros(0, np.float32)
    for steps in spec["steps"]:
        began = time.perf_counter()
        flow = FlowStream(networks.flow, voice, FlowOptions(steps=steps))
        found["voice_s"] = max(found.get("voice_s", 0.0), time.perf_counter() - began)
        found["pasts"] = max(found["pasts"], flow.nbytes)
        for first in spec["firsts"]:
            turns = []
            for _ in range(spec["rounds"] + 1):
                one, frames = _turn(flow, networks, SCHEDULES[first], spec["tokens"])
                turns.append(one)
                tick()
            names = turns[0].keys()
            found |= {
                f"{steps}.{first}.{name}": median(one[name] for one in turns[1:]) for name in names
            }
        if spec["frames"] and steps == max(spec["steps"]):
            np.save(spec["frames"], frames)
        del flow
    found["rss.peak"] = peak_bytes()
    if wanted.vocoder.runtime == "torch" and wanted.device.startswith("cuda"):
        import torch

        from minicpmo_ros.bench import memory

        found["card.peak"] = memory.peak_bytes(torch.device(wanted.device))
    found["read_ms"] = _read_ms(spec["bytes"])
    found["torch"] = float("torch" in sys.modules)
    return found


def _turn(
    flow: FlowStream, networks: VocoderNetworks, schedule: tuple[int, ...], tokens: int
) -> tuple[dict[str, float], np.ndarray]:
    """Times of one turn whose tokens are all there, and its frames [frames, mels]."""
    flow.reset()
    hift = VocoderStream(networks.hift, networks.hift_config, lead_silence=False)
    ids = np.random.default_rng(1).integers(0, flow.flow.config.tokens, tokens)
    found = {"flow_s": 0.0, "hift_s": 0.0}
    frames, samples, given, said, sounding = [], 0, 0, 0, 0
    ms_per_sample = MS / networks.hift_config.rate_hz
    for number in range(tokens):
        chunk = schedule[min(number, len(schedule) - 1)]
        said += chunk
        stop = min(said + flow.look_ahead, tokens)
        last = stop == tokens
        began = time.perf_counter()
        mel = flow.push(ids[given:stop], last=last)
        heard = time.perf_counter()
        sound = hift.push(np.ascontiguousarray(mel.T), last=last)
        ended = time.perf_counter()
        frames.append(mel)
        given = stop
        found["flow_s"] += heard - began
        found["hift_s"] += ended - heard
        made_ms = (found["flow_s"] + found["hift_s"]) * MS
        if len(sound):
            sounding += 1
            if samples:
                heard_ms = made_ms - found["first_ms"]
                found[f"chunk{sounding}.reserve_ms"] = samples * ms_per_sample - heard_ms
            found[f"chunk{sounding}.tokens"] = stop
            found[f"chunk{sounding}.made_ms"] = made_ms
            found[f"chunk{sounding}.ready_ms"] = (samples + len(sound)) * ms_per_sample
        if len(sound) and not samples:
            found["first_ms"] = made_ms
            found["first_tokens"] = stop
            found["first_sound_s"] = len(sound) / networks.hift_config.rate_hz
        elif chunk == schedule[-1] and not last:
            found["chunk_ms"] = (ended - began) * MS
        samples += len(sound)
        if last:
            break
    found["turn_s"] = found["flow_s"] + found["hift_s"]
    found["sound_s"] = samples / networks.hift_config.rate_hz
    return found, np.concatenate(frames)


def random_voice(config: FlowConfig, tokens: int) -> VoicePrompt:
    """A voice of so many tokens, 25 a second, that networks of these sizes can go on from."""
    random = np.random.default_rng(0)
    up = config.conformer.up
    return VoicePrompt(
        random.integers(0, config.tokens, tokens),
        random.standard_normal((up * tokens, config.mels), dtype=np.float32),
        random.standard_normal(config.voice, dtype=np.float32),
    )


def _read_ms(nbytes: int) -> float:
    """Of main memory, on one core: the least that what reads so many bytes can take there."""
    block = np.ones(nbytes // 8, np.int64)
    spans = []
    for _ in range(READS):
        began = time.perf_counter()
        block.sum()
        spans.append((time.perf_counter() - began) * MS)
    return min(spans)


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(Path(sys.argv[1]).read_text()))))
