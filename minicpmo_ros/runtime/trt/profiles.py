"""Which sizes an engine is to take: the profiles of each stage, by the names of its dimensions.

A profile gives the least, the usual and the largest size of each named dimension (`tokens`, `rows`,
`patches`: the names that `runtime.export.plans` gives them). TensorRT chooses kernels for the usual
one, and what is outside all profiles an engine refuses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.rows import RECENT_FRAMES
from minicpmo_ros.runtime.trt.rows import PIECE
from minicpmo_ros.runtime.vocoder_stages import ROWS
from minicpmo_ros.runtime.voices.sound import MOST_TOKENS

Sizes = tuple[int, int, int]
Profile = Mapping[str, Sizes]

# What a unit of a conversation reads at once: a picture and a second of sound.
USUAL_PREFILL = 74
# Tokens of a chunk, and of a voice of five seconds.
USUAL_CHUNK, USUAL_VOICE = 25, 125
MOST_VOCODER_FRAMES = 600
"""That HiFT takes at once: twelve seconds."""


def decoder_profiles(prefill: int, capacity: int, *, packed: bool) -> list[Profile]:
    """Of a decoder's layers, for up to `prefill` tokens at once behind up to `capacity` rows.

    packed: its matrices have four bits. Then decoding has a profile of its own: both use the same
    weights. Of weights in half precision an engine keeps one copy for each profile, so there is one
    for both.
    """
    rows = _up_to(capacity, capacity // 2)
    usual = min(USUAL_PREFILL, prefill)
    if not packed or prefill < 2:
        return [{"tokens": (1, usual, prefill), "rows": rows}]
    return [
        {"tokens": (1, 1, 1), "rows": rows},
        {"tokens": (2, max(usual, 2), prefill), "rows": rows},
    ]


def head_profiles() -> list[Profile]:
    """Of a head: logits are asked for one token at a time."""
    return [{"tokens": (1, 1, 1)}]


def audio_profiles(positions: int) -> list[Profile]:
    """Of the audio encoder, behind up to so many positions."""
    return [{"rows": _up_to(positions, positions // 2)}]


def vision_profiles(patches: Sequence[int]) -> list[Profile]:
    """Of the vision encoder: one for each number of patches, up to which it is used."""
    least = [2, *(size + 1 for size in patches[:-1])]
    return [{"patches": (low, size, size)} for low, size in zip(least, patches, strict=True)]


def turn_profiles(heads: int) -> list[Profile]:
    """Of what turns the keys of so many heads, those of all layers: a piece of all of them."""
    return [{"rows": _up_to(heads * PIECE, heads * PIECE)}]


def vocoder_profiles(name: str, config: FlowConfig) -> list[Profile]:
    """Of a piece of the vocoder: for any voice, which is read at once, and chunks of a turn."""
    ahead, up = config.conformer.look_ahead, config.conformer.up
    if name == "flow.encoder":
        rows = ROWS * -(-(MOST_TOKENS + RECENT_FRAMES // up) // ROWS)
        usual = USUAL_CHUNK + ahead
        return [{"ids": (1 + ahead, usual, MOST_TOKENS + ahead), "rows": (ROWS, 3 * ROWS, rows)}]
    if name == "flow.estimator":
        # As many slots as a voice has frames, and as many again for the turn; a hundred at least.
        most, frames = 2 * up * MOST_TOKENS, up * MOST_TOKENS
        usual_slots = up * 2 * USUAL_VOICE
        return [
            {"frames": (1, up * USUAL_CHUNK, frames), "rows": (RECENT_FRAMES, usual_slots, most)}
        ]
    return [{"frames": (1, up * USUAL_CHUNK + 10, MOST_VOCODER_FRAMES)}]


def sizes(name: str, dimension: str | None, size: int, profile: Profile) -> Sizes:
    """Least, usual and largest size of one dimension of the input `name`.

    dimension: as the graph names it, "patches" or "14*patches". size: of a fixed dimension; -1 of
    one that the profile must give.

    Raises:
        EngineError: the profile does not have it.
    """
    if size != -1:
        return size, size, size
    found = re.fullmatch(r"(?:(\d+)\*)?(\w+)", dimension or "")
    if found is None or found[2] not in profile:
        raise EngineError(
            f"input {name} has a dimension {dimension or 'without a name'} of any size, and the"
            f" profile gives {', '.join(profile) or 'none'}"
        )
    factor = int(found[1] or 1)
    least, usual, largest = profile[found[2]]
    return factor * least, factor * usual, factor * largest


def _up_to(largest: int, usual: int) -> Sizes:
    return 1, max(usual, 1), largest
