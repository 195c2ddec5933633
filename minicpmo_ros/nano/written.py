"""Questions about a picture in writing, many to a picture.

By voice something is asked once in several seconds, most of which are spent on hearing it. That is
too seldom to learn to look an answer up in a picture: in writing it is practised twenty times as
often. A spoken word is known behind the first third of the layers, and not before. There what is
read is told by the same head as what is heard, and up to there each word is by itself, so that one
way from a question to its answer serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.media.world.things import Thing
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano.answers import SEEING, Memory, Slots, answer, chunks
from minicpmo_ros.nano.asking import Asking
from minicpmo_ros.nano.changes import at_ends
from minicpmo_ros.nano.chatter import beyond, chatter
from minicpmo_ros.nano.examples import NO_LABEL, PICTURE, TOKEN, slots_of
from minicpmo_ros.nano.pointing import Pointing
from minicpmo_ros.nano.spotted import SPOTTED
from minicpmo_ros.nano.stage_set import StageSet, leaping_set, still_set
from minicpmo_ros.nano.wordings import INTENTS

QUESTIONS = 5
# Share of the pictures of a story behind which something is asked, if nothing is being said.
ASKS = 0.8
# Share of these that ask to be told of something, while nothing is.
WATCHES = 0.25
# Share of the other questions that are about what is in view, whatever was said before.
SEES = 0.6
# Share of the others behind which people talk to each other.
TALKS = 0.5
# Share of the questions behind a change that ask for it.
_CHANGED = 0.35
# One picture tells of no change, and what is always answered alike needs no practice, save thanks:
# "You are" would go on as "There are" does.
_ASKED = (SEEING - {"changed"}) | {
    "thanks",
    *("watch_appears", "watch_leaves", "watch_turns", "watch_count", "cancel"),
    *("remember", "recall", "repeat", "count", "unknown"),
}
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Written:
    """One sequence of T places: pictures, questions and answers.

    ids, kinds, labels: int64 [T], as `Example` has them; only what the model is to say has labels.
    words: int64 [T], 1 + index in SPOTTED where a word of a question ends, 0 at its other tokens,
    NO_LABEL elsewhere. groups: int64 [T], of what belongs together: a picture, a word, an answer.
    decides: int64 [T], 1 where the label says whether to speak. points: int64 [N, 3], see
    `Pointing`. changes: int64 [P, 4], see `changes.at_ends`.
    """

    ids: Ints
    kinds: Ints
    labels: Ints
    words: Ints
    groups: Ints
    decides: Ints
    points: Ints
    changes: Ints


class Questions:
    """queries: embeddings of a picture."""

    def __init__(self, tokenizer: Tokenizer, queries: int) -> None:
        self._tokenizer, self._queries = tokenizer, queries
        self._pointing = Pointing(tokenizer)

    def about(self, pictures: Sequence[tuple[Thing, ...]], rng: np.random.Generator) -> Written:
        """Pictures of unlike worlds, behind each QUESTIONS, mostly about what is in view there."""
        memory = Memory()
        sheet = _Sheet(self._tokenizer, self._queries)
        for things in pictures:
            stage = still_set(things)
            asking = Asking(rng, stage, False)
            sheet.picture(things)
            asked = 0
            while asked < QUESTIONS:
                intent, slots = asking.ask(memory, 0.0)
                if intent in _ASKED:
                    asked += 1
                    sheet.ask(_worded(intent, slots, rng))
                    sheet.answer(answer(intent, slots, stage.view(0), memory), decided=False)
        return sheet.written(self._pointing)

    def waiting(self, pictures: Sequence[tuple[Thing, ...]], rng: np.random.Generator) -> Written:
        """A story that only waits (see `story`), each unit of it in another world: whether the
        moment has come is to be told from the promise and the picture, and not from the little that
        changes in one world."""
        return self.story(leaping_set(pictures), len(pictures), rng, waits=True, late=0.5)

    def story(
        self,
        stage: StageSet,
        units: int,
        rng: np.random.Generator,
        *,
        waits: bool = False,
        late: float = 0.25,
    ) -> Written:
        """A picture each unit, mostly with a question behind it that is answered at once, three
        words in a unit as if they were spoken: most of an answer is said behind pictures that it is
        not about. Where nothing is asked or said, the robot tells of what it was asked to watch
        for, or listens, also to talk that is not for it. waits: nothing is asked but to watch for
        something, one thing at a time, and all that is said is said in one unit. late: see
        `Asking`."""
        asking = Asking(rng, stage, False, soon_s=1, late=late, changed=_CHANGED)
        memory = Memory()
        sheet = _Sheet(self._tokenizer, self._queries)
        alerts: list[str] = []
        saying: list[str] = []
        for unit in range(units):
            before, now = stage.view(max(unit - 1, 0)), stage.view(unit)
            assert before.things is not None and now.things is not None
            sheet.picture(now.things)
            alerts += [one.alert for one in memory.see(unit, before.things, now.things)]
            said = "" if saying or not alerts else alerts.pop(0)
            free = not (said or saying)
            if free and rng.random() < ASKS and not (waits and memory.watches):
                if waits or (not memory.watches and rng.random() < WATCHES):
                    intent, slots = asking.to_watch(float(unit))
                elif rng.random() < SEES:
                    intent, slots = asking.to_see(float(unit))
                else:
                    intent, slots = asking.ask(memory, float(unit))
                if intent in _ASKED or intent == "changed":
                    sheet.ask(_worded(intent, slots, rng))
                    said = answer(intent, slots, now, memory)
            elif free and rng.random() < TALKS:
                sheet.ask(chatter(rng).split())
            if said:
                saying = [said] if waits else chunks(said)
            sheet.silence(rng)
            sheet.answer(saying.pop(0) if saying else "", ends=not saying)
        return sheet.written(self._pointing)


def _worded(intent: str, slots: Slots, rng: np.random.Generator) -> list[str]:
    if intent == "unknown" and rng.random() < 0.5:
        return beyond(rng).split()
    return slots.fill(str(rng.choice(INTENTS[intent].learned))).split()


class _Sheet:
    def __init__(self, tokenizer: Tokenizer, queries: int) -> None:
        self._tokenizer, self._queries = tokenizer, queries
        self._rows: list[tuple[int, int, int, int, int, int]] = []
        self._group = -1
        self._slots: list[Ints] = []

    def picture(self, things: Sequence[Thing]) -> None:
        control = self._tokenizer.control
        self._slots.append(slots_of(things, self._queries))
        self._add([control.unit, control.image])
        self._add([control.unk] * self._queries, kind=PICTURE, join=True)
        self._add([control.image_end], join=True)

    def ask(self, words: Sequence[str]) -> None:
        for word in words:
            piece = self._tokenizer.encode(f" {word}")
            last = 1 + SPOTTED[word] if word in SPOTTED else 0
            self._add(piece, words=[*[0] * (len(piece) - 1), last])

    def silence(self, rng: np.random.Generator) -> None:
        for _ in range(int(rng.integers(1, 4))):
            self._add([self._tokenizer.control.unk])

    def answer(self, text: str, *, decided: bool = True, ends: bool = True) -> None:
        """decided: the place before tells whether to speak, and the unit ends with the answer.
        ends: so does the turn."""
        control = self._tokenizer.control
        said = [control.listen]
        if text:
            said = [control.speak, *self._tokenizer.encode(text)]
            said += [control.turn_eos] if ends else []
            said += [control.chunk_eos] if decided else []
        if decided:
            self._decide(said[0])
        self._add(said, labels=[*said[1:], NO_LABEL])
        if decided:
            self._add([control.unit_end], join=True)

    def written(self, pointing: Pointing) -> Written:
        arrays = [np.array(one, np.int64) for one in zip(*self._rows, strict=True)]
        ids, decides = arrays[0].tolist(), np.flatnonzero(arrays[-1]).tolist()
        arrays.append(pointing.points(ids, decides, self._slots))
        arrays.append(at_ends(ids, self._tokenizer.control.image_end, self._slots))
        return Written(*arrays)

    def _decide(self, token: int) -> None:
        ids, kind, _, words, group, _ = self._rows[-1]
        self._rows[-1] = (ids, kind, token, words, group, 1)

    def _add(
        self,
        ids: Sequence[int],
        *,
        kind: int = TOKEN,
        labels: Sequence[int] | None = None,
        words: Sequence[int] | None = None,
        join: bool = False,
    ) -> None:
        """join: they belong to the group before."""
        self._group += not join
        none = [NO_LABEL] * len(ids)
        for one, label, word in zip(ids, labels or none, words or none, strict=True):
            self._rows.append((one, kind, label, word, self._group, 0))
