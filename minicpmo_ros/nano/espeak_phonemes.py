"""The sounds of English in classes, of espeak-ng's phoneme names, and when each is heard.

The classes are what the encoder learns to tell apart, frame by frame, while it is trained.
"""

from __future__ import annotations

from minicpmo_ros.media.espeak_library import EVENT_END, EVENT_PHONEME, EspeakEvent

# Name of the class, and the mnemonics of espeak-ng's English accents that are folded into it.
_CLASSES = (
    ("_", "_ _: _:: _! _| _^_ ||"),
    ("other", ""),
    ("i:", "i: i"),
    ("I", "I I2 IR"),
    ("E", "E E2 ER e"),
    ("a", "a a/ aa"),
    ("A:", "A: A@ A A@r"),
    ("0", "0 0# O2 O"),
    ("O:", "O: O@ o@ O@r"),
    ("U", "U"),
    ("u:", "u: u"),
    ("V", "V"),
    ("3:", "3: 3 VR"),
    ("@", "@ @- @2 @5 a#"),
    ("eI", "eI e: eI2"),
    ("aI", "aI aI2 aI3 aI@"),
    ("OI", "OI OI@"),
    ("aU", "aU aU@ aU3"),
    ("oU", "oU o: o"),
    ("i@", "i@ i@3 I@"),
    ("e@", "e@ e@3"),
    ("U@", "U@ u@"),
    ("p", "p"),
    ("b", "b"),
    ("t", "t t# t2 ?"),
    ("d", "d d#"),
    ("tS", "tS tS;"),
    ("dZ", "dZ dZ;"),
    ("k", "k x"),
    ("g", "g"),
    ("f", "f"),
    ("v", "v"),
    ("T", "T t["),
    ("D", "D d["),
    ("s", "s"),
    ("z", "z z#"),
    ("S", "S S;"),
    ("Z", "Z Z;"),
    ("h", "h"),
    ("m", "m m-"),
    ("n", "n n- n^"),
    ("N", "N N-"),
    ("l", "l @L l^ l/ L"),
    ("r", "r r- r/ R *"),
    ("w", "w w#"),
    ("j", "j ; j/"),
)
PHONEMES: tuple[str, ...] = tuple(name for name, _ in _CLASSES)
SILENCE = PHONEMES.index("_")
OTHER = PHONEMES.index("other")

_INDEX = {
    mnemonic: index for index, (_, folded) in enumerate(_CLASSES) for mnemonic in folded.split()
}


def phoneme_index(mnemonic: str) -> int:
    """The class of one of espeak-ng's phoneme names; `OTHER` for what no English accent has."""
    return _INDEX.get(mnemonic, OTHER)


def place_phonemes(events: list[EspeakEvent], samples: int) -> list[tuple[int, int, int]]:
    """Class and samples [start, stop) of each phoneme in order, pauses left out.

    A phoneme lasts until the next event of one, or the end of its clause. samples: of the whole.
    """
    placed = []
    open_index, open_start = SILENCE, 0
    marks = [(e.mnemonic, e.sample) for e in events if e.kind in (EVENT_PHONEME, EVENT_END)]
    for mnemonic, sample in [*marks, ("", samples)]:
        sample = min(max(sample, open_start), samples)
        if open_index != SILENCE and sample > open_start:
            placed.append((open_index, open_start, sample))
        # Without a name: the end of a clause.
        open_index = phoneme_index(mnemonic) if mnemonic else SILENCE
        open_start = sample
    return placed
