"""What training asks of single places, read from a sequence and its pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra model")

from minicpmo_ros.media.world.things import Thing  # noqa: E402
from minicpmo_ros.nano.examples import slots_of  # noqa: E402
from minicpmo_ros.nano.hints import attributes_of  # noqa: E402
from minicpmo_ros.nano.lessons import Lesson  # noqa: E402
from minicpmo_ros.nano.naming import Gaze  # noqa: E402
from minicpmo_ros.nano.sizes import write_settings  # noqa: E402
from minicpmo_ros.nano.teaching import PICTURE, TOKEN, Batch, Read, Sheets, States  # noqa: E402
from minicpmo_ros.nano.training import Trainer, TrainingConfig  # noqa: E402

QUERIES = 16
CUP = Thing("cup", "red", "big", 0.5, 0.5)
BALL = Thing("ball", "blue", "small", 0.1, 0.5)
STAR = Thing("star", "white", "small", 0.9, 0.5)
NOTHING = [0, 0, 0, 0]
# Behind the first query of a picture.
BALL_IS, CUP_IS, STAR_IS = 0, 5, 10


def slots(*things: Thing) -> torch.Tensor:
    return torch.from_numpy(slots_of(things, QUERIES))


def of(thing: Thing, at: int) -> list[int]:
    return slots(thing)[at].tolist()


def sequence(pictures: int, words: int) -> torch.Tensor:
    """Kinds of places: each picture begins with a token and ends with one."""
    return torch.tensor([*([TOKEN, *[PICTURE] * QUERIES, TOKEN] * pictures), *[TOKEN] * words])


def read(kinds: torch.Tensor, first: float) -> Read:
    """Each place's state is its number."""
    late = first + torch.arange(kinds.numel(), dtype=torch.float32).view(*kinds.shape, 1)
    return Read(late, late, late, torch.zeros(0))


def test_a_name_and_the_words_behind_it_are_asked_for_what_the_named_thing_is() -> None:
    """In episodes and in writing, each with the pictures that it shows."""
    spoken = torch.stack([sequence(1, 6), sequence(1, 6)])
    first, end, word = 1, 1 + QUERIES, 2 + QUERIES
    points = torch.tensor(
        [
            [0, Gaze.NAMED, word, first + CUP_IS],
            [0, Gaze.CARRIED, word + 1, word],
            [0, Gaze.CARRIED, word + 2, word],
            [1, Gaze.NAMED, word, end],
            [1, Gaze.CARRIED, word + 1, word],
            [1, Gaze.FOUND, word + 3, first + BALL_IS],
            [1, Gaze.AWAITED, word + 4, word],
            # Of several that are alike none was named.
            [1, Gaze.CARRIED, word + 5, word + 3 - 1],
        ]
    )
    sheet = sequence(2, 3)[None]
    second = 2 + QUERIES
    written = torch.tensor([[0, Gaze.NAMED, 2 * second, second + first + STAR_IS]])
    empty = torch.zeros(0, dtype=torch.int64)
    batch = Batch(
        *[empty] * 3,
        spoken,
        *[empty] * 4,
        points,
        empty,
        None,
        2,
        Sheets(empty, sheet, *[empty] * 4, written, empty, torch.tensor([1, 0])),
    )
    shown = torch.stack([slots(CUP), slots(BALL), slots(STAR), slots(BALL)])
    batch = replace(batch, pictures=type("Shown", (), {"slots": shown}))
    states = States(read(spoken, 0), empty, empty, None, None, read(sheet, 1000))
    labels, late = attributes_of(batch, states)
    row = spoken.shape[1]
    assert dict(zip(late.flatten().int().tolist(), labels.tolist(), strict=True)) == {
        word: of(CUP, CUP_IS),
        word + 1: of(CUP, CUP_IS),
        word + 2: of(CUP, CUP_IS),
        row + word: NOTHING,
        row + word + 1: NOTHING,
        row + word + 3: of(BALL, BALL_IS),
        1000 + 2 * second: of(STAR, STAR_IS),
    }


def test_training_asks_for_it(tmp_path: Path) -> None:
    """And what it asks reaches the layers that look things up."""
    write_settings(tmp_path)
    config = TrainingConfig(units_per_step=16, processes=1)
    trainer = Trainer(tmp_path, config)
    batch = trainer.batch(Lesson(8, True), np.random.default_rng(3))
    states = trainer.nano.states(batch)
    labels, late = attributes_of(batch, states)
    assert len(labels) == len(late) > 10
    loss = trainer.hints.losses(batch, states)["known"]
    known = trainer.hints.known(late)
    wanted = sum(
        float(torch.nn.functional.cross_entropy(head(known), labels[:, what]).detach())
        for what, head in enumerate(trainer.hints.attributes)
    )
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-4)
    loss.backward()
    value = trainer.nano.llm.model.layers[2].self_attn.v_proj.weight
    assert value.grad is not None and float(value.grad.abs().sum()) > 0
