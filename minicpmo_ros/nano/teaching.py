"""Episodes through the whole network at once: embeddings, hidden states and losses of a batch.

The stages of `model` run a second at a time over caches that are written in place, which is no way
to train. Here the same modules see all seconds of a batch of episodes in one pass, under the masks
that the caches amount to; tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.media.world.things import COLOURS
from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.decoder import Layer
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.picture import batch as batch_pictures
from minicpmo_ros.model.rope import angles, rotate
from minicpmo_ros.model.vision import VisionStage
from minicpmo_ros.nano.examples import (
    NO_LABEL,
    PICTURE,
    POSITIONS,
    SOUND,
    TOKEN,
    Example,
    Seen,
)
from minicpmo_ros.nano.naming import Gaze
from minicpmo_ros.nano.written import Written

# Who looks: the layer, behind the first third, and the head, of four.
_LAYERS_HEADS = {
    Gaze.NAMED: (0, 0),
    Gaze.AWAITED: (0, 2),
    Gaze.BEFORE: (0, 1),
    Gaze.FOUND: (1, 2),
    Gaze.NEW: (1, 0),
    Gaze.CARRIED: (1, 2),
    Gaze.CHANGED: (2, 0),
    Gaze.DESCRIBED: (2, 1),
}


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures and what is in them. shown: pixels, position_ids, cells and mask, as `model.picture.
    Patches` has them. kinds, colours: int64 [N, P], of what each patch shows; 0: background, else 1
    + index. slots: int64 [N, queries, 4], see `examples.slots_of`."""

    shown: tuple[Tensor, Tensor, Tensor, Tensor | None]
    kinds: Tensor
    colours: Tensor
    slots: Tensor

    def to(self, device: torch.device | str) -> Pictures:
        shown = tuple(None if one is None else one.to(device) for one in self.shown)
        others = (one.to(device) for name, one in vars(self).items() if name != "shown")
        return Pictures(shown, *others)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Sheets:
    """`Written`'s arrays, stacked and padded at their ends: int64 [N, T]. Behind the number of
    their sequence, points: int64 [P, 4], as `Pointing` has them, and changes: int64 [P, 5], as
    `changes.at_ends` has them. shown: int64 [M], which of the loose pictures are in them, in the
    order of their places."""

    ids: Tensor
    kinds: Tensor
    labels: Tensor
    words: Tensor
    groups: Tensor
    decides: Tensor
    points: Tensor
    changes: Tensor
    shown: Tensor

    def to(self, device: torch.device | str) -> Sheets:
        return Sheets(*(one.to(device) for one in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples of equally many units. Of `Example`'s arrays, stacked; `ids` and what goes with it
    are padded at their ends; points and changes as those of `Sheets`. offsets: int64 [B], the
    position in the audio encoder's table at which each episode begins. pictures: of all examples in
    order, and then loose ones; in_episodes: how many are of examples. written: about loose ones."""

    mel: Tensor
    offsets: Tensor
    ids: Tensor
    kinds: Tensor
    labels: Tensor
    decides: Tensor
    phonemes: Tensor
    words: Tensor
    points: Tensor
    changes: Tensor
    pictures: Pictures | None
    in_episodes: int
    written: Sheets | None = None

    def to(self, device: torch.device | str) -> Batch:
        moved = {
            name: one.to(device) if isinstance(one, Tensor | Pictures | Sheets) else one
            for name, one in vars(self).items()
        }
        return Batch(**moved)  # type: ignore[arg-type]


def collate_pictures(seen: Sequence[Seen], side: int) -> Pictures:
    """Put pictures together. side: of the vision encoder's table of positions."""
    found = batch_pictures([one.slice for one in seen], side)
    most = found.position_ids.shape[1]
    cells = torch.from_numpy(
        np.stack(
            [
                np.pad(one.cells, (0, most - len(one.cells)), constant_values=NO_LABEL)
                for one in seen
            ]
        )
    )
    thing = cells > 0
    pair = (cells - 1).clamp_min(0)
    return Pictures(
        tuple(  # type: ignore[arg-type]
            None if x is None else torch.from_numpy(x)
            for x in (found.pixels, found.position_ids, found.cells, found.mask)
        ),
        torch.where(thing, 1 + pair // len(COLOURS), cells),
        torch.where(thing, 1 + pair % len(COLOURS), cells),
        torch.from_numpy(np.stack([one.slots for one in seen])),
    )


def _padded(some: Sequence[Any], name: str, value: int) -> Tensor:
    rows = [getattr(one, name) for one in some]
    longest = max(len(row) for row in rows)
    filled = [np.pad(row, (0, longest - len(row)), constant_values=value) for row in rows]
    return torch.from_numpy(np.stack(filled))


def _numbered(some: Sequence[Example | Written], name: str) -> Tensor:
    rows = [np.insert(getattr(one, name), 0, number, 1) for number, one in enumerate(some)]
    return torch.from_numpy(np.concatenate(rows))


def collate(
    examples: Sequence[Example],
    loose: Sequence[Seen],
    written: Sequence[tuple[Written, Sequence[int]]],
    side: int,
    pad_id: int,
    rng: np.random.Generator,
    capacity: int = 1450,
) -> Batch:
    """Put examples together. written: and which of the loose pictures it is about, in their order.
    side: see `collate_pictures`. capacity: of the audio encoder's cache, of which each example
    takes a random part."""
    units = len(examples[0].mel)
    seconds = capacity // POSITIONS - units
    offsets = rng.integers(0, seconds + 1, len(examples)) * POSITIONS
    offsets[rng.random(len(examples)) < 0.5] = 0
    seen = [picture for one in examples for picture in one.seen]
    everything = [*seen, *loose]
    return Batch(
        torch.from_numpy(np.stack([one.mel for one in examples])),
        torch.from_numpy(offsets),
        _padded(examples, "ids", pad_id),
        _padded(examples, "kinds", TOKEN),
        _padded(examples, "labels", NO_LABEL),
        _padded(examples, "decides", 0),
        torch.from_numpy(np.stack([one.phonemes for one in examples])),
        torch.from_numpy(np.stack([one.words for one in examples])),
        _numbered(examples, "points"),
        _numbered(examples, "changes"),
        collate_pictures(everything, side) if everything else None,
        len(seen),
        sheets(written, pad_id) if written else None,
    )


def sheets(written: Sequence[tuple[Written, Sequence[int]]], pad_id: int) -> Sheets:
    """Put what is written together; see `collate`."""
    some = [one for one, _ in written]
    return Sheets(
        _padded(some, "ids", pad_id),
        _padded(some, "kinds", TOKEN),
        _padded(some, "labels", NO_LABEL),
        _padded(some, "words", NO_LABEL),
        _padded(some, "groups", -1),
        _padded(some, "decides", 0),
        _numbered(some, "points"),
        _numbered(some, "changes"),
        torch.tensor([number for _, shown in written for number in shown]),
    )


class Nano(nn.Module):
    """The three stages that nano has. Parameters are named as in a checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.llm = Llm(config.llm)
        stage = VisionStage(config.vision, config.resampler)
        self.vpm, self.resampler = stage.vpm, stage.resampler
        audio = Audio(config.audio)
        self.apm, self.audio_projection_layer = audio.apm, audio.audio_projection_layer

    # -- stages over whole episodes ------------------------------------------------------------

    def hear(self, mel: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """mel [B, units, mels, 104], offsets [B] -> embeddings [B, units * 10, hidden] and the
        encoder's last states [B, units * 50, d]: each second sees itself and those before it."""
        count, units = mel.shape[:2]
        apm = self.apm
        x = F.gelu(F.conv1d(mel.flatten(0, 1), apm.conv1.weight, apm.conv1.bias))
        x = x.unflatten(0, (count, units))
        nothing = torch.zeros(x.shape[1:4:2], dtype=torch.bool, device=x.device)
        nothing[0, 0] = True  # before the first second there is nothing
        x = x.masked_fill(nothing[None, :, None], 0.0).flatten(0, 1)
        x = F.gelu(F.conv1d(x, apm.conv2.weight, apm.conv2.bias, stride=2))
        x = x.transpose(1, 2).reshape(count, units * POSITIONS, -1)
        places = torch.arange(units * POSITIONS, device=x.device)
        x = x + apm.embed_positions(offsets[:, None] + places)
        second = places // POSITIONS
        mask = second[None, :] <= second[:, None]
        for layer in apm.layers:
            x, _ = layer(x, mask)
        x = apm.layer_norm(x)
        return self.audio_projection_layer(x), x

    def look(self, pictures: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        """A batch as `model.picture.Patches` -> [N, queries, hidden], and the encoder's last states
        [N, P, d]."""
        pixels, position_ids, cells, mask = pictures
        features = self.vpm(pixels, position_ids, mask)
        return self.resampler(features, cells, mask), features

    def read(
        self, embeds: Tensor, groups: Tensor | None = None, points: Tensor | None = None
    ) -> Read:
        """The language model over whole sequences, [B, T, hidden]. groups: int64 [B, T]; behind the
        first third of its layers each group has seen itself alone, as it is with what is heard: a
        word is known there, and what it is about is not. points: int64 [P, 4], see `Sheets`."""
        config, model = self.config.llm, self.llm.model
        count, tokens = embeds.shape[:2]
        angle = angles(
            torch.arange(tokens, device=embeds.device), config.head_dim, config.rope_theta
        )
        cos, sin = angle.cos(), angle.sin()
        x = early = late = embeds
        apart = None if groups is None else _apart(groups)
        first = config.layers // 3
        missed = torch.zeros(0 if points is None else len(points), device=embeds.device)
        for number, layer in enumerate(model.layers, start=1):
            assert isinstance(layer, Layer)
            attention = layer.self_attn
            h = layer.input_layernorm(x)
            q, k, v = (
                proj(h).view(count, tokens, -1, config.head_dim)
                for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            q = rotate(attention.q_norm(q).transpose(1, 2), cos, sin)
            k = rotate(attention.k_norm(k).transpose(1, 2), cos, sin)
            group = config.heads // config.kv_heads
            k, v = (one.repeat_interleave(group, 1) for one in (k, v.transpose(1, 2)))
            near = apart if number <= first else None
            if points is not None:
                missed = missed + _missed(q, k, points, number - first - 1)
            out = F.scaled_dot_product_attention(
                q, k.to(q.dtype), v.to(q.dtype), near, is_causal=near is None
            )
            x = x + attention.o_proj(out.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            if number == first:
                early = x
            if number == 2 * first:
                late = x
        return Read(model.norm(x), early, late, missed)

    def states(self, batch: Batch) -> States:
        """All that losses are made of."""
        sound, heard = self.hear(batch.mel, batch.offsets)
        embeds = self.llm.embed(batch.ids)
        embeds = _placed(embeds, batch.kinds == SOUND, sound)
        queries = features = None
        if batch.pictures is not None:
            queries, features = self.look(batch.pictures.shown)
            if batch.in_episodes:
                embeds = _placed(embeds, batch.kinds == PICTURE, queries[: batch.in_episodes])
        written = None
        if batch.written is not None:
            assert queries is not None
            sheet = batch.written
            pictures = queries[batch.in_episodes :][sheet.shown]
            words = _placed(self.llm.embed(sheet.ids), sheet.kinds == PICTURE, pictures)
            written = self.read(words, sheet.groups, sheet.points)
        read = self.read(embeds, points=batch.points)
        return States(read, sound, heard, queries, features, written)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.llm.head(hidden)


@dataclass(frozen=True, eq=False)
class Read:
    """Of sequences: hidden, the language model's states [B, T, H]; early and late, those behind the
    first and the second third of its layers; missed, how little is looked at each of the points,
    -log of the attention's share, float32 [P]."""

    hidden: Tensor
    early: Tensor
    late: Tensor
    missed: Tensor


@dataclass(frozen=True, eq=False)
class States:
    """read: of episodes; written: of what is written. sound: [B, units * 10, H], what the language
    model is given of it. heard: [B, units * 50, d]. queries: [N, Q, H] and features: [N, P, d] of
    pictures, if there are any."""

    read: Read
    sound: Tensor
    heard: Tensor
    queries: Tensor | None
    features: Tensor | None
    written: Read | None = None


def _apart(groups: Tensor) -> Tensor:
    """Each place sees those before it in its own group: int64 [B, T] -> bool [B, 1, T, T]."""
    same = groups[:, :, None] == groups[:, None, :]
    return same.tril()[:, None]


def _missed(q: Tensor, k: Tensor, points: Tensor, behind: int) -> Tensor:
    """-log of the shares of attention in this layer, so many behind the first third: [P]; 0 for
    what is not looked for here. q, k: [B, heads, T, head_dim]."""
    row, what, at, target = points.unbind(1)
    table = torch.tensor([_LAYERS_HEADS[one] for one in Gaze], device=what.device)
    layer, head = table[what].unbind(1)
    head = head * q.shape[1] // 4
    here = layer == behind
    missed = torch.zeros(len(points), device=q.device)
    if not here.any():
        return missed
    row, head, at, target = (one[here] for one in (row, head, at, target))
    scores = (k[row, head].float() * q[row, head, at].float()[:, None]).sum(-1)
    unseen = torch.arange(k.shape[2], device=k.device) > at[:, None]
    shares = (scores / q.shape[3] ** 0.5).masked_fill(unseen, -torch.inf).log_softmax(-1)
    return missed.masked_scatter(here, -shares.gather(1, target[:, None])[:, 0])


def _placed(embeds: Tensor, where: Tensor, rows: Tensor) -> Tensor:
    """Rows, in order, into the places of a batch that wait for them."""
    return embeds.masked_scatter(where[..., None], rows.to(embeds.dtype))
