"""Full duplex: every second what was seen and heard goes in, and listening or speaking comes out.

The language model reads, for each unit,

    <unit> [<image> picture </image> [<slice> cell </slice>]...]... sound

and then decides: `<|listen|>`, or `<|speak|>` and a few words until `<|chunk_eos|>`, with
`<|turn_eos|>` where it has said what it wanted to say. `</unit>` closes the unit. A turn goes over
as many units as it takes, and while it is open the model cannot listen.

Time matters in three places. Pictures are encoded and read when they come (`show`), so that after
the unit's end only its sound is left. What a unit came to is returned before the unit is closed in
the cache (`settle`). And whatever fails leaves the conversation as it was before the unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minicpmo_ros.duplex.config import DuplexConfig
from minicpmo_ros.duplex.memory import PastUnit, SpokenMemory
from minicpmo_ros.duplex.mouth import Mouth, Saying
from minicpmo_ros.duplex.outcome import Drawn, Outcome
from minicpmo_ros.duplex.pictures import Gaze, Shown
from minicpmo_ros.duplex.reading import OpenUnit
from minicpmo_ros.duplex.sampler import TokenSampler, finite_top
from minicpmo_ros.duplex.timing import Stages
from minicpmo_ros.duplex.vocoding import Vocoder
from minicpmo_ros.duplex.window import Window
from minicpmo_ros.errors import InputError, NumericsError
from minicpmo_ros.model.mel import checked_sound
from minicpmo_ros.model.prompts import PREVIOUS
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Logits, Network, Part, Rows, Sound

UNIT_SAMPLES = 16_000


class Conversation:
    """One conversation in units of a second.

    Args:
        network: the stages.
        tokenizer: of the same checkpoint.
        config: how it runs.
        seed: of all that is drawn; the same seed and input give the same conversation.
        vocoder: makes sound of the speech codes; None: there are codes only.
        sampler: draws tokens in place of our own; for tests.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        config: DuplexConfig | None = None,
        *,
        seed: int = 0,
        vocoder: Vocoder | None = None,
        sampler: Callable[[Logits], int] | None = None,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.config = config = config or DuplexConfig()
        self.context = network.context(config.kv_capacity)
        self.window = Window(
            self.context,
            config.window,
            tokenizer.encode(PREVIOUS),
            bare_marker=config.reference_compat,
        )
        self._memory = SpokenMemory(self.window, tokenizer)
        self.ears = network.ears(0 if config.reference_compat else config.audio_overlap_s)
        self._seed = seed
        self._given_sampler = sampler
        self._vocoder = vocoder
        self._speech_context = network.speech() if config.speaks else None
        self._control = tokenizer.control
        self._controls = frozenset(tokenizer.added.values())
        self._unsaid = self._controls - tokenizer.readable_ids
        if config.reference_compat:
            self._unsaid = tokenizer.special_ids | {self._control.turn_eos}
        slices = config.max_slices or network.config.slices.max_slices
        self._gaze = Gaze(network, tokenizer.control, slices, config.max_pictures)
        generated = config.tokens_per_unit + 2
        self._unit = OpenUnit(self.window, self._gaze, tokenizer.control.unit, generated)
        self._reset()

    def _reset(self) -> None:
        config = self.config
        # One generator a purpose: whether speech is made does not change what is said.
        words, speech = np.random.default_rng(self._seed).spawn(2)
        self._sampler = self._given_sampler or TokenSampler(
            self._control,
            self.tokenizer.bad_ids,
            config.sampler.of(self.network.config.sampling),
            words,
            reference_compat=config.reference_compat,
        )
        self._mouth = Mouth(
            self.network, self.tokenizer, config, self._speech_context, self._vocoder, speech
        )
        self.units = 0
        self.turn_open = False
        self._must_listen = False
        self._unsettled: PastUnit | None = None
        self._was_open = False  # the turn, before the unit that is not settled
        self._saying = Saying()
        self._turns = 0
        self._memory.forget()
        self._unit.begin()

    # -- a session --------------------------------------------------------------------------

    def open(
        self, prefix: Sequence[int], suffix: Sequence[int], voice: Sound | None = None
    ) -> None:
        """Begin a session; of one before, nothing is left. If it raises, that one goes on.

        Args:
            prefix, suffix: ids of the prompt before and after the reference voice.
            voice: float32 at 16 kHz; None: the prompt has none, and the model its own.

        Raises:
            InputError: the voice is of no use.
            KvFullError: the prompt does not fit.
        """
        parts: list[Part] = [list(prefix)]
        if voice is not None:
            compat = self.config.reference_compat
            parts.append(self.network.voice(voice, reference_compat=compat))
        self.window.open(parts, suffix)
        # What was heard in the session before is still heard in the reference.
        self.ears.reset(cache=not self.config.reference_compat)
        self._saying.pieces.close()
        self._reset()

    def show(self, shown: Sequence[Shown]) -> None:
        """Encode and read pictures of the unit that is still open.

        They may turn out not to be the unit's: `hear` reads again what has to be.

        Raises:
            InputError, KvFullError: see `hear`; the unit is as before.
        """
        if shown:
            self.settle()
            self._gaze.look(shown, Stages())
            self._unit.make_room(shown)
            self._unit.read(shown)

    def hear(
        self,
        sound: Sound | None,
        shown: Sequence[Shown] = (),
        *,
        listen: bool = False,
        key: int | None = None,
        streamed: bool = False,
    ) -> Outcome:
        """One unit: read it, decide, and say what is to be said.


        Args:
            sound: float32 [16000] at 16 kHz; None where there is no microphone, and pictures alone
                are decided upon.
            shown: the unit's pictures, oldest first.
            listen: the model is made to listen; a turn that is open ends.
            key: the caller's number of the unit, for `remember`; it grows. None: they are counted.
            streamed: speech is made as the pieces of `Outcome.saying` are asked for; what nobody
                has asked for when the next unit comes is never said.

        Raises:
            InputError: sound or pictures are not as they should be.
            KvFullError: the unit does not fit into the cache.
            NumericsError: the network gave NaN.
            In each case the unit is lost, and the conversation as before it.
        """
        self._saying.pieces.close()
        self.settle()
        stages = Stages()
        before = self.turn_open, self._must_listen
        try:
            hidden = self._read(sound, shown, stages)
            with stages.timed("decode"):
                logits = self.context.logits(hidden)
                chances = self._chances(logits)
                said = self._decide(logits, listen)
        except Exception as error:
            self.turn_open, self._must_listen = before
            self._undo(error)
            raise
        self.units += 1
        self._turns += not before[0]
        self._was_open = before[0]
        outcome = self._outcome(said, chances, stages, self.units if key is None else key)
        if not streamed:
            self._saying.finish()
        return outcome

    def settle(self) -> None:
        """Close the last unit in the cache: work that can wait until its results are out.

        Raises:
            NumericsError: the network gave NaN; that unit is forgotten.
        """
        if self._unsettled is not None:
            unit, self._unsettled = self._unsettled, None
            closing = [unit.fed[-1], self._control.unit_end]
            self.context.read(closing)
            # Nothing is drawn from this, so that NaN would show only in all units that follow.
            if not np.isfinite(self.context.keys(len(closing))).all():
                self._unit.undo()
                if self.turn_open != self._was_open:
                    self.turn_open = self._was_open
                    self._mouth.fall_silent()
                raise NumericsError("the network gave NaN where a unit ends; it is forgotten")
            self._unit.close(tuple(unit.ids))
            self._memory.add(unit)

    def interrupt(self) -> None:
        """The robot was cut off. If its turn is open, it ends with the next unit, which listens."""
        self._must_listen |= self.turn_open
        self._saying.pieces.close()
        self._mouth.fall_silent()

    def remember(self, heard: str, key: int) -> None:
        """The robot was cut off: of the turn in which the unit `key` speaks, or the last that does
        before it, only these words were heard, and none of later ones; no others are remembered.

        The turn is then as if the model had said only these. A turn that comes to be open ends with
        the next unit, which listens. With reference_compat, or forgets_unheard off, all that was
        said is remembered.

        Raises:
            BrainError: the units could not be read again, and are forgotten.
        """
        if self.config.reference_compat or not self.config.forgets_unheard:
            return
        self._saying.pieces.close()
        self.settle()
        self._unit.put_back()
        self._must_listen |= self.turn_open
        try:
            is_open = self._memory.keep(heard, key)
        except Exception:
            self.turn_open = False
            raise
        finally:
            self._unit.resume()
        if is_open is not None:
            self.turn_open = is_open
            self._must_listen |= is_open

    # -- inside -----------------------------------------------------------------------------

    def _read(self, sound: Sound | None, shown: Sequence[Shown], stages: Stages) -> Rows:
        if sound is None and not shown:
            raise InputError("a unit has neither sound nor pictures; there is nothing to decide on")
        self._gaze.look(shown, stages)
        self._unit.make_room(shown)
        if self.config.reference_compat:
            self._unit.read(shown)  # before it turns out what is wrong with the sound
        heard: list[Part] = []
        if sound is not None:
            with stages.timed("audio"):
                heard = [self.ears.step(checked_second(sound))]
        with stages.timed("prefill"):
            return self._unit.read(shown, heard)

    def _chances(self, logits: Logits) -> tuple[float, float]:
        top = finite_top(logits)
        likely = np.exp(logits[[self._control.listen, self._control.speak]] - top)
        total = np.exp(logits - top).sum(dtype=np.float64)
        return float(likely[0] / total), float(likely[1] / total)

    def _decide(self, logits: Logits, listen: bool) -> Drawn:
        """The loop of tokens. Afterwards the cache has all but the last, which ends the unit."""
        control, config = self._control, self.config
        terminators = (control.listen, control.chunk_eos, control.chunk_tts_eos)
        said = Drawn()
        cut = listen or self._must_listen
        if cut and self.turn_open:
            said.fed.append(control.turn_eos)
            self.context.read([control.turn_eos])
            self.turn_open = False
            self._mouth.fall_silent()
        self._must_listen = False
        forced = cut or self.units < config.forced_listens
        for step in range(config.tokens_per_unit):
            if step == config.tokens_per_unit - 1:
                token = control.chunk_eos
                break
            if forced:
                token = control.listen
            else:
                token = self._sampler(logits)
                said.sampled.append(token)
                if token == control.listen and self.turn_open:
                    # The turn must be ended first. The model was taught to go on after this one.
                    token = control.tts_bos
            if token in terminators:
                break
            # The turn is over, whatever it would say; or there is enough for a second.
            over = said.end_of_turn and not config.reference_compat
            if over or (step and self._is_too_long([*said.ids, token])):
                # In the reference, a token that was not said opens a turn again.
                self.turn_open |= config.reference_compat
                token = control.chunk_eos
                break
            self.turn_open = token != control.turn_eos
            said.fed.append(token)
            hidden = self.context.read([token])
            logits = self.context.logits(hidden)
            said.end_of_turn = not self.turn_open
            if step or self._is_said(token):
                said.ids.append(token)
                said.places.append((len(said.fed) - 1, token))
                said.hidden.append(hidden)
        said.fed.append(token)
        return said

    def _is_said(self, token: int) -> bool:
        """Whether a unit's first token, where a control token is expected, is to be said. In the
        reference it never is, so that a word there is lost."""
        if self.config.reference_compat:
            return False
        return token == self._control.turn_eos or token not in self._controls

    def _is_too_long(self, ids: list[int]) -> bool:
        return len(self.tokenizer.decode(ids)) >= self.config.characters_per_unit

    def _outcome(
        self, said: Drawn, chances: tuple[float, float], stages: Stages, key: int
    ) -> Outcome:
        listens = said.fed[-1] == self._control.listen
        if said.end_of_turn and not self.config.reference_compat:
            listens = False  # it ended its turn and listens at once; there, what it said is lost
        self._saying = Saying()
        words: tuple[int, ...] = ()
        if not listens:
            words = tuple(n for n, t in said.places if t not in self._unsaid)
            self._saying = self._mouth.begin(said.ids, said.hidden, stages, last=said.end_of_turn)
        turn = 0 if listens else self._turns
        fed = tuple(said.fed)
        self._unsettled = PastUnit(key, turn, self._unit.passes, fed, words)
        return Outcome(
            listens,
            self._saying,
            tuple(said.ids),
            tuple(said.sampled),
            fed,
            said.end_of_turn and not listens,
            *chances,
            stages,
        )

    def _undo(self, error: Exception) -> None:
        if isinstance(error, NumericsError):
            self.ears.reset()  # its caches may hold what was no number
        if self.config.reference_compat and isinstance(error, InputError):
            self._unit.begin()  # there, `<unit>` and pictures stay in front of the next unit
        else:
            self._unit.undo()


def checked_second(sound: Sound) -> Sound:
    """A unit's sound as float32; raises InputError for anything but a second at 16 kHz."""
    sound = checked_sound(sound, what="a unit's sound")
    if len(sound) != UNIT_SAMPLES:
        raise InputError(
            f"a unit's sound has {len(sound)} samples; a second at 16 kHz has {UNIT_SAMPLES}"
        )
    return sound
