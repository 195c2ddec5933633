"""Which words of a piece of speech have sounded, given how many of its samples have."""

from __future__ import annotations

import re
from bisect import bisect_right

from minicpmo_ros.messages import WordMark

# Scripts written without spaces: there every character counts as a word.
_UNSPACED = "\u2e80-\u2fff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Punctuation of those scripts belongs to the character before it, and takes no space after it.
_WIDE_MARKS = "\u3000-\u303f\uff00-\uffef\u2018-\u201f\u2026"
_WORD = re.compile(f"[{_UNSPACED}][{_WIDE_MARKS}]*|[^\\s{_UNSPACED}]+")
_NO_SPACE = re.compile(f"[\\s{_UNSPACED}{_WIDE_MARKS}]")
_UNSPACED_SIGN = re.compile(f"[{_UNSPACED}]")
_WIDE_MARK = re.compile(f"[{_WIDE_MARKS}]")
_SENTENCE_ENDS = re.compile("[.!?\u2026\u3002\uff01\uff1f][\"')\\]\u2019\u201d]*$")
_CLAUSE_ENDS = re.compile("[,;:\u3001\uff0c\uff1a\uff1b][\"')\\]\u2019\u201d]*$")


def even_marks(text: str, samples: int) -> tuple[WordMark, ...]:
    """Marks for a text of which nothing else is known: its words share the samples evenly."""
    words = _WORD.findall(text)
    count = len(words)
    return tuple(
        WordMark(word, round(place * samples / count), round((place + 1) * samples / count))
        for place, word in enumerate(words)
    )


def words_in(text: str) -> list[str]:
    """The words of a text: what stands between spaces, or one character of scripts without them."""
    return _WORD.findall(text)


def spoken_length(word: str) -> float:
    """How long a word takes to say, in letters: an estimate. A digit is read out as a word of four,
    and a character of a script without spaces is a syllable of four.
    """
    unspaced = len(_UNSPACED_SIGN.findall(word))
    digits = sum(sign.isdigit() for sign in word)
    letters = sum(sign.isalpha() for sign in word) - unspaced
    return max(1.0, letters + 4.0 * (digits + unspaced))


def pause_length(word: str) -> float:
    """How long the silence behind a word is, in letters: an estimate by its punctuation."""
    if _SENTENCE_ENDS.search(word):
        return 4.0
    return 2.0 if _CLAUSE_ENDS.search(word) else 0.0


def is_one_word(before: str, after: str) -> bool:
    """Whether two stretches of text that touch are parts of one word: in scripts without spaces
    only punctuation is part of the character before it."""
    if _UNSPACED_SIGN.match(after[0]):
        return False
    return bool(_WIDE_MARK.match(after[0])) or not _NO_SPACE.match(before[-1])


def join(before: str, after: str) -> str:
    """Two stretches of text, one after the other, with a space where the script wants one."""
    if not before or not after:
        return before + after
    if _NO_SPACE.match(before[-1]) or _NO_SPACE.match(after[0]):
        return before + after
    return f"{before} {after}"


class SpokenText:
    """The text of one chunk, cut at the ends of its words.

    The text is the chunk's own, with its spaces and punctuation; only where the marked words are
    not in it, in their order, it is made of the marked words.
    """

    def __init__(self, text: str, words: tuple[WordMark, ...], samples: int) -> None:
        marks = words or even_marks(text, samples)
        starts = _places(text, marks)
        if starts is None:
            text = ""
            starts = []
            for mark in marks:
                joined = join(text, mark.text.strip())
                starts.append(len(joined) - len(mark.text.strip()))
                text = joined
        self._text = text
        # A mark beyond the samples counts as heard with the last of them.
        self._ends = [min(mark.end_sample, samples) for mark in marks]
        # A word reaches to the next one: what follows it, such as a comma, is heard with it.
        self._cuts = [len(text[:start].rstrip()) for start in [*starts[1:], len(text)]]

    @property
    def whole(self) -> str:
        return self._text

    def heard(self, samples: int) -> str:
        """The words that have sounded to their end when so many samples have."""
        count = bisect_right(self._ends, samples)
        return self._text[: self._cuts[count - 1]] if count else ""


def _places(text: str, marks: tuple[WordMark, ...]) -> list[int] | None:
    """Where in the text each marked word begins; None where one is missing."""
    places: list[int] = []
    at = 0
    for mark in marks:
        word = mark.text.strip()
        place = text.find(word, at)
        if place < 0:
            return None
        places.append(place)
        at = place + len(word)
    return places
