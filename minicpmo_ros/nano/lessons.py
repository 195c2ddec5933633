"""What is practised when: short episodes first, long ones and both senses together later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.media.world.drawing import draw
from minicpmo_ros.media.world.looks import Look
from minicpmo_ros.media.world.things import random_things
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano.acoustics import Room
from minicpmo_ros.nano.episode import Director, Episode
from minicpmo_ros.nano.examples import Encoder, Example, Seen, track
from minicpmo_ros.nano.lines import Line, Lines, Split
from minicpmo_ros.nano.stage_set import hastened, long_set, no_camera, random_set
from minicpmo_ros.nano.voices import Speaker, Voice
from minicpmo_ros.nano.written import Questions, Written

# Samples of a long sound that go through a room at once.
PART = 60 * 16_000
# Of the episodes with a camera, those of a user who mostly asks to be told of something, and waits.
_WATCHING = 0.35
# Of the other episodes with a camera, those of a user who mostly asks about what is in view.
_LOOKING = 0.5
# Of those, and of stories in writing, the ones before a camera that shows another world.
_STRANGE = 0.1
# Of the other episodes, those in which nobody speaks to the robot.
_QUIET = 0.12
# So much faster things happen before those who wait.
_HASTE = 1.6
# Sheets of a story in which anything is asked, and in which nothing is but to watch for something.
ASKS, WAITS = 2, 1
ROBOT = Voice("espeak", "en-us", 170)
SIZES = ((128, 96), (160, 120), (126, 98), (252, 196), (320, 240))
WIDE_SIZES = ((128, 72), (160, 90), (256, 144))


@dataclass(frozen=True)
class Lesson:
    """units: seconds of each episode; 0: no episodes, but pictures alone. camera: whether there are
    pictures."""

    units: int
    camera: bool


# Up to this share of the way the senses are trained apart, hearing in every other process.
APART = 0.35
# Up to each share of the way: the lengths of episodes, any of which may come.
_LENGTHS = ((APART, (4,)), (0.5, (4, 8)), (0.7, (8, 12)), (1.01, (12, 16, 24)))
_CAMERA_SHARE = 0.8


def lesson_at(share: float, rng: np.random.Generator, rank: int = 0) -> Lesson:
    """The lesson at a share (0 to 1) of the way through training, in one of its processes."""
    if share < APART:
        return Lesson(0, True) if rank % 2 else Lesson(4, False)
    lengths = next(some for until, some in _LENGTHS if share < until)
    return Lesson(int(rng.choice(lengths)), bool(rng.random() < _CAMERA_SHARE))


class Studio:
    """Makes episodes and examples; all of it follows from the generators that it is given."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        self._encoder = Encoder(config, tokenizer)
        self._questions = Questions(tokenizer, config.resampler.queries)
        self._speaker = Speaker()

    def episode(
        self,
        rng: np.random.Generator,
        lesson: Lesson,
        split: Split,
        *,
        quiet: bool = False,
        fresh: bool = False,
        strange: bool = False,
        waits: bool = False,
        looks: bool = False,
    ) -> Episode:
        """quiet: nobody speaks to the robot. fresh: nothing was said before the episode. strange:
        the camera shows another world. waits: the user mostly asks to be told of something, and
        waits for it, before a camera that shows more of it. looks: mostly asks about what is in
        view."""
        stage = no_camera()
        if lesson.camera:
            units = round(lesson.units * (_HASTE if waits else 1))
            stage = random_set(rng, units, held_out=split.looks, strange=strange)
            stage = hastened(stage, _HASTE) if waits else stage
        lines = Lines(rng, self._speaker, split)
        director = Director(
            rng, lines, stage, lesson.units, quiet=quiet, fresh=fresh, waits=waits, looks=looks
        )
        return director.direct()

    def example(
        self, rng: np.random.Generator, lesson: Lesson, split: Split, size: tuple[int, int]
    ) -> Example:
        waits = lesson.camera and bool(rng.random() < _WATCHING)
        quiet = not waits and bool(rng.random() < _QUIET)
        looks = lesson.camera and not waits and bool(rng.random() < _LOOKING)
        strange = looks and bool(rng.random() < _STRANGE)
        episode = self.episode(
            rng, lesson, split, quiet=quiet, strange=strange, waits=waits, looks=looks
        )
        return self.staged(episode, rng, split, size)

    def staged(
        self, episode: Episode, rng: np.random.Generator, split: Split, size: tuple[int, int]
    ) -> Example:
        room = Room.random(rng, held_out=split.noises)
        echo = self.echo(episode, rng) if rng.random() < 0.25 else ()
        return self._encoder.example(episode, room, rng, size, tuple(echo))

    def long_episode(self, rng: np.random.Generator, units: int, split: Split) -> Episode:
        """As `episode`, of any length, with a camera."""
        stage = long_set(rng, units, held_out=split.looks)
        return Director(rng, Lines(rng, self._speaker, split), stage, units, fresh=True).direct()

    def sound(
        self, episode: Episode, rng: np.random.Generator, split: Split
    ) -> NDArray[np.float32]:
        """What the microphone gives of an episode: float32 [units * 16000]."""
        room = Room.random(rng, held_out=split.noises)
        whole = track(episode)
        parts = [whole[at : at + PART] for at in range(0, len(whole), PART)]
        return np.concatenate([room.hear(part, rng) for part in parts])

    def picture(
        self, episode: Episode, unit: int, rng: np.random.Generator, size: tuple[int, int]
    ) -> NDArray[np.uint8] | None:
        """What the camera gives in a unit, uint8 [height, width, 3]; None without one."""
        if episode.set.scene is None:
            return None
        return self._encoder.pixels(episode.set, unit, rng, size)

    def echo(self, episode: Episode, rng: np.random.Generator) -> Iterator[tuple[float, Line]]:
        """The robot's voice as its own microphone hears it, what an echo canceller left of it."""
        level = 10 ** (rng.uniform(-40, -18) / 20)
        for unit, target in enumerate(episode.units):
            if target.action == "speak":
                said = self._speaker.say(target.text, ROBOT)
                samples = (said.samples * np.float32(level)).astype(np.float32)
                yield unit + 1.05, Line("", samples)

    def examples(
        self, rng: np.random.Generator, lesson: Lesson, count: int, split: Split
    ) -> list[Example]:
        """Of one lesson, all with pictures of one shape."""
        sizes = WIDE_SIZES if rng.random() < 0.25 else SIZES
        return [
            self.example(rng, lesson, split, sizes[int(rng.integers(len(sizes)))])
            for _ in range(count)
        ]

    def story(self, rng: np.random.Generator, units: int) -> tuple[list[Seen], list[Written]]:
        """Pictures of a world in a hurry, and what is asked about it in writing: in some sheets
        anything, in the others to watch for something."""
        strange = bool(rng.random() < _STRANGE)
        stage = hastened(random_set(rng, 2 * units, strange=strange), 2.0)
        size = SIZES[int(rng.integers(len(SIZES)))]
        seen = [self._encoder.picture(stage, unit, rng, size) for unit in range(units)]
        ways = [*[False] * ASKS, *[True] * WAITS]
        return seen, [self._questions.story(stage, units, rng, waits=one) for one in ways]

    def about(self, seen: Sequence[Seen], rng: np.random.Generator) -> Written:
        """Questions in writing about pictures, one after the other."""
        return self._questions.about([one.things for one in seen], rng)

    def waiting(self, seen: Sequence[Seen], rng: np.random.Generator) -> Written:
        """Pictures of unlike worlds before one who watches for something, in writing."""
        return self._questions.waiting([one.things for one in seen], rng)

    def loose(self, rng: np.random.Generator, count: int, *, held_out: bool = False) -> list[Seen]:
        """Pictures without an episode."""
        found = []
        for _ in range(count):
            look = Look.random(rng, held_out)
            things = tuple(random_things(rng, int(rng.integers(0, 5)), held_out=held_out))
            size = SIZES[int(rng.integers(len(SIZES)))]
            found.append(self._encoder.seen(draw(things, look, 0.0, size, rng=rng), things))
        return found
