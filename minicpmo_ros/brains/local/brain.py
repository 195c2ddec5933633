"""The local brain: the network of a checkpoint, in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.brains.api import (
    Brain,
    Capabilities,
    ChatRequest,
    SessionSetup,
    Surroundings,
    UnitResult,
)
from minicpmo_ros.brains.local.config import LocalConfig
from minicpmo_ros.brains.local.modes import ChatOnly, Duplex, Mode, Streaming
from minicpmo_ros.brains.local.pictures import as_float, readable
from minicpmo_ros.brains.reflex import Synthesiser
from minicpmo_ros.duplex import chat
from minicpmo_ros.duplex.dialogue import Dialogue
from minicpmo_ros.errors import BrainError, CheckpointError, InputError
from minicpmo_ros.media.sound_file import read_sound
from minicpmo_ros.messages import Picture
from minicpmo_ros.model import prompts
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.mel import RATE_HZ, checked_voice
from minicpmo_ros.model.sums import check_sums
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.timeline.unit import Unit

if TYPE_CHECKING:
    from minicpmo_ros.runtime.api import Network

LANGUAGES = ("en", "zh")
_log = logging.getLogger(__name__)


class LocalBrain(Brain):
    """See the module's first line.

    Args:
        synthesiser: speaks the text; None: the robot's words are only text.
        load: gives network and tokenizer; for tests.
    """

    name = "local"

    def __init__(
        self,
        config: LocalConfig,
        synthesiser: Synthesiser | None,
        load: Callable[[LocalBrain], tuple[Network, Tokenizer]] | None = None,
    ) -> None:
        self.config = config
        self.capabilities = Capabilities(
            modes=("duplex", "streaming", "chat"),
            languages=LANGUAGES,
            takes_prompt=True,
            chats=True,
            speaks=synthesiser is not None,
        )
        self._synthesiser = synthesiser
        self._load = load or LocalBrain._load_checkpoint
        self._loaded: tuple[Network, Tokenizer] | None = None
        self._modes: dict[str, Mode] = {}
        self._mode: Mode | None = None
        self._asked: Dialogue | None = None
        self._setup = SessionSetup()

    # -- life -------------------------------------------------------------------------------

    def open(self, setup: SessionSetup) -> None:
        """Load what is not loaded yet, and begin a session.

        Raises:
            BrainError: no such mode or language, or torch is not installed.
            CheckpointError, ConfigError, InputError: checkpoint, prompt file or voice are of no
                use; the message names what is wrong.
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
        voice = self._voice()
        if self._loaded is None:
            self._loaded = self._load(self)
        if self._setup.seed != setup.seed:
            self._modes.clear()
            self._asked = None
        self._setup = setup
        mode = self._modes.get(setup.mode)
        if mode is None:
            mode = self._modes[setup.mode] = self._make_mode(setup)
        mode.open(setup.language, text, voice)
        self._mode = mode
        network = self._loaded[0]
        self.about = "; ".join(filter(None, (network.about, mode.memory)))

    def close(self) -> None:
        self._mode = self._loaded = self._asked = None
        self._modes.clear()

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

            return load_network(
                directory,
                self.config.recipe,
                threads=self.config.threads,
                kv_capacity=self.config.duplex.kv_capacity,
                progress=self.progress,
                say=_log.info,
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
            progress=self.progress,
        )

    def _make_mode(self, setup: SessionSetup) -> Mode:
        assert self._loaded is not None
        makers = {"duplex": Duplex, "streaming": Streaming, "chat": ChatOnly}
        return makers[setup.mode](*self._loaded, self.config, self._synthesiser, setup.seed)

    def _prompt_text(self, setup: SessionSetup) -> prompts.PromptText | None:
        if setup.prompt:
            return prompts.PromptText(setup.prompt)
        if self.config.prompt_file:
            return prompts.read_prompt_file(self.config.prompt_file)
        return None

    def _voice(self) -> NDArray[np.float32] | None:
        if not self.config.reference_voice:
            return None
        return checked_voice(read_sound(self.config.reference_voice, RATE_HZ))
