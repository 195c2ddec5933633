"""The words that questions are made of, for the head that learns to spot them in training."""

from __future__ import annotations

import re

from minicpmo_ros.media.world.things import COLOURS, KINDS
from minicpmo_ros.nano.answers import plural
from minicpmo_ros.nano.wordings import AT, ENDINGS, INTENTS, NUMBERS, OPENINGS, WORDS


def _words() -> list[str]:
    texts = [one for intent in INTENTS.values() for one in intent.learned]
    texts += [*OPENINGS, *ENDINGS, *WORDS, *NUMBERS, *AT.values(), *COLOURS, *KINDS]
    texts += [plural(kind) for kind in KINDS]
    found = {word for text in texts for word in re.sub(r"\{\w+\}", " ", text).lower().split()}
    return sorted(found)


SPOTTED = {word: index for index, word in enumerate(_words())}
"""Index of each, lower case."""
