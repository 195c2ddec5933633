"""The encoders as files under onnxruntime, against torch in single precision and in bfloat16."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import torch

from minicpmo_ros.bench.noise import noise_picture, noise_sound
from minicpmo_ros.bench.random_network import random_stage
from minicpmo_ros.bench.random_pieces import write_random
from minicpmo_ros.bench.turn_about import Work, turn_about
from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.audio_stream import AudioStream
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.picture import batch, slices
from minicpmo_ros.model.vision import VisionStage
from minicpmo_ros.runtime.engines.pieces import Piece
from minicpmo_ros.runtime.hearing import Hearing
from minicpmo_ros.runtime.ort.stages import OrtCachedStage, OrtStage

DTYPES = {"torch fp32": torch.float32, "torch bf16": torch.bfloat16}
CPU = torch.device("cpu")


def encoder_ms(config: ModelConfig, threads: int, rounds: int = 5) -> dict[str, float]:
    """Time in ms of a picture of 640 x 480 ("vision.ours", "vision.torch bf16" and so on) and of a
    second of sound in a stream."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="minicpmo_bench_") as folder:
        for name, works in (("vision", _vision), ("audio", _audio)):
            piece = Piece(name, "onnxruntime", "int8")
            (file,) = write_random(config, [piece], Path(folder)).values()
            times = turn_about(works(config, file, threads), rounds)
            found |= {f"{name}.{way}": ms for way, ms in times.items()}
    return found


def _vision(config: ModelConfig, file: Path, threads: int) -> dict[str, Work]:
    shown = slices(noise_picture(0), 1, config.slices)
    found = batch(shown, config.vision.side)
    feed = {"pixels": found.pixels, "position_ids": found.position_ids, "cells": found.cells}
    ours = OrtStage(file, threads)
    works: dict[str, Work] = {"ours": lambda: ours.run(feed)}
    for name, dtype in DTYPES.items():
        stage = random_stage(lambda: VisionStage(config.vision, config.resampler), dtype, CPU)
        works[name] = functools.partial(stage.look, shown)
    return works


def _audio(config: ModelConfig, file: Path, threads: int) -> dict[str, Work]:
    audio = config.audio
    second = noise_sound(1)
    stage = OrtCachedStage(
        [(file, audio.layers)], audio.heads, audio.hidden // audio.heads, 1.0, threads
    )
    works: dict[str, Work] = {"ours": functools.partial(Hearing(stage, audio).step, second)}
    for name, dtype in DTYPES.items():
        stream = AudioStream(random_stage(lambda: Audio(audio), dtype, CPU))
        works[name] = functools.partial(stream.step, second)
    return works
