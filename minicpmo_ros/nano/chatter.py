"""Talk that is not for the robot: people telling each other things, with no question to it."""

from __future__ import annotations

import numpy as np

from minicpmo_ros.media.world.things import COLOURS, KINDS
from minicpmo_ros.nano.answers import plural
from minicpmo_ros.nano.wordings import AT, EVERY_WORDING, NUMBERS, WORDS

# Of so many sentences that are for somebody else, and of so many questions beyond it.
_WILD_SHARE = 0.65
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


# Speech that it never heard has other words. Weights that knew a hundred of them took all the rest
# for questions, and answered more than half of what a person said to others.
_LINKS = (
    *("the", "a", "to", "of", "and", "in", "on", "with", "for", "at", "from", "but", "or", "so"),
    *("was", "had", "were", "not", "very", "then", "into", "about", "after", "before", "under"),
    *("he", "she", "we", "they", "it", "his", "her", "our", "their", "this", "these", "some"),
)
_COMMON = (
    *(
        "bread",
        "coffee",
        "dinner",
        "sugar",
        "salad",
        "kitchen",
        "table",
        "bottle",
        "cheese",
        "plate",
    ),
    *("street", "bridge", "station", "engine", "ticket", "journey", "village", "corner", "traffic"),
    *("doctor", "farmer", "children", "uncle", "captain", "people", "customer", "student", "queen"),
    *("winter", "thunder", "mountain", "forest", "ocean", "valley", "sunshine", "feather", "horse"),
    *("letter", "pencil", "story", "music", "language", "history", "science", "lesson", "journal"),
    *("money", "price", "contract", "market", "business", "payment", "account", "offer", "profit"),
    *("shoulder", "finger", "stomach", "jacket", "trousers", "mirror", "blanket", "pillow", "soap"),
    *("running", "finished", "started", "believed", "walking", "decided", "returned", "carried"),
    *("painted", "followed", "dropped", "opened", "pushed", "borrowed", "studied", "laughed"),
    *("quickly", "often", "never", "almost", "together", "perhaps", "outside", "early", "again"),
    *("heavy", "gentle", "narrow", "strange", "useful", "famous", "empty", "modern", "silent"),
    *("message", "button", "system", "computer", "service", "machine", "record", "password"),
)
_ONSETS = (
    *("b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "y", "z"),
    *("br", "cl", "dr", "fl", "gr", "pl", "pr", "sh", "sk", "sl", "sm", "sp", "st", "str", "th"),
    *("tr", "ch", "qu", "tw", "sw", ""),
)
_VOWELS = ("a", "e", "i", "o", "u", "ee", "oo", "ai", "ou", "ar", "or", "er", "oy", "ea")
_CODAS = (
    *("", "", "b", "ck", "d", "ft", "g", "l", "ll", "m", "n", "nd", "ng", "nk", "p", "r", "s"),
    *("sh", "st", "t", "th", "x", "lt", "rm", "ct", "mp"),
)
_OWN = (*WORDS, *NUMBERS, *COLOURS, *KINDS, *(plural(kind) for kind in KINDS), *AT.values())
_BEYOND = (
    *("why is", "why did", "who is", "who was", "when does", "when did", "how do I", "how far is"),
    *("what is the", "where did", "how long is", "which one is", "how much is", "what happened to"),
)

# What may not stand in a statement, but would by chance.
_ASKED = ("and the", "about the", *(one for one in EVERY_WORDING if "{" not in one))


def chatter(rng: np.random.Generator, held_out: bool = False) -> str:
    """A sentence said to somebody else. held_out: of patterns that training never has."""
    if not held_out and rng.random() < _WILD_SHARE:
        return _statement(rng)
    patterns = (_HELD_OUT, _HELD_OUT_TOO) if held_out else (_LEARNED, _LEARNED_TOO, _LEARNED_LAST)
    pattern = patterns[int(rng.integers(len(patterns)))]
    return " ".join(filter(None, (str(rng.choice(np.array(part))) for part in pattern)))


def beyond(rng: np.random.Generator) -> str:
    """A question to which nobody taught it the answer."""
    some = _words(rng, int(rng.integers(1, 5)), (_LINKS, _COMMON, ()))
    return f"{rng.choice(np.array(_BEYOND))} {some}"


def _statement(rng: np.random.Generator) -> str:
    while True:
        text = _words(rng, 1 + int(rng.geometric(0.22)), (_LINKS, _COMMON, (), _OWN))
        if not any(f" {one} " in f" {text} " for one in _ASKED):
            return text


def _words(rng: np.random.Generator, count: int, kinds: tuple[tuple[str, ...], ...]) -> str:
    """So many words, 14 at most, in any order and any mixture of kinds; () of one: none at all."""
    shares = rng.dirichlet([1.5, 1.5, 1.5, 0.5][: len(kinds)])
    found = []
    for which in rng.choice(len(kinds), size=min(count, 14), p=shares):
        some = kinds[which]
        found.append(str(rng.choice(np.array(some))) if some else _no_word(rng))
    return " ".join(found)


def _no_word(rng: np.random.Generator) -> str:
    """One to three syllables."""
    return "".join(
        str(rng.choice(np.array(part)))
        for _ in range(int(rng.integers(1, 4)))
        for part in (_ONSETS, _VOWELS, _CODAS)
    )
