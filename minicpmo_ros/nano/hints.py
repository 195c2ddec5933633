"""What training alone asks of the network beside its words: when and where things are."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.media.world.things import COLOURS, KINDS, PLACES, SIZES
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.nano.espeak_phonemes import PHONEMES
from minicpmo_ros.nano.examples import NO_LABEL, SOUND
from minicpmo_ros.nano.pointing import AWAITED, FOUND, NAMED
from minicpmo_ros.nano.spotted import SPOTTED
from minicpmo_ros.nano.teaching import Batch, Pictures, States

# In nine rows of ten no word ends, and most of a picture is background.
RARE = 0.15
SPARSE = 0.3
# Four of 16 slots are taken at most.
SPARSER = 0.2


class Hints(nn.Module):
    """Heads that exist in training only: they say when and where what was heard and seen is."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.phonemes = nn.Linear(config.audio.hidden, len(PHONEMES) + 1)
        # Of early layers: later ones must find words there and look an answer up with them.
        self.words = nn.Sequential(
            nn.RMSNorm(config.llm.hidden), nn.Linear(config.llm.hidden, len(SPOTTED) + 1)
        )
        self.heard_words = nn.Linear(config.llm.hidden, len(SPOTTED) + 1)
        # A kind is learned from things of all colours, and a colour from things of all kinds.
        self.kinds = nn.Linear(config.vision.hidden, len(KINDS) + 1)
        self.colours = nn.Linear(config.vision.hidden, len(COLOURS) + 1)
        # Of each query in the same way: the language model reads queries one by one, and finds one
        # by its kind as it finds a word.
        self.slots = nn.ModuleList(
            nn.Linear(config.llm.hidden, 1 + len(some)) for some in (KINDS, COLOURS, SIZES, PLACES)
        )

    def losses(self, batch: Batch, states: States) -> dict[str, Tensor]:
        found = {
            "phonemes": _entropy(self.phonemes(states.heard), batch.phonemes),
            "words": _entropy(self.words(states.early[batch.kinds == SOUND]), batch.words, RARE),
            "heard": _entropy(self.heard_words(states.sound), batch.words, RARE),
        }
        if batch.pictures is not None and states.queries is not None:
            assert states.features is not None
            found |= self.losses_of(batch.pictures, states.queries, states.features)
        if batch.written is not None and states.written is not None:
            found["read_words"] = _entropy(self.words(states.written[1]), batch.written.words)
        return found

    def losses_of(self, pictures: Pictures, queries: Tensor, features: Tensor) -> dict[str, Tensor]:
        return {
            "kinds": _entropy(self.kinds(features), pictures.kinds, SPARSE),
            "colours": _entropy(self.colours(features), pictures.colours, SPARSE),
            "slots": torch.stack(
                [
                    _entropy(head(queries), pictures.slots[..., what], SPARSER)
                    for what, head in enumerate(self.slots)
                ]
            ).sum(),
        }


def points_missed(batch: Batch, states: States) -> dict[str, Tensor]:
    """Means of `Nano.read`'s, of all that is looked for alike."""
    parts = [(batch.points, states.missed)]
    if batch.written is not None and states.written is not None:
        parts.append((batch.written.points, states.written[2]))
    what = torch.cat([points[:, 1] for points, _ in parts])
    missed = torch.cat([one for _, one in parts])
    names = {"named": NAMED, "awaited": AWAITED, "found": FOUND}
    return {name: missed[what == one].mean() for name, one in names.items() if (what == one).any()}


def _entropy(logits: Tensor, labels: Tensor, nothing: float = 1.0) -> Tensor:
    """nothing: weight of class 0."""
    logits, labels = logits.float().flatten(0, -2), labels.flatten()
    if not (labels != NO_LABEL).any():
        return logits.sum() * 0
    weights = torch.ones(logits.shape[-1], device=logits.device)
    weights[0] = nothing
    return F.cross_entropy(logits, labels, weights, ignore_index=NO_LABEL)
