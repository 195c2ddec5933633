"""What is wrong about the words that the network would say, and about when it would speak."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from minicpmo_ros.nano.naming import AWAITED, CARRIED, LISTED
from minicpmo_ros.nano.teaching import NO_LABEL, Batch, Nano, States

# Of a decision to speak while something is waited for. There are hundreds that listen for each.
ALERT = 2.0
# Of a word that tells of a thing. There are dozens of others for each.
TOLD = 3.0


def losses_of_words(nano: Nano, batch: Batch, states: States, speak: int) -> dict[str, Tensor]:
    """Cross-entropy of the decisions, and of the words behind them.

    speak: the token that begins what is said in a unit.
    """
    told = batch.labels != NO_LABEL
    found = {}
    if (where := told & batch.decides).any():
        labels = batch.labels[where]
        missed = F.cross_entropy(
            nano.logits(states.read.hidden[where]).float(), labels, reduction="none"
        )
        weights = torch.where(_points_from(batch, AWAITED)[where] & (labels == speak), ALERT, 1.0)
        found["decisions"] = (missed * weights).sum() / len(labels)
    if (where := told & ~batch.decides).any():
        logits = nano.logits(states.read.hidden[where])
        missed = F.cross_entropy(logits.float(), batch.labels[where], reduction="none")
        weights = torch.where(_points_from(batch, CARRIED, LISTED)[where], TOLD, 1.0)
        found["text"] = (missed * weights).mean()
    if batch.written is not None and states.written is not None:
        sheet = batch.written
        told, decides = sheet.labels != NO_LABEL, sheet.decides.bool()
        for name, where in (("told", told & decides), ("asked", told & ~decides)):
            if where.any():
                logits = nano.logits(states.written.hidden[where])
                found[name] = F.cross_entropy(logits.float(), sheet.labels[where])
    return found


def _points_from(batch: Batch, *what: int) -> Tensor:
    """bool [B, T]: places that look for one of these, see `pointing`."""
    places = torch.zeros_like(batch.decides, dtype=torch.bool)
    looked = torch.tensor(what, device=places.device)
    some = batch.points[torch.isin(batch.points[:, 1], looked)]
    places[some[:, 0], some[:, 2]] = True
    return places
