"""What training alone asks of the network beside its words: when and where things are."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.media.world.things import COLOURS, KINDS, PLACES, SIZES
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.nano.changes import HOWS
from minicpmo_ros.nano.espeak_phonemes import PHONEMES
from minicpmo_ros.nano.examples import NO_LABEL, PICTURE, SOUND
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
        # Where a thing was looked for, of what it is.
        self.known = nn.RMSNorm(config.llm.hidden)
        self.attributes = nn.ModuleList(
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
        if batch.pictures is not None:
            found["known"] = self._of_names(batch, states)
        return found

    def _of_names(self, batch: Batch, states: States) -> Tensor:
        labels, late = attributes_of(batch, states)
        known = self.known(late)
        return torch.stack(
            [_entropy(head(known), labels[:, what]) for what, head in enumerate(self.attributes)]
        ).sum()

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


def attributes_of(batch: Batch, states: States) -> tuple[Tensor, Tensor]:
    """Of each place that names a thing, looks back at the name or looks for what was promised, what
    that is: int64 [N, 4] as `examples.slots_of` has it, 0 for what is not there; and the states
    behind the second third of the layers, [N, H]."""
    assert batch.pictures is not None
    slots = batch.pictures.slots
    parts = [(batch.kinds, batch.points, slots[: batch.in_episodes], states.read.late)]
    if batch.written is not None and states.written is not None:
        sheet = batch.written
        shown = slots[batch.in_episodes :][sheet.shown]
        parts.append((sheet.kinds, sheet.points, shown, states.written.late))
    labels, late = [], []
    for kinds, points, shown, here in parts:
        of_places = _attributes(kinds, points, shown)
        told = of_places[..., 0] != NO_LABEL
        labels.append(of_places[told])
        late.append(here[told])
    return torch.cat(labels), torch.cat(late)


def _attributes(kinds: Tensor, points: Tensor, slots: Tensor) -> Tensor:
    """int64 [B, T, 4], NO_LABEL at all other places. slots: int64 [pictures, queries, 4], of all
    pictures in order."""
    query = (kinds == PICTURE).flatten()
    there = torch.zeros(len(query), slots.shape[-1], dtype=torch.int64, device=kinds.device)
    there[query] = slots.flatten(0, 1)
    there = there.unflatten(0, kinds.shape)
    found = torch.full_like(there, NO_LABEL)
    for what, source in ((Gaze.NAMED, there), (Gaze.FOUND, there), (Gaze.CARRIED, found)):
        row, _, at, target = points[points[:, 1] == what].unbind(1)
        found[row, at] = source[row, target]
    return found


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
