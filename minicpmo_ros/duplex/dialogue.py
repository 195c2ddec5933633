"""Turn by turn: what the user says and shows is read as it comes, then the model replies.

Streaming mode reads a turn second by second, until somebody decides that it is over; chat
(`duplex.chat`) reads a whole question at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minicpmo_ros.duplex.config import SamplerConfig, WindowConfig
from minicpmo_ros.duplex.conversation import checked_second
from minicpmo_ros.duplex.memory import heard_tokens
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.duplex.sampler import ReplySampler
from minicpmo_ros.duplex.window import KeptUnit, Window
from minicpmo_ros.errors import NumericsError
from minicpmo_ros.model import prompts
from minicpmo_ros.model.picture import cut, slices
from minicpmo_ros.model.prompts import Slot
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Context, Logits, Network, Part, Rows, Sound

# What the published code draws replies with.
REPLIES = SamplerConfig(
    temperature=0.7, top_k=100, top_p=0.8, repetition=1.02, repetition_window=128
)
# Signs that cannot be spoken.
UNSPEAKABLE = tuple(":：；#“”‘’@*【】「」()（）[]&/$")  # noqa: RUF001


def unspeakable(tokenizer: Tokenizer) -> list[int]:
    """Ids that a reply which is spoken never has."""
    signs = [tokenizer.encode(sign) for sign in UNSPEAKABLE]
    return sorted({*tokenizer.bad_ids, *(ids[0] for ids in signs if len(ids) == 1)})


@dataclass(frozen=True)
class DialogueConfig:
    """kv_capacity: tokens that fit. reply_tokens: longest reply. high_tokens, low_tokens: above the
    first, whole rounds are forgotten, oldest first, down to the second. max_slices: of a picture in
    a streamed turn."""

    kv_capacity: int = 8192
    reply_tokens: int = 512
    high_tokens: int = 6000
    low_tokens: int = 4500
    max_slices: int = 1
    sampler: SamplerConfig = REPLIES


@dataclass(frozen=True)
class Piece:
    """Some of a reply; `done` with the last."""

    text: str
    done: bool


class Dialogue:
    """A conversation of turns.

    Args:
        forbidden: ids that no reply has.
        seed: of all that is drawn.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        config: DialogueConfig,
        *,
        forbidden: Iterable[int] = (),
        seed: int = 0,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.config = config
        self.context: Context = network.context(config.kv_capacity)
        # A round goes as a whole; how much of it is up to `WindowConfig`.
        high = min(config.high_tokens, config.kv_capacity)
        self.window = Window(
            self.context,
            WindowConfig("basic", high, min(config.low_tokens, high)),
            marker=(),
        )
        self.ears = network.ears()
        control = tokenizer.control
        self._ends = {control.tts_eos, control.im_end, *network.config.sampling.eos}
        self._forbidden = sorted(forbidden)
        self._how = config.sampler.of(network.config.sampling)
        self._opening = len(prompts.tokens(prompts.encode(prompts.reply_turn(), tokenizer)))
        self._seed = seed
        self._reset()

    def _reset(self) -> None:
        self._rng = np.random.default_rng(self._seed)
        self._text = self.tokenizer.stream()
        self._logits: Logits | None = None
        self._left = 0
        self._start = self.context.length  # of the round that is open
        self._replied = False
        self._reply: list[int] = []  # tokens of the last reply that were read
        self._reply_end = 0  # row behind them
        self._user_speaks = False
        self._longest = 0  # rows of a second of the user's turn

    # -- what the user says -----------------------------------------------------------------

    def open(self, prompt: prompts.SystemPrompt, voice: Sound | None = None) -> None:
        """Begin; raises InputError for a voice of no use, KvFullError."""
        prefix, suffix = prompt.ids(self.tokenizer)
        spoken: list[Part] = [] if voice is None else [self.network.voice(voice)]
        self.window.open([prefix, *spoken], suffix)
        self.ears.reset()
        self._reset()

    def clear(self) -> None:
        """Forget everything, the prompt included."""
        self.window.open([], [])
        self._reset()

    def hear(self, sound: Sound, shown: Sequence[Shown] = ()) -> None:
        """A second of the user's turn, float32 [16000], and the pictures in it.

        Raises:
            InputError: sound or pictures are not as they should be; nothing was read.
            KvFullError: the turn alone is longer than the context.
        """
        if self.replying:
            self.stop()
        sound = checked_second(sound)
        pictures, rows = self.pictures(shown, self.config.max_slices)
        parts: list[prompts.Part] = []
        if not self._user_speaks:
            self.ears.reset()
            # A reply counts as cut also if the model ended it: the `<|tts_eos|>` was only drawn.
            parts = prompts.next_user_turn(previous="cut" if self._replied else "none")
            self._longest = 0
        parts += [*pictures, *prompts.sound_parts()]
        hidden = self.read(parts, {**rows, Slot("sound"): self.ears.step(sound)})
        self._longest = max(self._longest, len(hidden))
        self._user_speaks = True

    @property
    def must_reply(self) -> bool:
        """The user's turn has filled the context: besides a reply, another second may not fit, even
        if all rounds before were forgotten."""
        turn = self.window.preserved + self.context.length - self._start
        needed = self._longest + self._opening + self.config.reply_tokens
        return self.context.capacity - turn < needed

    def pictures(
        self,
        shown: Sequence[Shown],
        max_slices: int,
        rows: dict[Slot, Rows] | None = None,
        first_id: int | None = None,
    ) -> tuple[list[prompts.Part], dict[Slot, Rows]]:
        """Pictures as parts of a turn, and what fills the slots of the turn so far.

        rows: of the slots filled before. first_id: number of the first picture; None: they are not
        numbered. Raises InputError.
        """
        config = self.network.config.slices
        parts: list[prompts.Part] = []
        rows = dict(rows or {})
        for number, one in enumerate(shown):
            limit = one.max_slices or max_slices
            embeds = self.network.look(slices(one.pixels, limit, config))
            height, width = one.pixels.shape[:2]
            grid = cut((width, height), limit, config).grid
            image_id = None if first_id is None else first_id + number
            parts += prompts.picture_parts(grid, len(rows), image_id)
            first = len(rows)
            rows |= {Slot("picture", first + i): embed for i, embed in enumerate(embeds)}
        return parts, rows

    def read(self, parts: Iterable[prompts.Part], filling: Mapping[Slot, Rows]) -> Rows:
        """Read parts of a prompt into the context; raises KvFullError."""
        return self._read(parts, filling, 0)

    def _read(
        self, parts: Iterable[prompts.Part], filling: Mapping[Slot, Rows], spare: int
    ) -> Rows:
        """Read, if so many rows are left behind it."""
        fed: list[Part] = [
            filling[run] if isinstance(run, Slot) else run
            for run in prompts.encode(parts, self.tokenizer)
        ]
        self._make_room(sum(map(len, fed)) + spare)
        return self.context.read(*fed)

    def _make_room(self, rows: int) -> None:
        before = self.context.length
        self.window.make_room(rows)
        self._start -= before - self.context.length
        self._reply_end -= before - self.context.length

    # -- what the model replies -------------------------------------------------------------

    @property
    def replying(self) -> bool:
        return self._logits is not None

    def begin(
        self,
        parts: Iterable[prompts.Part],
        filling: Mapping[Slot, Rows] | None = None,
        limit: int = 0,
    ) -> None:
        """Read what opens the reply; `more` then draws it.

        limit: tokens at most; 0: as configured.

        Raises:
            KvFullError: turn and reply are longer than the context; nothing was read.
        """
        limit = min(limit or self.config.reply_tokens, self.config.reply_tokens)
        hidden = self._read(parts, filling or {}, limit)
        self._logits = self.context.logits(hidden)
        self._sampler = ReplySampler(self._forbidden, self._how, self._rng)
        self._left = limit
        self._reply = []
        self._user_speaks = False

    def more(self, tokens: int) -> Piece:
        """Up to so many tokens of the reply.

        Raises:
            NumericsError: the network gave NaN; the round is forgotten, what was said included.
        """
        text = ""
        for _ in range(tokens):
            if self._logits is None:
                break
            try:
                token = self._sampler(self._logits)
            except NumericsError:
                self._forget_round()
                raise
            if token in self._ends:
                self._end()
                return Piece(text + self._text.finish(), True)
            text += self._text.push(token)
            self._left -= 1
            hidden = self.context.read([token])
            self._reply.append(token)
            self._logits = self.context.logits(hidden)
            if not self._left:
                self._end()
                return Piece(text + self._text.finish(), True)
        return Piece(text, self._logits is None)

    def stop(self) -> None:
        """The reply was cut off, or nobody wants more of it."""
        if self.replying:
            self._text.finish()
            self._end()

    def remember(self, heard: str) -> None:
        """The last reply was cut off: only these words of it were heard, and no others stay in the
        context. What was read behind them was read with them, and stays as it is."""
        self.stop()
        kept = heard_tokens(self.tokenizer, self._reply, heard)
        rows, self._reply = len(self._reply) - kept, []
        if rows and self.window.units:  # else all of it was heard, or its round is forgotten
            self.context.remove([(self._reply_end - rows, self._reply_end)])
            self.window.units.append(KeptUnit(self.window.units.pop().rows - rows))
            self._start -= rows

    def _end(self) -> None:
        self._logits = None
        self._replied = True
        self.window.add(KeptUnit(self.context.length - self._start))
        self._start = self._reply_end = self.context.length

    def _forget_round(self) -> None:
        """What has NaN in it would spoil all that is read behind it."""
        self._logits = None
        self._reply = []
        self._text.finish()
        self.context.truncate(self._start)
