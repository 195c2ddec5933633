"""Training nano: lessons, losses, steps, and a state from which it goes on at any moment.

Several processes, one thread each, are faster on a CPU than one process with several threads: each
makes its own examples, and gradients are summed over all of them. What a step learns from follows
from the seed, its number and the process's rank alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.model.weight_files import weight_files
from minicpmo_ros.nano.gallery import Gallery
from minicpmo_ros.nano.hints import Hints, points_missed
from minicpmo_ros.nano.initial import initialise
from minicpmo_ros.nano.lessons import Lesson, Studio, lesson_at
from minicpmo_ros.nano.lines import Split
from minicpmo_ros.nano.losses import losses_of_words
from minicpmo_ros.nano.masking import masked
from minicpmo_ros.nano.teaching import (
    NO_LABEL,
    Batch,
    Nano,
    collate,
    collate_pictures,
)
from minicpmo_ros.nano.written import Written

STATE = "state.pt"
CURVES = "curves.jsonl"
_LOOKED_FOR = ("named", "awaited", "changed", "carried", "described", "before", "new")
# From the first to the last step, along half a cosine.
_HINT_WEIGHTS = {
    "phonemes": (1.0, 0.15),
    "words": (1.0, 0.25),
    "heard": (1.0, 0.25),
    "kinds": (1.0, 0.3),
    "colours": (0.5, 0.2),
    "slots": (2.0, 1.0),
    "asked": (1.0, 0.5),
    "looked_up": (1.0, 1.0),
    "read_words": (0.5, 0.25),
    "told": (3.0, 3.0),
    "found": (1.0, 1.0),
    "changes": (0.5, 0.5),
    "known": (1.0, 1.0),
    **dict.fromkeys(_LOOKED_FOR, (0.5, 0.5)),
}
_WARM_UP = 100
# Steps in which heads that a checkpoint does not have learn alone, and how fast.
_SETTLE, _SETTLING_RATE = 30, 5e-3
# Pictures without an episode, a unit: beside episodes, and in steps that have nothing else. The
# pictures of an episode resemble each other: from them alone sight is unlearned.
_BESIDE, _ALONE = 0.375, 2.0
# Of those beside episodes: how many something is asked about in writing, so many in a sequence.
_ASKED, _IN_ONE = 0.5, 3
# And pictures of stories in writing, a unit of the step.
_TOLD, _STORY_UNITS = 0.5, 8


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    steps: in all; each learns from units_per_step one-second units in every process. rate: of
    learning, at its highest, falling to least_rate of it. flite: share of episodes with a voice of
    flite's, which must be installed. saves_s: seconds between states that are saved.
    checks: steps between looks at examples that are not learned from. start: directory of a
    checkpoint whose weights a new run begins with; empty: random ones. skipped: the share of the
    lessons that is left out before the first step.
    """

    steps: int = 8000
    units_per_step: int = 64
    rate: float = 1.5e-3
    least_rate: float = 0.03
    seed: int = 0
    processes: int = 2
    flite: float = 0.0
    saves_s: float = 120
    checks: int = 250
    start: str = ""
    skipped: float = 0.0


Say = Callable[[dict[str, Any]], None]


class Trainer:
    """One process of a training. Everything that a run needs to go on is in `folder`."""

    def __init__(
        self,
        folder: Path,
        config: TrainingConfig,
        *,
        rank: int = 0,
        device: str = "cpu",
    ) -> None:
        self.folder, self.config, self.rank, self.device = folder, config, rank, device
        self.sizes = ModelConfig.load(folder)
        self.tokenizer = Tokenizer(folder, self.sizes.llm.vocab)
        self.studio = Studio(self.sizes, self.tokenizer)
        self.gallery = Gallery(self.studio, config.seed, rank, config.units_per_step // 4)
        torch.manual_seed(config.seed)
        self.nano, self.hints = Nano(self.sizes), Hints(self.sizes)
        initialise(self.nano)
        self.nano.to(device)
        self.hints.to(device)
        self.parameters = [*self.nano.parameters(), *self.hints.parameters()]
        self.optimizer = torch.optim.AdamW(
            _groups(self.nano, self.hints), lr=config.rate, betas=(0.9, 0.98)
        )
        self.step = 0
        self.units = 0
        self.seconds = 0.0
        self._resume()

    # -- state ------------------------------------------------------------------------------------

    def _resume(self) -> None:
        file = self.folder / STATE
        if not file.exists():
            if self.config.start:
                self.nano.load_state_dict(_weights_of(Path(self.config.start), self.nano))
            return
        state = torch.load(file, map_location=self.device, weights_only=True)
        self.nano.load_state_dict(state["nano"])
        self.hints.load_state_dict(state["hints"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.units = int(state["step"]), int(state["units"])
        self.seconds = float(state["seconds"])

    def save(self) -> None:
        if self.rank:
            return
        part = self.folder / f"{STATE}.part"
        torch.save(
            {
                "nano": self.nano.state_dict(),
                "hints": self.hints.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "units": self.units,
                "seconds": self.seconds,
                "config": asdict(self.config),
            },
            part,
        )
        part.replace(self.folder / STATE)

    # -- steps ------------------------------------------------------------------------------------

    @property
    def share(self) -> float:
        """Of the way through the lessons."""
        return self._share_at(self.step)

    def _share_at(self, step: int) -> float:
        skipped = self.config.skipped
        return skipped + (1 - skipped) * step / self.config.steps

    @property
    def _settling(self) -> bool:
        """A checkpoint has no heads that exist in training only. Before what they say means
        anything, the network would unlearn for them what it knows: so at first they learn alone."""
        return bool(self.config.start) and self.step < _SETTLE

    def run(self, say: Say, stop: Callable[[], bool] = lambda: False) -> None:
        """Train to the end, or until told to stop."""
        saved = started = time.monotonic()
        before = self.seconds
        while self.step < self.config.steps and not stop():
            told = self.advance()
            self.seconds = before + time.monotonic() - started
            if self.step % self.config.checks == 0 and self.rank == 0:
                told |= self.check()
            if self.rank == 0:
                told |= {"step": self.step, "units": self.units, "seconds": round(self.seconds, 1)}
                self._write(told)
                say(told)
            if time.monotonic() - saved > self.config.saves_s:
                self.save()
                saved = time.monotonic()
        self.save()

    def advance(self) -> dict[str, Any]:
        """One step: its losses."""
        lesson = self.lesson(self.step)
        self.nano.train()
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.nano.requires_grad_(not self._settling)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16):
            losses = self._losses(lesson)
        total = sum((self._weight(name) * one for name, one in losses.items()), torch.zeros(()))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self._share_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self.units += self.config.units_per_step * self.config.processes
        told = {name: round(float(one.detach()), 4) for name, one in losses.items()}
        return told | {"rate": rate, "length": lesson.units, "camera": lesson.camera}

    def lesson(self, step: int) -> Lesson:
        """Of this process. One that is alone takes turns with itself while senses are apart."""
        rng = np.random.default_rng([self.config.seed, 1, step])
        rank = self.rank if self.config.processes > 1 else step
        return lesson_at(self._share_at(step), rng, rank)

    def _losses(self, lesson: Lesson) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.config.seed, 2, self.step, self.rank])
        if not lesson.units:
            seen = self.gallery.show(self.step, round(_ALONE * self.config.units_per_step))
            pictures = collate_pictures(seen, self.sizes.vision.side).to(self.device)
            return self.hints.losses_of(pictures, *self.nano.look(pictures.shown))
        batch = self.batch(lesson, rng)
        states = self.nano.states(batch)
        hints = self.hints.losses(batch, states)
        if self._settling:
            return hints
        words = losses_of_words(self.nano, batch, states, self.tokenizer.control.speak)
        return words | hints | points_missed(batch, states)

    def batch(self, lesson: Lesson, rng: np.random.Generator) -> Batch:
        """Episodes to learn from."""
        count = max(self.config.units_per_step // lesson.units, 1)
        examples = self.studio.examples(rng, lesson, count, Split(flite=self.config.flite))
        examples = [replace(one, mel=masked(one.mel, rng)) for one in examples]
        loose = self.gallery.show(self.step, round(_BESIDE * self.config.units_per_step))
        written: list[tuple[Written, range]] = []
        for part in _parts(round(_ASKED * len(loose)), _IN_ONE):
            written.append((self.studio.about([loose[one] for one in part], rng), part))
        for part in _parts(len(loose), _STORY_UNITS):
            written.append((self.studio.waiting([loose[one] for one in part], rng), part))
        for _ in range(round(_TOLD * self.config.units_per_step / _STORY_UNITS)):
            seen, stories = self.studio.story(rng, _STORY_UNITS)
            shown = range(len(loose), len(loose) + len(seen))
            loose += seen
            written += [(story, shown) for story in stories]
        return self._collated(examples, loose, rng, written)

    def _collated(
        self, examples: Any, loose: Any, rng: np.random.Generator, written: Any = ()
    ) -> Batch:
        pad = self.tokenizer.control.endoftext
        side = self.sizes.vision.side
        return collate(examples, loose, written, side, pad, rng).to(self.device)

    def _rate(self) -> float:
        config = self.config
        if self._settling:
            return _SETTLING_RATE
        settled = _SETTLE if config.start else 0
        warm = min(1.0, (self.step + 1 - settled) / _WARM_UP)
        fall = 0.5 + 0.5 * np.cos(np.pi * min(self.step / config.steps, 1.0))
        return float(config.rate * warm * (config.least_rate + (1 - config.least_rate) * fall))

    def _weight(self, name: str) -> float:
        if name not in _HINT_WEIGHTS:
            return 1.0
        first, last = _HINT_WEIGHTS[name]
        return float(last + (first - last) * (0.5 + 0.5 * np.cos(np.pi * min(self.share, 1.0))))

    def _share_gradients(self) -> None:
        if self.config.processes < 2 or not dist.is_initialized():
            return
        there = [one for one in self.parameters if one.requires_grad]
        flat = torch.cat(
            [(torch.zeros_like(one) if one.grad is None else one.grad).reshape(-1) for one in there]
        )
        dist.all_reduce(flat)
        flat /= self.config.processes
        for one, grad in zip(there, flat.split([one.numel() for one in there]), strict=True):
            one.grad = grad.view_as(one)

    # -- looking at what it can do ----------------------------------------------------------------

    def check(self, count: int = 16) -> dict[str, float]:
        """Shares of right decisions and of wholly right answers, each word given the right ones
        before it, on examples of known and of unknown voices, wordings and looks."""
        found: dict[str, float] = {}
        splits = {
            "known": Split(),
            "voices": Split(voices="espeak"),
            "wordings": Split(wordings=True),
            "unknown": Split("espeak", True, True, True),
        }
        for number, (name, split) in enumerate(splits.items()):
            rng = np.random.default_rng([self.config.seed, 3, number])
            found |= {
                f"{name}.{what}": value for what, value in self.score(rng, split, count).items()
            }
        return found | self.score_pictures(np.random.default_rng([self.config.seed, 4]))

    @torch.inference_mode()
    def score_pictures(self, rng: np.random.Generator, count: int = 96) -> dict[str, float]:
        """Before backgrounds that are not learned from: shares of patches with things whose kind
        and colour are told, and of pictures in which all things are, with their places."""
        self.nano.eval()
        seen = self.studio.loose(rng, count, held_out=True)
        pictures = collate_pictures(seen, self.sizes.vision.side).to(self.device)
        queries, features = self.nano.look(pictures.shown)
        things = pictures.kinds > 0
        told = torch.stack([head(queries).argmax(-1) for head in self.hints.slots], -1)
        named = [0, 1, 3]  # all but the size
        right = (told == pictures.slots)[..., named].flatten(1).all(1)
        return {"pictures.all": round(float(right.float().mean()), 4)} | {
            f"pictures.{name}": round(
                float((head(features).argmax(-1) == labels)[things].float().mean()), 4
            )
            for name, head, labels in (
                ("kinds", self.hints.kinds, pictures.kinds),
                ("colours", self.hints.colours, pictures.colours),
            )
        }

    @torch.inference_mode()
    def score(self, rng: np.random.Generator, split: Split, count: int) -> dict[str, float]:
        self.nano.eval()
        right: dict[str, list[float]] = {"decisions": [], "answers": [], "seen": []}
        for camera in (False, True):
            examples = self.studio.examples(rng, Lesson(8, camera), count, split)
            batch = self._collated(examples, [], rng)
            with torch.autocast(self.device.split(":")[0], torch.bfloat16):
                states = self.nano.states(batch)
                said = self.nano.logits(states.read.hidden).argmax(-1)
            hits = said == batch.labels
            told = batch.labels != NO_LABEL
            right["decisions"] += hits[batch.decides & told].float().tolist()
            for row in range(len(hits)):
                for whole in answers_in(batch, row, self.tokenizer.control.turn_eos):
                    right["seen" if camera else "answers"].append(float(hits[row][whole].all()))
        return {name: round(float(np.mean(some or [0])), 4) for name, some in right.items()}

    def _write(self, told: dict[str, Any]) -> None:
        with (self.folder / CURVES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


def _parts(count: int, size: int) -> list[range]:
    """All numbers below count, so many together."""
    return [range(at, min(at + size, count)) for at in range(0, count, size)]


def _weights_of(checkpoint: Path, nano: Nano) -> dict[str, Tensor]:
    """Raises CheckpointError where there are none, or those of another kind of network."""
    weights: dict[str, Tensor] = {}
    for file in weight_files(checkpoint):
        weights |= load_file(file)
    wanted = {name: one.shape for name, one in nano.state_dict().items()}
    if others := {name for name, one in weights.items() if one.shape != wanted.get(name)}:
        raise CheckpointError(
            f"{checkpoint} holds {len(others)} weights that nano does not have, such as"
            f" {min(others)}: a run begins with what `minicpmo nano pack` made"
        )
    if missing := wanted.keys() - weights.keys():
        raise CheckpointError(f"{checkpoint} lacks {len(missing)} weights, such as {min(missing)}")
    return weights


def answers_in(batch: Batch, row: int, turn_eos: int) -> list[Tensor]:
    """The places of each whole answer of one example: its words, over all units, to its end."""
    places = torch.nonzero((batch.labels[row] != NO_LABEL) & ~batch.decides[row]).flatten()
    found, begun = [], 0
    for index, place in enumerate(places.tolist()):
        if batch.labels[row, place] == turn_eos:
            found.append(places[begun : index + 1])
            begun = index + 2
    return found


def _groups(*modules: nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices alone."""
    parameters = [one for module in modules for one in module.parameters()]
    return [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": 0.05},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
