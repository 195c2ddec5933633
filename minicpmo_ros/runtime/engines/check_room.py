"""The memory that checking what was built takes, asked for before anything is begun."""

from __future__ import annotations

import math
from collections.abc import Iterable

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.layout import shapes
from minicpmo_ros.model.vocoder import VocoderConfig
from minicpmo_ros.runtime.engines.disk import bytes_text
from minicpmo_ros.runtime.engines.pieces import PROCESS_BYTES, Piece, Sizes

# In single precision.
VALUE = 4
# Loading a file: its weights as they lie in it, as they are packed, and on the way.
LOADED = 3


def checking_bytes(piece: Piece, sizes: Sizes) -> int:
    """About the most that checking a piece takes: what was built of it and, once that is gone, its
    weights in torch. One at a time is rounded, and exists as codes as well; of a decoder's layer,
    matrices are copied into one before."""
    known = sizes.shapes if isinstance(sizes, VocoderConfig) else shapes(sizes)
    largest = max((math.prod(known[key]) for key in piece.names(sizes)), default=0)
    joined = 2 if piece.layers[1] else 0
    in_torch = VALUE * (piece.parameters(sizes) + joined * largest) + largest
    # Assets are read whole, and stay.
    assets = VALUE * sum(map(math.prod, known.values())) if piece.is_vocoder else 0
    return PROCESS_BYTES + assets + max(LOADED * piece.nbytes(sizes), in_torch)


def check_checking_memory(pieces: Iterable[Piece], sizes: Sizes, free: int) -> None:
    """Raise EngineError where checking one of the pieces would not fit.

    free: bytes that may be taken now; 0: not known.
    """
    takes = {one.name: checking_bytes(one, sizes) for one in pieces if not one.is_table}
    name = max(takes, key=takes.__getitem__)
    if free and takes[name] > free:
        raise EngineError(
            f"checking {name} takes {bytes_text(takes[name])} of memory, {bytes_text(free)} are"
            " free: end other programs, or check on a larger machine"
            + (" (llm.layers_per_file of fewer layers takes less)" if _is_layers(name) else "")
        )


def _is_layers(name: str) -> bool:
    part, _, rest = name.partition(".")
    return part == "llm" and rest.isdigit()
