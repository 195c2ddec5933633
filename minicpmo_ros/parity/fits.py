"""Whether a golden pair can be of a checkpoint at all, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from minicpmo_ros.errors import InputError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.parity.golden import Golden
from minicpmo_ros.parity.logits import STRIDE


def check_fits(golden: Golden, config: ModelConfig) -> None:
    """Hold a pair against itself, and its widths and ids against the sizes of a checkpoint.

    Raises:
        InputError: arrays are not there that the JSON asks for, or the pair was made with a
            checkpoint of other sizes or another vocabulary.
    """
    if missing := [key for key in _needed(golden) if key not in golden.arrays]:
        raise InputError(
            f"{golden.prefix}.npz lacks {', '.join(missing)}, which {golden.prefix.name}.json asks"
            " for; the two are not of one pair, or one is cut short"
        )
    llm, vocab = config.llm, config.llm.vocab
    if (highest := max(_ids(golden), default=-1)) >= vocab:
        raise InputError(
            f"{golden.prefix} was made with another vocabulary: it has the id {highest}, and the"
            f" checkpoint has {vocab} tokens"
        )
    widths = {
        r"vision\..*(?<!\.pixels_head)(?<!\.pixels_mean_std)": ("embeddings", llm.hidden),
        r"audio_stream\.emb|audio_ref\..*": ("embeddings", llm.hidden),
        r"llm\.hidden|tts\.hidden": ("hidden states", llm.hidden),
        r"duplex_.*\.K_last8": ("keys", llm.head_dim),
        r".*\.every_997th": (
            f"{STRIDE}ths of logits",
            math.ceil(vocab / STRIDE),
        ),
    }
    if config.speech is not None:
        widths[r"tts\.condition"] = ("conditions of speech", config.speech.hidden)
    for pattern, (what, width) in widths.items():
        for found in golden.names(pattern):
            shape = golden.arrays[found[0]].shape
            if not shape or shape[-1] != width:
                raise InputError(
                    f"{golden.prefix} was made with another checkpoint: its {what} ({found[0]},"
                    f" {list(shape)}) are not {width} wide, as those of this one are"
                )


def _needed(golden: Golden) -> Iterator[str]:
    """The arrays without which an entry that is listed cannot be compared."""
    logits = ("top_ids", "top_values", "logsumexp", "every_997th")
    yield from (shown.key for shown in golden.pictures)
    if golden.audio_stream is not None:
        yield "audio_stream.emb"
    if golden.voice is not None:
        yield from ("audio_ref.chunk1", "audio_ref.full")
    if golden.greedy is not None:
        yield from ("llm.hidden", *(f"llm.logits.{part}" for part in logits))
    if golden.speech is not None:
        yield from ("tts.hidden", "tts.condition")
    for session in golden.sessions:
        yield from (f"{session.name}.unit_logits.{part}" for part in logits)
        yield f"{session.name}.K_last8"


def _ids(golden: Golden) -> Iterator[int]:
    """All ids of the JSON that the language model reads or writes."""
    yield from golden.prompt_prefix or ()
    yield from golden.prompt_suffix or ()
    yield from golden.greedy or ()
    for session in golden.sessions:
        yield from session.total_ids
        yield from session.previous_ids
        yield from session.bias
        for unit in session.script or ():
            yield from (token for token in unit or () if isinstance(token, int))
