"""When flite's words and phonemes are heard.

flite tells when each of its segments ends. Which of them are of which word it does not tell; words
spoken alone have nearly the same segments, so the two rows are laid beside each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise

from minicpmo_ros.nano.espeak_phonemes import OTHER, PHONEMES

Segment = tuple[str, float]  # name, and when it ends, in seconds
WordSpan = tuple[str, float, float]
PhonemeSpan = tuple[int, float, float]

_PAUSES = ("pau", "brth", "h#", "ssil")
# The classes of espeak-ng's phonemes that sound like flite's.
_LIKE = (
    "aa=A: ae=a ah=V ao=O: aw=aU ax=@ axr=3: ay=aI b=b ch=tS d=d dh=D dx=t eh=E el=l em=m en=n"
    " er=3: ey=eI f=f g=g hh=h hv=h ih=I iy=i: jh=dZ k=k l=l m=m n=n ng=N nx=n ow=oU oy=OI p=p r=r"
    " s=s sh=S t=t th=T uh=U uw=u: v=v w=w y=j z=z zh=Z"
)
_CLASSES = dict(pair.split("=") for pair in _LIKE.split())


def segments_of(told: str) -> list[Segment]:
    """What `flite -psdur` prints: "pau:0.136 t:0.239 ..."."""
    return [(name, float(end)) for name, end in re.findall(r"(\S+):([\d.]+)(?=\s|$)", told)]


def phonemes(segments: Sequence[Segment]) -> list[PhonemeSpan]:
    """Class, start and stop of each in seconds, pauses left out."""
    found = []
    for (_, start), (name, end) in pairwise([("", 0.0), *segments]):
        if name not in _PAUSES and end > start:
            known = _CLASSES.get(name)
            found.append((PHONEMES.index(known) if known else OTHER, start, end))
    return found


def words(
    text: str, segments: Sequence[Segment], alone: Callable[[str], Sequence[str]]
) -> list[WordSpan]:
    """Each word of a plain text with its start and stop in seconds.

    alone: the names of a word's segments when nothing else is said, pauses left out.
    """
    heard = [
        (name, start, end)
        for (_, start), (name, end) in pairwise([("", 0.0), *segments])
        if name not in _PAUSES
    ]
    if not heard:
        return []
    spoken: list[str] = []
    borders = [0]
    some = text.split()
    for word in some:
        spoken += alone(word)
        borders.append(len(spoken))
    at = _across(spoken, [name for name, _, _ in heard])
    found = []
    for word, (first, last) in zip(some, pairwise(borders), strict=True):
        begin, end = at[first], at[last]
        if end > begin:
            found.append((word, heard[begin][1], heard[end - 1][2]))
    return found


def _across(spoken: Sequence[str], heard: Sequence[str]) -> list[int]:
    """Before which of the second row each border between those of the first one lies, the ends
    included. Where the rows differ, in proportion."""
    at = [0] * (len(spoken) + 1)
    for _, a, b, c, d in SequenceMatcher(None, spoken, heard, autojunk=False).get_opcodes():
        for place in range(a, b):
            at[place + 1] = c + round((place + 1 - a) * (d - c) / (b - a))
    at[-1] = len(heard)
    return at
