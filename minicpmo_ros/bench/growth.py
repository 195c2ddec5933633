"""How a unit's time grows: with a session's length, pictures, slices and context."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

from minicpmo_ros.bench.noise import noise_sound
from minicpmo_ros.bench.units import Script, script_tokens
from minicpmo_ros.duplex.config import DuplexConfig, WindowConfig
from minicpmo_ros.duplex.conversation import Conversation
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.model.prompts import duplex_prompt
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Network

HOUR = 3600
SMALL, VGA, LARGE = (224, 224), (480, 640), (1344, 1344)
PICTURES = (0, 1, 2, 4)
SLICES = (1, 4, 9)
CONTEXTS = (1024, 4096, 16384)
UNITS = 4
Advance = Callable[[], None]


class Life:
    """A conversation that listens for some units and speaks for some, in turn."""

    def __init__(
        self, network: Network, tokenizer: Tokenizer, config: DuplexConfig, prompt: int = 0
    ) -> None:
        self._control = tokenizer.control
        self._words = tokenizer.encode(" one two three four five six seven eight nine ten")
        self._script = Script(tokenizer)
        self._conversation = Conversation(network, tokenizer, config, sampler=self._script)
        prefix, suffix = duplex_prompt().ids(tokenizer)
        filling = tokenizer.encode(" and so on") * prompt
        self._conversation.open([*filling[:prompt], *prefix], suffix)
        self._second = noise_sound(1)
        self._unit = 0

    def unit_ms(self, shown: Sequence[np.ndarray], listens: bool = False) -> float:
        """Time of one unit with its end, in ms."""
        unit, self._unit = self._unit, self._unit + 1
        tokens = script_tokens(0 if listens else unit, self._control, self._words)
        self._script.tokens = tokens
        pictures = [Shown(unit * 10 + i, picture) for i, picture in enumerate(shown)]
        began = time.perf_counter()
        self._conversation.hear(self._second, pictures)
        self._conversation.settle()
        return (time.perf_counter() - began) * 1e3


def session_ms(
    network: Network, tokenizer: Tokenizer, seconds: int, advance: Advance = lambda: None
) -> list[float]:
    """Time of each unit of a long session with a small picture each; the window is the default."""
    config = DuplexConfig(forced_listens=0, max_slices=1, speaks=False)
    life = Life(network, tokenizer, config)
    picture = _picture(SMALL)
    found = []
    for _ in range(seconds):
        found.append(life.unit_ms([picture]))
        advance()
    return found


def last_over_first(times: Sequence[float]) -> float:
    """Median of the last tenth over that of the first."""
    tenth = max(len(times) // 10, 1)
    return median(times[-tenth:]) / median(times[:tenth])


def growth_ms(
    network: Network, tokenizer: Tokenizer, advance: Advance = lambda: None
) -> dict[str, float]:
    """Time of a listening unit, in ms: "pictures.N", "slices.N", "context.N"."""
    found = {}

    def measured(config: DuplexConfig, pictures: Sequence[np.ndarray], prompt: int = 0) -> float:
        life = Life(network, tokenizer, config, prompt)
        times = [life.unit_ms(pictures, listens=True) for _ in range(UNITS)]
        advance()
        return median(times[1:])

    for count in PICTURES:
        config = _config(8192, 1)
        found[f"pictures.{count}"] = measured(config, [_picture(VGA)] * count)
    for count in SLICES:
        found[f"slices.{count}"] = measured(_config(8192, count), [_picture(LARGE)])
    for count in CONTEXTS:
        found[f"context.{count}"] = measured(_config(count + 1024, 1), [_picture(VGA)], count)
    return found


STEPS = len(PICTURES) + len(SLICES) + len(CONTEXTS)


def _config(capacity: int, slices: int) -> DuplexConfig:
    return DuplexConfig(
        window=WindowConfig("off"),
        kv_capacity=capacity,
        forced_listens=0,
        max_slices=slices,
        max_pictures=4,
        speaks=False,
    )


def _picture(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
