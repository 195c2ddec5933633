"""The reflex brain's sentences. They say what was sensed, name what was not, and nothing else."""

from __future__ import annotations

import math

from minicpmo_ros.brains.reflex.hearing import FLOOR_DBFS
from minicpmo_ros.brains.reflex.impression import Impression
from minicpmo_ros.brains.reflex.sight import DARK, VERY_DARK, Motion, View, dominant_colour

DIM, BRIGHT = 0.3, 0.6  # mean luma, 0 to 1
CLEAR_OF_NOISE_DB = 6.0
MISSED_WORTH_SAYING_MS = 150.0
QUOTED_WORDS = 4
WORDS_WORTH_QUOTING = 3  # who goes on after a breath has not stopped anybody


def seconds(value: float) -> str:
    """A length of time as one says it; halves round up."""
    whole = math.floor(value + 0.5)
    return "one second" if whole == 1 else f"{whole} seconds"


def answer(speech_s: float, sensed: Impression, motion_fraction: float, cut: str | None) -> str:
    """What is said after a person's turn; cut: what had been heard of an interrupted sentence."""
    sentences = [interrupted(cut or ""), spoken_for(speech_s)]
    if is_hardly_audible(sensed):
        sentences.append("You were hardly louder than the noise.")
    if sensed.missed_ms >= MISSED_WORTH_SAYING_MS:
        sentences.append(f"I missed {sensed.missed_ms / 1000:.1f} seconds of the sound.")
    sentences.append(sight(sensed, motion_fraction))
    return " ".join(filter(None, sentences))


def interrupted(heard: str) -> str:
    """Says where the robot was cut off; "" where too little was heard to be worth a word."""
    words = heard.split()
    if len(words) < WORDS_WORTH_QUOTING:
        return ""
    # The robot may have been quoting itself.
    said = " ".join(words[-QUOTED_WORDS:]).replace('"', "").strip(" .,;")
    return f'You stopped me after "{said}".'


def spoken_for(speech_s: float) -> str:
    return "You spoke briefly." if speech_s < 0.75 else f"You spoke for {seconds(speech_s)}."


def is_hardly_audible(sensed: Impression) -> bool:
    if sensed.voice_dbfs is None or sensed.background_dbfs is None:
        return False
    return sensed.voice_dbfs - sensed.background_dbfs < CLEAR_OF_NOISE_DB


def sight(sensed: Impression, motion_fraction: float) -> str:
    """One sentence about the pictures of a turn, or about their absence."""
    if sensed.view is None:
        if sensed.unreadable:
            return "I cannot read the camera's pictures."
        if sensed.camera_lost_ms >= 1000:
            return f"I have had no picture for {seconds(sensed.camera_lost_ms / 1000)}."
        return "I have no picture."
    if sensed.covered:
        return covered(sensed.view)
    return picture(sensed.view, sensed.motion, motion_fraction)


def covered(view: View) -> str:
    """A picture that shows nothing; a cover and a dark room cannot be told apart."""
    if view.brightness < DARK:
        return "I see nothing: the camera is covered, or it is dark."
    return "I see only one even surface: the camera may be covered."


def picture(view: View, motion: Motion | None, motion_fraction: float) -> str:
    """One sentence about a picture that shows something; motion None is not mentioned."""
    colour = dominant_colour(view)
    described = f"The picture is {brightness(view.brightness)}"
    if motion is None:
        return described + (f" and mostly {colour}." if colour else ".")
    if colour:
        described += f" and mostly {colour},"
    if motion.fraction < motion_fraction or not motion.place:
        return f"{described} and nothing moved."
    if motion.place == "everywhere":
        return f"{described} and all of it moved."
    return f"{described} and something moved {motion.place}."


def brightness(value: float) -> str:
    if value < VERY_DARK:
        return "very dark"
    if value < DIM:
        return "dark"
    return "bright" if value >= BRIGHT else "moderately bright"


def sound(level_dbfs: float, length_s: float) -> str:
    """A clause about a recorded sound, for a question that came with one."""
    if length_s == 0:
        return "there is no sound"
    if level_dbfs <= FLOOR_DBFS:
        return f"the sound is {length_s:.1f} seconds of silence"
    return f"the sound lasts {length_s:.1f} seconds at {level_dbfs:.0f} decibels of full scale"
