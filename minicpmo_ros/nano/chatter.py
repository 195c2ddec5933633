"""Talk that is not for the robot: people telling each other things, with no question to it."""

from __future__ import annotations

import numpy as np

_LEARNED = (
    ("she", "he", "my brother", "my sister", "the neighbour", "our teacher", "they", "we", "Anna"),
    ("went to", "came back from", "talked about", "drove to", "walked past", "stayed near"),
    ("the market", "the office", "the old house", "the school", "the beach", "the garage"),
    ("yesterday", "last week", "in the morning", "with a friend", "after lunch", "once more"),
)
_LEARNED_TOO = (
    ("I told him", "you know", "I think", "I guess", "she said", "they say", "he knows"),
    ("that the meeting was", "the dinner was", "the film was", "the trip will be", "the car is"),
    ("too long", "really good", "a bit late", "quite expensive", "much better", "broken again"),
    ("and we left early", "so I called her", "but nobody cared", "as always", "", ""),
)
_LEARNED_LAST = (
    ("then", "and then", "because", "but", "after that", "well then"),
    ("we bought", "he lost", "she found", "they sold", "I forgot", "you missed"),
    ("some milk and bread", "the keys", "a new phone", "the last train", "two tickets", "my coat"),
    ("on the way home", "at the station", "in the kitchen", "before noon", "for the party", ""),
)
_HELD_OUT = (
    ("the manager", "my cousin", "that guy", "grandma", "the whole team", "Peter"),
    ("will visit", "has painted", "was looking for", "never liked", "forgot about", "repaired"),
    ("the new bridge", "a bigger table", "the summer house", "her old bicycle", "those shoes"),
    ("during the holidays", "without any help", "for three weeks", "on Sunday", "I believe"),
)
_HELD_OUT_TOO = (
    ("honestly", "by the way", "apparently", "to be fair", "in the end"),
    ("it rained", "the shop was closed", "dinner took forever", "nobody came", "we got lost"),
    ("all day long", "so we went home", "which was a pity", "near the airport", "and that was it"),
)


def chatter(rng: np.random.Generator, held_out: bool = False) -> str:
    """A sentence said to somebody else. held_out: of patterns that training never has."""
    patterns = (_HELD_OUT, _HELD_OUT_TOO) if held_out else (_LEARNED, _LEARNED_TOO, _LEARNED_LAST)
    pattern = patterns[int(rng.integers(len(patterns)))]
    return " ".join(filter(None, (str(rng.choice(np.array(part))) for part in pattern)))
