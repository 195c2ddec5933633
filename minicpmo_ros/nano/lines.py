"""Lines that are spoken to the robot or near it: a wording, a voice, pauses, and their sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.nano.answers import Slots
from minicpmo_ros.nano.chatter import beyond, chatter
from minicpmo_ros.nano.noises import HELD_OUT_NOISES, NOISES, stretch
from minicpmo_ros.nano.pieces import active_rms
from minicpmo_ros.nano.tics import tic
from minicpmo_ros.nano.voices import Said, Speaker, Voice, random_voice
from minicpmo_ros.nano.wordings import (
    BACKCHANNELS,
    BACKCHANNELS_HELD_OUT,
    ENDINGS,
    EVERY_WORDING,
    FOREIGN,
    FOREIGN_HELD_OUT,
    INTENTS,
    OPEN_HELD_OUT,
    OPENINGS,
    TICS,
)

RATE_HZ = 16_000
# Made of speech, babble is not one of the sounds that come and go.
_STRETCHES = tuple(kind for kind in NOISES if kind != "babble")


@dataclass(frozen=True, eq=False)
class Line:
    """samples: float32 [n] at 16 kHz. words, phonemes: with their spans in seconds; none where the
    synthesiser tells none."""

    text: str
    samples: NDArray[np.float32]
    words: tuple[tuple[str, float, float], ...] = ()
    phonemes: tuple[tuple[int, float, float], ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE_HZ


@dataclass(frozen=True)
class Split:
    """What an episode is made of; each is as in training unless it is held out.

    voices: train, espeak, flite or other. flite: share of flite's training voices in train.
    wordings, noises, looks: held out if True.
    """

    voices: str = "train"
    wordings: bool = False
    noises: bool = False
    looks: bool = False
    flite: float = 0.0


class Lines:
    """The lines of one episode: one user, and other people."""

    def __init__(self, rng: np.random.Generator, speaker: Speaker, split: Split) -> None:
        self.rng = rng
        self.held_out = split.wordings
        self._speaker = speaker
        self._split = split
        self._voice = random_voice(rng, split.voices, split.flite)

    def ask(self, intent: str, slots: Slots) -> Line:
        """A turn, now and then with a word before or after it, or a pause within."""
        wordings = INTENTS[intent]
        some = wordings.held_out if self.held_out else wordings.learned
        text = str(self.rng.choice(np.array(some)))
        if intent == "unknown" and not self.held_out and self.rng.random() < 0.5:
            text = beyond(self.rng)
        bare = text
        if intent not in ("stop", "hello", "repeat"):
            if self.rng.random() < 0.2:
                openings = OPEN_HELD_OUT if self.held_out else OPENINGS
                text = f"{self.rng.choice(np.array(openings))} {text}"
            elif self.rng.random() < 0.1:
                text = f"{text} {self.rng.choice(np.array(ENDINGS))}"
        pause = None
        if text == bare and self.rng.random() < 0.12:
            pause = self._pause(bare)
        if pause is None:
            return self._line(slots.fill(text))
        first, second = (self._line(slots.fill(part)) for part in pause)
        return _joined(first, second, float(self.rng.uniform(0.25, 1.2)))

    def _pause(self, wording: str) -> tuple[str, str] | None:
        """Two halves, of which the first cannot be taken for the whole."""
        words = wording.split()
        places = [
            at
            for at in range(2, len(words))
            if " ".join(words[:at]) not in EVERY_WORDING and "{" not in " ".join(words[:at])
        ]
        if not places:
            return None
        at = places[int(self.rng.integers(len(places)))]
        return " ".join(words[:at]), " ".join(words[at:])

    def chatter(self) -> Line:
        """Said to somebody else, often by somebody else."""
        text = chatter(self.rng, self._split.noises)
        return self._line(text, self._other() if self.rng.random() < 0.5 else None)

    def foreign(self) -> Line:
        """A question in another language."""
        table = FOREIGN_HELD_OUT if self._split.wordings else FOREIGN
        language = str(self.rng.choice(np.array(sorted(table))))
        text = str(self.rng.choice(np.array(table[language])))
        variant = str(self.rng.choice(np.array(("m1", "m3", "f2", "f3"))))
        rate = int(self.rng.integers(130, 210))
        return self._line(text, Voice("espeak", f"{language}+{variant}", rate), spotted=False)

    def backchannel(self) -> Line:
        some = BACKCHANNELS_HELD_OUT if self._split.noises else BACKCHANNELS
        return self._line(str(self.rng.choice(np.array(some))), spotted=False)

    def tic(self) -> Line:
        if self.rng.random() < 0.4:
            return Line("", tic(self.rng, held_out=self._split.noises))
        return self._line(str(self.rng.choice(np.array(TICS))), spotted=False)

    def noise(self) -> Line:
        """A stretch of something like music, or a loud noise."""
        kinds = HELD_OUT_NOISES if self._split.noises else _STRETCHES
        kind = str(self.rng.choice(np.array(kinds)))
        return Line("", stretch(kind, float(self.rng.uniform(0.4, 3.0)), self.rng))

    def _other(self) -> Voice:
        return random_voice(self.rng, self._split.voices, self._split.flite)

    def _line(self, text: str, voice: Voice | None = None, *, spotted: bool = True) -> Line:
        said: Said = self._speaker.say(text, voice or self._voice)
        level = 0.06 * 10 ** (self.rng.uniform(-5, 5) / 20)
        factor = np.float32(level / max(active_rms(said.samples), 1e-6))
        words = said.words if spotted else ()
        return Line(text, said.samples * factor, words, said.phonemes)


def _joined(first: Line, second: Line, pause_s: float) -> Line:
    silence = np.zeros(round(pause_s * RATE_HZ), np.float32)
    later = first.seconds + len(silence) / RATE_HZ
    return Line(
        f"{first.text} ... {second.text}",
        np.concatenate([first.samples, silence, second.samples]),
        (*first.words, *((one, start + later, stop + later) for one, start, stop in second.words)),
        (
            *first.phonemes,
            *((one, start + later, stop + later) for one, start, stop in second.phonemes),
        ),
    )
