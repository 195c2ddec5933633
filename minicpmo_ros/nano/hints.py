"""What training alone asks of the network beside its words: when and where things are."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.media.world.things import COLOURS, KINDS, PLACES, SIZES
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.nano.changes import HOWS
from minicpmo_ros.nano.espeak_phonemes import PHONEMES
from minicpmo_ros.nano.examples import NO_LABEL, SOUND
from minicpmo_ros.nano.naming import Gaze
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
        # At the end of each picture, of what is new in it.
        self.new = nn.RMSNorm(config.llm.hidden)
        self.changes = nn.ModuleList(
            nn.Linear(config.llm.hidden, 1 + len(some)) for some in (HOWS, KINDS, COLOURS)
        )

    def losses(self, batch: Batch, states: States) -> dict[str, Tensor]:
        found = {
            "phonemes": _entropy(self.phonemes(states.heard), batch.phonemes),
            "words": _entropy(
                self.words(states.read.early[batch.kinds == SOUND]), batch.words, RARE
            ),
            "heard": _entropy(self.heard_words(states.sound), batch.words, RARE),
        }
        if batch.pictures is not None and states.queries is not None:
            assert states.features is not None
            found |= self.losses_of(batch.pictures, states.queries, states.features)
        if batch.written is not None and states.written is not None:
            found["read_words"] = _entropy(self.words(states.written.early), batch.written.words)
        if len(batch.changes) or batch.written is not None:
            found["changes"] = self._of_changes(batch, states)
        return found

    def _of_changes(self, batch: Batch, states: States) -> Tensor:
        parts = [(batch.changes, states.read.late)]
        if batch.written is not None and states.written is not None:
            parts.append((batch.written.changes, states.written.late))
        labels = torch.cat([changes[:, 2:] for changes, _ in parts])
        ends = self.new(torch.cat([late[changes[:, 0], changes[:, 1]] for changes, late in parts]))
        return torch.stack(
            [
                _entropy(head(ends), labels[:, what], SPARSE)
                for what, head in enumerate(self.changes)
            ]
        ).sum()

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
    parts = [(batch.points, states.read.missed)]
    if batch.written is not None and states.written is not None:
        parts.append((batch.written.points, states.written.missed))
    what = torch.cat([points[:, 1] for points, _ in parts])
    missed = torch.cat([one for _, one in parts])
    return {one.name.lower(): missed[what == one].mean() for one in Gaze if (what == one).any()}


def _entropy(logits: Tensor, labels: Tensor, nothing: float = 1.0) -> Tensor:
    """nothing: weight of class 0."""
    logits, labels = logits.float().flatten(0, -2), labels.flatten()
    if not (labels != NO_LABEL).any():
        return logits.sum() * 0
    weights = torch.ones(logits.shape[-1], device=logits.device)
    weights[0] = nothing
    return F.cross_entropy(logits, labels, weights, ignore_index=NO_LABEL)
