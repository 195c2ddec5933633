"""What is wrong about the words that the network would say, and about when it would speak."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from minicpmo_ros.nano.naming import Gaze
from minicpmo_ros.nano.teaching import NO_LABEL, Batch, Nano, Read, States

# Of a decision to speak while something is waited for. There are hundreds that listen for each.
ALERT = 2.0


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
        awaited = _places_of(batch.points, batch.labels, Gaze.AWAITED)[where]
        weights = torch.where(awaited & (labels == speak), ALERT, 1.0)
        found["decisions"] = (missed * weights).sum() / len(labels)
    if (where := told & ~batch.decides).any():
        found["text"] = _missed(nano, states.read, batch.labels, where)
    looked = [_looked_up(nano, states.read, batch.labels, batch.points)]
    if batch.written is not None and states.written is not None:
        sheet = batch.written
        told, decides = sheet.labels != NO_LABEL, sheet.decides.bool()
        for name, where in (("told", told & decides), ("asked", told & ~decides)):
            if where.any():
                found[name] = _missed(nano, states.written, sheet.labels, where)
        looked.append(_looked_up(nano, states.written, sheet.labels, sheet.points))
    if some := [one for one in looked if one is not None]:
        found["looked_up"] = torch.stack(some).sum()
    return found


def _looked_up(nano: Nano, read: Read, labels: Tensor, points: Tensor) -> Tensor | None:
    """Of the words that tell of a thing, for each of which there are dozens of others."""
    where = _places_of(points, labels, Gaze.CARRIED, Gaze.DESCRIBED) & (labels != NO_LABEL)
    return _missed(nano, read, labels, where) if where.any() else None


def _missed(nano: Nano, read: Read, labels: Tensor, where: Tensor) -> Tensor:
    return F.cross_entropy(nano.logits(read.hidden[where]).float(), labels[where])


def _places_of(points: Tensor, labels: Tensor, *what: int) -> Tensor:
    """bool, as labels [B, T]: places that look for one of these, see `pointing`. points: int64
    [P, 4], see `Sheets`."""
    places = torch.zeros_like(labels, dtype=torch.bool)
    some = points[torch.isin(points[:, 1], torch.tensor(what, device=points.device))]
    places[some[:, 0], some[:, 2]] = True
    return places
