"""The local brain: the network of a checkpoint, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from minicpmo_ros.brains.api import (
    Brain,
    Capabilities,
    ChatRequest,
    SessionSetup,
    Surroundings,
    UnitResult,
    VoiceNotes,
)
from minicpmo_ros.brains.local.config import LocalConfig
from minicpmo_ros.brains.local.modes import ChatOnly, Duplex, Mode, Streaming
from minicpmo_ros.brains.local.pictures import as_float, readable
from minicpmo_ros.brains.local.telling import VOCODER_FROM, Telling
from minicpmo_ros.brains.local.voices import Load, LocalVoices, load_networks
from minicpmo_ros.brains.reflex import Synthesiser
from minicpmo_ros.duplex import chat
from minicpmo_ros.duplex.dialogue import Dialogue
from minicpmo_ros.errors import BrainError, CheckpointError, InputError, MinicpmoError
from minicpmo_ros.media.sound_file import read_sound
from minicpmo_ros.messages import Picture
from minicpmo_ros.model import prompts
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.mel import RATE_HZ, checked_voice
from minicpmo_ros.model.sums import check_sums
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.model.vocoder import assets_of
from minicpmo_ros.timeline.unit import Unit

if TYPE_CHECKING:
    from minicpmo_ros.runtime.api import Network
    from minicpmo_ros.runtime.vocoder import VoiceVocoder

LANGUAGES = ("en", "zh")


class LocalBrain(Brain):
    """See the module's first line.

    Args:
        synthesiser: speaks the text where the checkpoint has no voice of its own, or in a mode in
            which it has none; None: the robot's words are then only text.
        load: gives network and tokenizer; for tests.
        load_vocoder: gives what makes sound of the model's codes of speech; for tests.
    """

    name = "local"

    def __init__(
        self,
        config: LocalConfig,
        synthesiser: Synthesiser | None,
        load: Callable[[LocalBrain], tuple[Network, Tokenizer]] | None = None,
        load_vocoder: Load = load_networks,
    ) -> None:
        self.config = config
        self._voices = LocalVoices(config, load_vocoder)
        self._vocoder: VoiceVocoder | None = None
        self.capabilities = Capabilities(
            modes=("duplex", "streaming", "chat"),
            languages=LANGUAGES,
            takes_prompt=True,
            chats=True,
            speaks=synthesiser is not None and config.synthesiser_fallback,
        )
        self._synthesiser = synthesiser if config.synthesiser_fallback else None
        self._load = load or LocalBrain._load_checkpoint
        self._loaded: tuple[Network, Tokenizer] | None = None
        self._modes: dict[str, Mode] = {}
        self._mode: Mode | None = None
        self._asked: Dialogue | None = None
        self._setup = SessionSetup()
        self._telling = Telling(self.progress)

    # -- life -------------------------------------------------------------------------------

    def open(self, setup: SessionSetup) -> None:
        """Load what is not loaded yet, and begin a session.

        Raises:
            BrainError: no such mode or language, or torch is not installed.
            CheckpointError, ConfigError, InputError: checkpoint, prompt file or voice are of no
                use; the message names what is wrong. One that has no vocoder, or a broken one, is
                told in `voice_trouble` instead.
        """
        for field, value, known in (
            ("mode", setup.mode, self.capabilities.modes),
            ("language", setup.language, LANGUAGES),
        ):
            if value not in known:
                raise BrainError(
                    f"the local brain has no {field} {value!r}; it has {', '.join(known)}"
                )
        text = self._prompt_text(setup)
        file = self._voices.file(setup.voice)
        voice = None if file is None else checked_voice(read_sound(file, RATE_HZ))
        self._telling = Telling(self.progress)
        if self._loaded is None:
            self._loaded = self._load(self)
        vocoder = self._find_vocoder(file, setup.seed, setup.mode)
        if self._setup.seed != setup.seed or vocoder is not self._vocoder:
            self._mode = self._asked = None
            self._modes.clear()
        self._setup, self._vocoder = setup, vocoder
        mode = self._modes.get(setup.mode)
        if mode is None:
            mode = self._modes[setup.mode] = self._make_mode(setup)
        mode.open(setup.language, text, voice)
        self._mode = mode
        network = self._loaded[0]
        self.about = "; ".join(filter(None, (network.about, mode.memory, self._voices.about)))

    def close(self) -> None:
        self._mode = self._loaded = self._asked = self._vocoder = None
        self._modes.clear()
        self._voices.close()

    # -- units ------------------------------------------------------------------------------

    def unit(self, unit: Unit, around: Surroundings) -> UnitResult:
        """Decide on a unit. Raises MinicpmoError when it is lost; the next one may be well."""
        return self._opened().unit(unit, around)

    def picture(self, picture: Picture) -> None:
        self._opened().picture(picture)

    def settle(self) -> None:
        self._opened().settle()

    def interrupt(self, heard: str) -> None:
        self._opened().interrupt()

    def remember(self, heard: str, unit: int) -> None:
        # Where nothing speaks, nothing was heard, and all of it could be read.
        if self._mode is not None and self.capabilities.speaks:
            self._mode.remember(heard, unit)

    def voices(self) -> tuple[str, ...]:
        return self._voices.names()

    def _opened(self) -> Mode:
        if self._mode is None:
            raise BrainError("the local brain is not open; call open before unit")
        return self._mode

    # -- chat -------------------------------------------------------------------------------

    def chat(self, request: ChatRequest) -> Iterator[str]:
        """Answer a question piece by piece; the conversation in units is not touched."""
        self._opened()
        assert self._loaded is not None
        network, tokenizer = self._loaded
        if self._asked is None:
            self._asked = Dialogue(
                network, tokenizer, self.config.dialogue(), seed=self._setup.seed
            )
        shown, unreadable = readable(request.pictures)
        if unreadable:
            raise InputError(f"picture of the question: {unreadable}")
        sound = as_float(request.sound) if len(request.sound) else None
        system = prompts.chat_prompt(
            self._setup.language, self._prompt_text(self._setup), voice=False
        )
        yield from chat.answer(
            self._asked, request.text, shown, sound, system, limit=request.max_tokens
        )

    # -- what is needed to begin --------------------------------------------------------------

    def _load_checkpoint(self) -> tuple[Network, Tokenizer]:
        directory = self.config.directory()
        if not directory.is_dir():
            raise CheckpointError(f"checkpoint {directory}: there is no such directory")
        check_sums(directory)  # a tokenizer that was altered would be told in words of its own
        # What takes minutes comes last: a wrong tokenizer is found before.
        tokenizer = Tokenizer(directory, ModelConfig.load(directory).llm.vocab)
        return self._network(directory), tokenizer

    def _network(self, directory: Path) -> Network:
        if self.config.recipe is not None:
            from minicpmo_ros.runtime.load import load_network

            stop = 1.0 if assets_of(directory) is None else VOCODER_FROM
            return load_network(
                directory,
                self.config.recipe,
                threads=self.config.threads,
                kv_capacity=self.config.duplex.kv_capacity,
                progress=self._telling.between(0.0, stop),
                say=self._telling.say,
            )
        try:
            from minicpmo_ros.runtime.torch_runtime import TorchNetwork
        except ImportError as error:
            raise BrainError(
                f"without a recipe the local brain runs on torch, which is missing ({error}): give"
                " a recipe (cpu, ...), or pip install 'minicpmo_ros[model]'"
            ) from None
        return TorchNetwork.load(
            directory,
            device=self.config.device,
            precision=self.config.precision,
            threads=self.config.threads,
            progress=self._telling.between(0.0, 1.0),
        )

    def _make_mode(self, setup: SessionSetup) -> Mode:
        assert self._loaded is not None
        if setup.mode == "duplex":
            return Duplex(*self._loaded, self.config, self._synthesiser, setup.seed, self._vocoder)
        makers = {"streaming": Streaming, "chat": ChatOnly}
        return makers[setup.mode](*self._loaded, self.config, self._synthesiser, setup.seed)

    def _find_vocoder(self, file: Path | None, seed: int, mode: str) -> VoiceVocoder | None:
        """What speaks, and in `voice` and `voice_trouble` why it is not the model, if so."""
        assert self._loaded is not None
        self.voice_trouble = ""
        vocoder, why = None, ""
        if self._loaded[0].config.speech is None:
            why = "the checkpoint has no speech decoder"
        else:
            try:
                directory = self.config.directory()
                vocoder = self._voices.vocoder(directory, file, seed, self._telling)
            except MinicpmoError as error:
                why = self.voice_trouble = f"the model's own voice is silent: {error}"
        if not why and mode != "duplex":
            why = f"in mode {mode} the model gives text only"
        spare = "the synthesiser speaks its text" if self._synthesiser else "nothing speaks"
        self.voice = f"{spare}: {why}" if why else self._voices.about
        self.voice_notes = VoiceNotes() if why else self._voices.notes
        speaks = not why or self._synthesiser is not None
        self.capabilities = replace(self.capabilities, speaks=speaks)
        return vocoder

    def _prompt_text(self, setup: SessionSetup) -> prompts.PromptText | None:
        if setup.prompt:
            return prompts.PromptText(setup.prompt)
        if self.config.prompt_file:
            return prompts.read_prompt_file(self.config.prompt_file)
        return None
