"""Questions about a picture in writing, many to a picture.

By voice something is asked once in several seconds, most of which are spent on hearing it. That is
too seldom to learn to look an answer up in a picture: in writing it is practised twenty times as
often. A spoken word is known behind the first third of the layers, and not before. There what is
read is told by the same head as what is heard, and up to there each word is by itself, so that one
way from a question to its answer serves both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.media.world.things import Thing
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano.answers import SEEING, Memory, answer
from minicpmo_ros.nano.asking import Asking
from minicpmo_ros.nano.examples import NO_LABEL, PICTURE, TOKEN
from minicpmo_ros.nano.spotted import SPOTTED
from minicpmo_ros.nano.stage_set import still_set
from minicpmo_ros.nano.wordings import INTENTS

QUESTIONS = 5
# One picture tells of no change, and what is always answered alike needs no practice.
_ASKED = (SEEING - {"changed"}) | {
    *("watch_appears", "watch_leaves", "watch_turns", "watch_count", "cancel"),
    *("remember", "recall", "repeat", "count"),
}
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Written:
    """One sequence of T places: a picture, then questions and answers by turns.

    ids, kinds, labels: int64 [T], as `Example` has them; only answers have labels. words: int64
    [T], 1 + index in SPOTTED where a word of a question ends, 0 at its other tokens, NO_LABEL
    elsewhere. groups: int64 [T], of what belongs together: the picture, each word, each answer.
    """

    ids: Ints
    kinds: Ints
    labels: Ints
    words: Ints
    groups: Ints


class Questions:
    """queries: embeddings of a picture."""

    def __init__(self, tokenizer: Tokenizer, queries: int) -> None:
        self._tokenizer, self._queries = tokenizer, queries

    def about(self, things: tuple[Thing, ...], rng: np.random.Generator) -> Written:
        """QUESTIONS of them, mostly about what is in view."""
        control = self._tokenizer.control
        ids = [control.unit, control.image, *[control.unk] * self._queries, control.image_end]
        kinds = np.full(len(ids), TOKEN)
        kinds[2:-1] = PICTURE
        labels, words, groups = [NO_LABEL] * len(ids), [NO_LABEL] * len(ids), [0] * len(ids)
        stage = still_set(things)
        asking, memory = Asking(rng, stage, False), Memory()
        asked = 0
        while asked < QUESTIONS:
            intent, slots = asking.ask(memory, 0.0)
            if intent not in _ASKED:
                continue
            asked += 1
            for word in slots.fill(str(rng.choice(INTENTS[intent].learned))).split():
                piece = self._tokenizer.encode(f" {word}")
                ids += piece
                words += [*[0] * (len(piece) - 1), 1 + SPOTTED[word] if word in SPOTTED else 0]
                labels += [NO_LABEL] * len(piece)
                groups += [groups[-1] + 1] * len(piece)
            said = self._tokenizer.encode(answer(intent, slots, stage.view(0), memory))
            ids += [control.speak, *said, control.turn_eos]
            labels += [*said, control.turn_eos, NO_LABEL]
            words += [NO_LABEL] * (2 + len(said))
            groups += [groups[-1] + 1] * (2 + len(said))
        padded = np.full(len(ids), TOKEN)
        padded[: len(kinds)] = kinds
        found = (np.array(some, np.int64) for some in (ids, padded, labels, words, groups))
        return Written(*found)
