"""A conversation whose tokens are told by the test."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import numpy as np

from minicpmo_ros.duplex.config import DuplexConfig, WindowConfig
from minicpmo_ros.duplex.conversation import Conversation
from minicpmo_ros.duplex.outcome import Outcome
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.duplex.sampler import finite_top
from minicpmo_ros.duplex.vocoding import CODES_PER_SECOND, RATE_HZ
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Context, Logits
from minicpmo_ros.runtime.torch_runtime import TorchNetwork

PREFIX, SUFFIX = [60, 61, 62, 63], [64, 65]
PROMPT_ROWS = 6
LISTENING_ROWS = 13
PICTURE_ROWS = 66
Token = int | str
"""An id, the field of a control token ("speak"), or a text of one token ("a")."""


class Told:
    """A sampler that draws what it is told, and nothing more; as ours, nothing out of NaN.

    logits: what it was asked about.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.logits: list[np.ndarray] = []

    def __call__(self, logits: Logits) -> int:
        finite_top(logits)
        assert self.tokens, "one token too many was drawn"
        self.logits.append(logits.copy())
        return self.tokens.pop(0)


class Watched:
    """A copy of a network that shares its weights. looks: how many slices each call of `look` had.
    turns: contexts of the speech decoder that were made."""

    def __init__(self, network: TorchNetwork, speech_capacity: int | None = None) -> None:
        self.looks: list[int] = []
        self.turns: list[Context] = []
        self.network = copy.copy(network)

        def look(slices: Sequence) -> list:
            self.looks.append(len(slices))
            return network.look(slices)

        def speech(capacity: int | None = None) -> Context:
            self.turns.append(network.speech(speech_capacity or capacity))
            return self.turns[-1]

        self.network.look = look
        self.network.speech = speech


class Echo:
    """A vocoder whose sound is its codes, 960 samples each."""

    def __init__(self) -> None:
        self.resets = 0

    def stream(self, codes: Sequence[int], last: bool) -> np.ndarray:
        return np.repeat(np.float32(codes if last else codes[:-3]), RATE_HZ // CODES_PER_SECOND)

    def reset(self) -> None:
        self.resets += 1


class Talk:
    """A conversation that is open. drawn=False: it is told no tokens, but draws them."""

    def __init__(
        self,
        network: TorchNetwork,
        tokenizer: Tokenizer,
        *,
        drawn: bool = False,
        seed: int = 0,
        vocoder: object = None,
        **settings: object,
    ) -> None:
        usual = {"forced_listens": 0, "kv_capacity": 2048, "speaks": False}
        config = DuplexConfig(**({"window": WindowConfig("off")} | usual | settings))
        self.told = Told()
        self.tokenizer = tokenizer
        self.conversation = Conversation(
            network,
            tokenizer,
            config,
            seed=seed,
            vocoder=vocoder,
            sampler=None if drawn else self.told,
        )
        self.heard = 0
        self.open()

    def open(self) -> None:
        self.heard = 0
        self.conversation.open(PREFIX, SUFFIX)

    def hear(
        self,
        *tokens: Token,
        shown: Sequence[Shown] = (),
        deaf: bool = False,
        listen: bool = False,
        streamed: bool = False,
    ) -> Outcome:
        """The next unit, which draws just these tokens; deaf: without sound."""
        self.told.tokens = [self.id(token) for token in tokens]
        sound = None if deaf else second(self.heard)
        outcome = self.conversation.hear(sound, shown, listen=listen, streamed=streamed)
        self.heard += 1
        assert not self.told.tokens, "fewer tokens were drawn"
        return outcome

    def unit(self, *tokens: Token, **how: object) -> Outcome:
        """As `hear`, and the unit is closed in the cache."""
        outcome = self.hear(*tokens, **how)
        self.conversation.settle()
        return outcome

    def id(self, token: Token) -> int:
        if isinstance(token, int):
            return token
        if hasattr(self.tokenizer.control, token):
            return getattr(self.tokenizer.control, token)
        (found,) = self.tokenizer.encode(token)
        return found

    def ids(self, *tokens: Token) -> tuple[int, ...]:
        return tuple(self.id(token) for token in tokens)

    @property
    def rows(self) -> int:
        return self.conversation.context.length

    def keys(self) -> np.ndarray:
        return self.conversation.context.keys(self.rows)

    def state(self) -> tuple:
        """All of the conversation that the next unit depends on, but for its keys."""
        talk = self.conversation
        window = talk.window
        units = tuple(window.units)
        return self.rows, units, tuple(window.previous), talk.turn_open, talk.units


def second(number: int) -> np.ndarray:
    """A second of sound, another for each number."""
    return np.random.default_rng(number).normal(0, 0.1, 16_000).astype(np.float32)


@cache
def picture(key: int, *, cells: int = 1) -> Shown:
    """A picture, another for each key; with more cells it is also cut."""
    pixels = np.random.default_rng(key).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    return Shown(key, pixels, cells)


def same(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes are equal in all but time, bit for bit."""

    def facts(outcome: Outcome) -> tuple:
        said = outcome.utterance
        sound = None if said.sound is None else said.sound.tobytes()
        return (
            (outcome.listens, outcome.ids, outcome.sampled, outcome.fed, outcome.end_of_turn),
            (outcome.p_listen, outcome.p_speak),
            (said.text, said.codes, sound, said.problem),
        )

    return facts(one) == facts(other)
