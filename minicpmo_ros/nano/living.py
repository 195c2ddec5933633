"""An episode lived: its sound and pictures through a conversation, second by second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.duplex.config import DuplexConfig, WindowConfig
from minicpmo_ros.duplex.conversation import Conversation
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.model import prompts
from minicpmo_ros.model.mel import RATE_HZ
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano.answers import WORDS_PER_UNIT
from minicpmo_ros.nano.episode import Answered, Episode, Voiced
from minicpmo_ros.replay.scores.session import (
    KINDS,
    AgentSegment,
    Alert,
    Event,
    Kind,
    Session,
    UserSegment,
)
from minicpmo_ros.runtime.api import Network

# How the nano checkpoint converses: it was taught one right answer to everything. It keeps as many
# units as it was taught with; what the robot said in those before stays as text.
UNITS_KEPT = 24
PREVIOUS_TOKENS = 80
CONFIG = DuplexConfig(
    window=WindowConfig("context", max_units=UNITS_KEPT, previous_tokens=PREVIOUS_TOKENS),
    kv_capacity=2048,
    forced_listens=0,
    speaks=False,
)
# What is told of within so many seconds did not have to wait for anybody to end.
PROMPT_S = 1.5
_GREETINGS = ("Hello!", "Goodbye!")
# Seconds after the end of a unit at which what it says begins to sound.
PLAYED_S = 0.1
_KINDS: dict[str, Kind] = {
    **{kind: kind for kind in KINDS},
    "foreign": "turn",
    "noise": "tic",
}


@dataclass(frozen=True)
class Done:
    """What a unit came to. ends: the robot's turn is over with it. ms: wall time of all of it."""

    text: str
    ends: bool
    p_listen: float
    p_speak: float
    ms: float

    @property
    def speaks(self) -> bool:
        return bool(self.text)


@dataclass(frozen=True)
class Turn:
    """One turn of the robot: the unit it began in, its words, and whether it ended of itself."""

    unit: int
    text: str
    units: int
    whole: bool


def live(
    network: Network,
    tokenizer: Tokenizer,
    sound: NDArray[np.float32],
    picture: Callable[[int], NDArray[np.uint8] | None],
    config: DuplexConfig = CONFIG,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Done]:
    """A fresh conversation over sound, float32 [units * 16000]; picture: of a unit, if any."""
    conversation = Conversation(network, tokenizer, config)
    conversation.open(*prompts.duplex_prompt("en", "omni").ids(tokenizer))
    found: list[Done] = []
    seconds = sound.reshape(-1, RATE_HZ)
    for unit, second in enumerate(seconds):
        pixels = picture(unit)
        shown = [] if pixels is None else [Shown(unit, pixels)]
        started = time.perf_counter()
        outcome = conversation.hear(second, shown)
        conversation.settle()
        ms = 1000 * (time.perf_counter() - started)
        said = outcome.utterance.text
        found.append(Done(said, outcome.end_of_turn, outcome.p_listen, outcome.p_speak, ms))
        progress((unit + 1) / len(seconds))
    return found


def turns(done: list[Done]) -> list[Turn]:
    """The robot's turns. One that is not ended when the episode is counts as not whole."""
    found: list[Turn] = []
    begun: int | None = None
    words = ""
    for unit, one in enumerate(done):
        if one.speaks and begun is None:
            begun, words = unit, ""
        if begun is not None:
            words += one.text
            if one.ends or not one.speaks:
                count = unit + one.speaks - begun
                found.append(Turn(begun, words, count, one.ends and one.speaks))
                begun = None
    if begun is not None:
        found.append(Turn(begun, words, len(done) - begun, False))
    return found


def session(episode: Episode, done: list[Done], *, stops: bool = True) -> Session:
    """For `replay.scores`: what sounded when, as if each unit's words took their time aloud.

    stops: with the interruptions that only tell the robot to be quiet. It should yield to them, but
    who says so waits for no answer.
    """
    user = tuple(
        UserSegment(one.start_s, max(one.ends_s, one.start_s + 0.05), _KINDS[one.kind])
        for one in episode.voiced
        if one.intent != "stop" or (stops and one.kind == "interruption")
    )
    agent = []
    alerts = []
    names = [one.text for one in episode.answered if one.watch is not None]
    # What came while somebody spoke was right to wait, and is not counted at all.
    prompt = {
        one.text: one.event_s
        for one in episode.answered
        if one.watch is not None and one.unit + 1 - one.event_s < PROMPT_S
    }
    late = set(names) - set(prompt)
    for turn in turns(done):
        start = turn.unit + 1 + PLAYED_S
        last = done[turn.unit + turn.units - 1].text if turn.units else turn.text
        stop = start + turn.units - 1 + min(len(last.split()) / WORDS_PER_UNIT, 1.0) * 0.9
        agent.append(AgentSegment(start, stop, turn.text, finished=turn.whole))
        if (name := _alert(turn, names)) and name not in late:
            alerts.append(Alert(float(turn.unit + 1), name))
    events = tuple(Event(when, name) for name, when in prompt.items())
    return Session(float(len(done)), user, tuple(agent), events, tuple(alerts))


def _alert(turn: Turn, names: list[str]) -> str:
    """What a turn reports, of all there is to report, even if it was cut off; "" if nothing."""
    if not turn.whole:
        return next((name for name in names if name.startswith(turn.text)), "")
    return turn.text if turn.text.endswith("!") and turn.text not in _GREETINGS else ""


def right(answered: Answered, found: list[Turn], until: int) -> bool | None:
    """Whether the robot said this, beginning in its unit or the one after; None where that cannot
    be told, for the answer was not over when the user cut in or the episode ended. until: the unit
    in which it was."""
    for turn in found:
        if answered.unit <= turn.unit <= answered.unit + 1:
            if turn.text == answered.text:
                return True
            return False if turn.whole else None if answered.text.startswith(turn.text) else False
    return False if until > answered.unit else None


def cut_in(answered: Answered, voiced: tuple[Voiced, ...], units: int) -> int:
    """The unit in which the user cut an answer off, or the episode did."""
    later = [one.start_s for one in voiced if one.kind == "interruption"]
    after = [when for when in later if when > answered.unit + 1]
    return int(min([*after, float(units)]))
