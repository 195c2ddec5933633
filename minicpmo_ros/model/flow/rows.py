"""Which rows of the past are kept: never more than the prompt's and a hundred frames.

The reference cuts each cache to its first rows, as many as the prompt has frames, and its last
hundred. What that leaves differs from what it seems:

- The estimator's cache has the newest chunk in front. So the newest frames stay, as many as the
  prompt has, and the last hundred of the prompt.
- The cache at the rate of tokens is kept twice in a row, to be as long as that at the rate of
  frames, and is cut like that one; of what is left, the first half counts. So the prompt's tokens
  stay and the first fifty of the turn, and none that come later.
- The cache at the rate of frames keeps what it should: the prompt and the newest hundred frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

Forget = Literal["reference", "oldest"]
"""What goes when a cache is full: as the reference does, see above; or, in every cache, what is
oldest behind the prompt."""

RECENT_FRAMES = 100
_Row = TypeVar("_Row")


def cut(rows: Sequence[_Row], prompt: int, recent: int) -> list[_Row]:
    """The first `prompt` rows and the last `recent`, or all if there are no more."""
    if len(rows) <= prompt + recent:
        return list(rows)
    return [*rows[:prompt], *rows[-recent:]]


def kept_frames(rows: int, prompt: int) -> list[int]:
    """Of the encoder's rows at the rate of frames, of which the prompt has `prompt`, those kept."""
    return cut(range(rows), prompt, RECENT_FRAMES)


def kept_tokens(rows: int, prompt: int, up: int, forget: Forget) -> list[int]:
    """Of the encoder's rows at the rate of tokens, of which the prompt has `prompt`, those kept:
    as many as `kept_frames` would keep of `up` times the rows, divided by `up`."""
    if forget == "oldest":
        return cut(range(rows), prompt, RECENT_FRAMES // up)
    kept = cut(list(range(rows)) * up, prompt * up, RECENT_FRAMES)
    return kept[: len(kept) // up]


class FrameSlots:
    """Where the estimator's rows lie in a buffer, which they leave and enter in no order.

    The prompt's rows are at its end and are never written over, so that a new turn needs no copy of
    them; rows of the turn are in front of them. Those in use are always [start, stop).

    Args:
        prompt: frames of the prompt.
        forget: see `Forget`.
    """

    def __init__(self, prompt: int, forget: Forget) -> None:
        self.prompt = prompt
        self.forget = forget
        # A hundred, or what the reference keeps of the turn, newest first, if that is more.
        self.room = max(prompt, RECENT_FRAMES) if forget == "reference" else RECENT_FRAMES
        self.reset()

    @property
    def capacity(self) -> int:
        return self.room + self.prompt

    @property
    def length(self) -> int:
        return self.stop - self.start

    def prompt_order(self) -> list[int]:
        """Of which of its frames each of the prompt's slots is: the last hundred first, for those
        before them are the first to be forgotten, from the last of them on."""
        split = max(self.prompt - RECENT_FRAMES, 0)
        return [*range(split, self.prompt), *range(split)]

    def reset(self) -> None:
        """Only the prompt."""
        self.start, self.stop = self.room, self.capacity
        slot_of = {frame: self.room + i for i, frame in enumerate(self.prompt_order())}
        # The list that is cut: as the reference's cache, or the oldest first.
        self._slots = [slot_of[frame] for frame in range(self.prompt)]

    def push(self, frames: int) -> tuple[list[int], list[int]]:
        """Let new rows in and old ones go.

        Returns:
            Which of the new frames are kept (all, but for a chunk longer than what is kept), and
            the slot of each of them.
        """
        new = [-1 - frame for frame in range(frames)]  # no slots yet
        rows = new + self._slots if self.forget == "reference" else self._slots + new
        kept = cut(rows, self.prompt, RECENT_FRAMES)
        staying = {row for row in kept if row >= 0}
        gone = [slot for slot in self._slots if slot not in staying]
        self.stop -= sum(slot >= self.room for slot in gone)
        entering = [row for row in kept if row < 0]
        free = [slot for slot in gone if slot < self.room]
        taken = len(entering) - len(free)
        free += range(self.start - taken, self.start)
        self.start -= taken
        places = dict(zip(entering, free, strict=True))
        self._slots = [places.get(row, row) for row in kept]
        return [-1 - row for row in entering], free
