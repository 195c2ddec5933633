"""The reflex brain's answer to a turn-based question: what the pictures and the sound are."""

from __future__ import annotations

import numpy as np

from minicpmo_ros.brains.api import ChatRequest
from minicpmo_ros.brains.reflex import wording
from minicpmo_ros.brains.reflex.config import ReflexConfig
from minicpmo_ros.brains.reflex.hearing import level_dbfs
from minicpmo_ros.brains.reflex.sight import View, is_covered, look, motion
from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import MIC_RATE_HZ

NO_MODEL = "I am the reflex brain and have no language model, so I tell you only what I sense"


def answer(request: ChatRequest, config: ReflexConfig) -> str:
    """One honest sentence. Raises `InputError` where the sound is not int16 [samples]."""
    clauses = [_pictures(request, config)]
    samples = request.sound
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise InputError(
            f"chat sound has shape {samples.shape} of {samples.dtype}; "
            f"it must be int16 [samples], mono at {MIC_RATE_HZ} Hz"
        )
    clauses.append(wording.sound(level_dbfs(samples), len(samples) / MIC_RATE_HZ))
    return f"{NO_MODEL}: {', and '.join(clauses)}."


def _pictures(request: ChatRequest, config: ReflexConfig) -> str:
    views: list[View] = []
    for picture in request.pictures:
        try:
            views.append(look(picture))
        except InputError:
            continue
    total = len(request.pictures)
    if not total:
        return "there is no picture"
    if not views:
        return (
            f"none of the {total} pictures can be read"
            if total > 1
            else ("the picture cannot be read")
        )
    said = _describe(views, config)
    if len(views) < total:
        said += f" ({total - len(views)} of {total} pictures could not be read)"
    return said


def _describe(views: list[View], config: ReflexConfig) -> str:
    newest = views[-1]
    if is_covered(newest, False, config.flat_contrast):
        sentence = wording.covered(newest)
    else:
        moved = motion(views[-2], newest, config.light_jump) if len(views) > 1 else None
        sentence = wording.picture(newest, moved, config.motion_fraction)
    clause = sentence.rstrip(".")
    return clause if clause.startswith("I ") else clause[0].lower() + clause[1:]
