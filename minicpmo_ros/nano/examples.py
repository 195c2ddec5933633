"""An episode as the network meets it: windows of sound, pictures, and the token of each place.

The layout is that of `duplex.conversation`, unit for unit:

    prefix [previous] suffix (<unit> [<image> queries </image>] sound decision words end </unit>)*
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.media.world.drawing import cells, draw
from minicpmo_ros.media.world.things import COLOURS, KINDS, PLACES, SIZES, Thing
from minicpmo_ros.model import prompts
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.mel import RATE_HZ, StreamingMel
from minicpmo_ros.model.picture import Slice, slices
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano.acoustics import Room
from minicpmo_ros.nano.changes import NO_LABEL, at_ends
from minicpmo_ros.nano.episode import Episode
from minicpmo_ros.nano.lines import Line
from minicpmo_ros.nano.naming import Gaze
from minicpmo_ros.nano.pointing import Pointing
from minicpmo_ros.nano.spotted import SPOTTED
from minicpmo_ros.nano.stage_set import StageSet

SOUND_ROWS = 10
POSITIONS = 50
TOKEN, SOUND, PICTURE = 0, 1, 2
# The stream begins with 35 ms of silence.
LEAD_S = 0.035
Array = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture. cells: int64 [patches], see `drawing.cells`. slots: int64 [queries, 4], see
    `slots_of`."""

    slice: Slice
    cells: Ints
    slots: Ints
    things: tuple[Thing, ...]


@dataclass(frozen=True, eq=False)
class Example:
    """One sequence of T places.

    mel: float32 [units, mels, 104]. seen: a picture a unit, or none. ids: int64 [T]; anything where
    embeddings go. kinds: int64 [T], TOKEN, SOUND or PICTURE. labels: int64 [T], the token that
    comes next, NO_LABEL where that is not the model's to say. decides: bool [T], where a unit's
    decision is made. phonemes: int64 [units * 50], 0 for silence, else 1 + index. words: int64
    [units * 10], 0 where no word ends, else 1 + index in SPOTTED. points: int64 [N, 3], see
    `Pointing`. changes: int64 [P, 4], of each picture, see `changes.at_ends`.
    """

    mel: Array
    seen: tuple[Seen, ...]
    ids: Ints
    kinds: Ints
    labels: Ints
    decides: NDArray[np.bool_]
    phonemes: Ints
    words: Ints
    points: Ints
    changes: Ints


class Encoder:
    """Makes examples for one checkpoint's sizes and tokenizer."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        self.config, self.tokenizer = config, tokenizer
        self._control = tokenizer.control
        self._prefix, self._suffix = prompts.duplex_prompt("en", "omni").ids(tokenizer)
        self._marker = tokenizer.encode(prompts.PREVIOUS)
        self._pointing = Pointing(tokenizer)

    def example(
        self,
        episode: Episode,
        room: Room,
        rng: np.random.Generator,
        size: tuple[int, int] = (128, 96),
        echo: Sequence[tuple[float, Line]] = (),
    ) -> Example:
        """size: of the pictures, width and height. echo: the robot's own voice in its microphone,
        with the seconds at which it begins."""
        sound = room.hear(track(episode, echo), rng)
        seen: list[Seen] = []
        if episode.set.scene is not None:
            seen = [
                self.picture(episode.set, unit, rng, size) for unit in range(len(episode.units))
            ]
        phonemes, words = labels_of_sound(episode)
        ids, kinds, labels, decides = self._tokens(episode)
        slots = [one.slots for one in seen]
        points = self._pointing.points(ids.tolist(), np.flatnonzero(decides).tolist(), slots)
        if "tell you when" in episode.previous:  # what is awaited was not said in a turn
            points = points[~np.isin(points[:, 0], (Gaze.AWAITED, Gaze.FOUND))]
        return Example(
            windows(sound, self.config.audio.mels),
            tuple(seen),
            ids,
            kinds,
            labels,
            decides,
            phonemes,
            words,
            points,
            at_ends(ids.tolist(), self._control.image_end, slots),
        )

    def picture(
        self, stage: StageSet, unit: int, rng: np.random.Generator, size: tuple[int, int]
    ) -> Seen:
        things = stage.view(unit).things
        assert things is not None
        return self.seen(self.pixels(stage, unit, rng, size), things)

    def pixels(
        self, stage: StageSet, unit: int, rng: np.random.Generator, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """The picture of a unit: uint8 [height, width, 3]."""
        view = stage.view(unit)
        look = stage.look
        assert look is not None and view.things is not None
        if view.strange:
            # The same picture in all units of an episode.
            same = np.random.default_rng(look.seed)
            return look.noise_picture(same, stage.held_out, size)
        return draw(view.things, look, stage.shown_s(unit), size, rng=rng)

    def seen(self, pixels: NDArray[np.uint8], things: tuple[Thing, ...]) -> Seen:
        (shown,) = slices(pixels, 1, self.config.slices)
        height, width = pixels.shape[:2]
        covered = cells(things, shown.rows, shown.columns, width / height).reshape(-1)
        return Seen(shown, covered, slots_of(things, self.config.resampler.queries), things)

    # -- tokens ---------------------------------------------------------------------------------

    def _tokens(self, episode: Episode) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
        control, queries = self._control, self.config.resampler.queries
        row = _Row()
        row.read(self._prefix)
        if episode.previous:
            row.read([*self._marker, *self.tokenizer.encode(episode.previous)])
        row.read(self._suffix)
        for target in episode.units:
            row.read([control.unit])
            if episode.set.scene is not None:
                row.read([control.image])
                row.embeddings(PICTURE, queries, control.unk)
                row.read([control.image_end])
            row.embeddings(SOUND, SOUND_ROWS, control.unk)
            row.decide()
            if target.action == "listen":
                row.say([control.listen])
            elif target.action == "speak":
                end = [control.turn_eos] if target.ends else []
                row.say([control.speak, *self.tokenizer.encode(target.text), *end])
                # Behind the end of a turn, whatever the model says closes the unit.
                row.say([control.chunk_eos])
            elif target.action == "yield":
                row.say([control.turn_eos, control.chunk_eos])
            else:  # cut off from outside
                row.read([control.turn_eos, control.listen])
            row.read([control.unit_end])
        return row.arrays()


class _Row:
    def __init__(self) -> None:
        self._ids: list[int] = []
        self._kinds: list[int] = []
        self._labels: list[int] = []
        self._decides: list[int] = []

    def read(self, ids: Sequence[int]) -> None:
        self._ids += ids
        self._kinds += [TOKEN] * len(ids)
        self._labels += [NO_LABEL] * len(ids)

    def embeddings(self, kind: int, rows: int, placeholder: int) -> None:
        self.read([placeholder] * rows)
        self._kinds[-rows:] = [kind] * rows

    def say(self, ids: Sequence[int]) -> None:
        """Tokens that the model is to say: the place before each has it as its label."""
        at = len(self._ids)
        self.read(ids)
        self._labels[at - 1 : at - 1 + len(ids)] = ids

    def decide(self) -> None:
        self._decides.append(len(self._ids) - 1)

    def arrays(self) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
        decides = np.zeros(len(self._ids), np.bool_)
        decides[self._decides] = True
        ids, kinds, labels = (
            np.array(some, np.int64) for some in (self._ids, self._kinds, self._labels)
        )
        return ids, kinds, labels, decides


def slots_of(things: Sequence[Thing], queries: int) -> Ints:
    """Which query of the resampler tells of which thing: int64 [queries, 4], of kind, colour, size
    and place 1 + its index, or 0 for nothing. A third of the queries belongs to each third of the
    picture, and in it to its things from left to right."""
    slots = np.zeros((queries, 4), np.int64)
    share = queries // len(PLACES)
    for number, place in enumerate(PLACES):
        there = sorted((one for one in things if one.place == place), key=lambda one: one.x)
        for rank, one in enumerate(there[:share]):
            slots[number * share + rank] = (
                1 + KINDS.index(one.kind),
                1 + COLOURS.index(one.colour),
                1 + SIZES.index(one.size),
                1 + number,
            )
    return slots


def track(episode: Episode, echo: Sequence[tuple[float, Line]] = ()) -> Array:
    """All that sounds in an episode, dry: float32 [units * 16000]."""
    total = np.zeros(len(episode.units) * RATE_HZ, np.float32)
    for start_s, line in [*((one.start_s, one.line) for one in episode.voiced), *echo]:
        start = round(start_s * RATE_HZ)
        part = line.samples[: max(len(total) - start, 0)]
        total[start : start + len(part)] += part
    return total


def windows(sound: Array, mels: int) -> Array:
    """Sound of whole seconds as `StreamingMel` shows it: float32 [seconds, mels, 104]."""
    stream = StreamingMel(mels)
    seconds = sound.astype(np.float32).reshape(-1, RATE_HZ)
    return np.stack([stream.push(second) for second in seconds])


def labels_of_sound(episode: Episode) -> tuple[Ints, Ints]:
    """Which phoneme sounds at each position, and which word ends in each row."""
    units = len(episode.units)
    phonemes = np.zeros(units * POSITIONS, np.int64)
    words = np.zeros(units * SOUND_ROWS, np.int64)
    for one in episode.voiced:
        timed = bool(one.line.phonemes)
        first, last = (
            round((when + LEAD_S) * POSITIONS)
            for when in (one.start_s, one.start_s + one.line.seconds)
        )
        if one.line.text and not timed:  # spoken by a voice that tells no times
            phonemes[first:last] = NO_LABEL
            words[first // 5 : last // 5 + 1] = NO_LABEL
        for index, start, stop in one.line.phonemes:
            begin, end = (
                round((one.start_s + when + LEAD_S) * POSITIONS) for when in (start, stop)
            )
            phonemes[begin:end] = 1 + index
        for text, _, stop in one.line.words:
            row = int((one.start_s + stop + LEAD_S) * SOUND_ROWS)
            if row < len(words):
                words[row] = 1 + SPOTTED[text.lower()] if text.lower() in SPOTTED else 0
    return phonemes, words
