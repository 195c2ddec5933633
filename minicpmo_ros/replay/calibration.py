"""Conversations to calibrate on: what the language model would read while it lives a recording.

A recording becomes units as live streams do, and a conversation reads them. The language model is
not run: what it decides and says follows a script, turns of listening and of speaking in turn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.brains.local.pictures import as_float, readable
from minicpmo_ros.duplex.config import DuplexConfig, WindowConfig
from minicpmo_ros.duplex.conversation import Conversation
from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.messages import NS_PER_S, AudioChunk, Picture
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.mel import StreamingMel
from minicpmo_ros.model.picture import slices
from minicpmo_ros.model.prompts import duplex_prompt
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.replay.bag import Bag, open_bag
from minicpmo_ros.replay.from_video import bag_from_media
from minicpmo_ros.replay.progress import Progress, no_progress
from minicpmo_ros.replay.scene import write_scene
from minicpmo_ros.runtime.api import Logits
from minicpmo_ros.runtime.engines.check_feeds import Recorded
from minicpmo_ros.runtime.export.layerwise import CalibrationSequence
from minicpmo_ros.runtime.recording import RecordedContext, RecordingNetwork
from minicpmo_ros.timeline.config import TimelineConfig
from minicpmo_ros.timeline.timeline import Timeline
from minicpmo_ros.timeline.unit import Unit
from minicpmo_ros.topics import IMAGE, IMAGE_COMPRESSED, MIC

TOKENS = 2048
# That are cut into slices, from all over a recording.
PICTURES = 12
# Tokens of the prompt, with a voice of a minute, and of the unit that passes the limit.
ROOM = 2048
BAGS = (".mcap", ".db3")
LISTENS = 4  # units in a row
WORDS = 6  # tokens of text a unit
LINES = {
    "en": (
        "Yes, I can hear you well. I am right here in the room with you.",
        "I see a red ball that bounces, a green box on the floor and a blue disc above them.",
        "Careful, something is in front of the camera, and I cannot see where we are going.",
        "All right, I will wait until you are ready. Just call me when you need something.",
    ),
    "zh": (
        "听得很清楚，我就在你旁边，有什么需要可以直接告诉我。",  # noqa: RUF001
        "我看到一个红色的球在弹跳，地上有一个绿色的盒子，上面还有一个蓝色的圆盘。",  # noqa: RUF001
        "小心，有东西挡住了摄像头，我现在看不见前面的路。",  # noqa: RUF001
    ),
}


class Script:
    """In place of the sampler: listens for some units, then says a line, and so on."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._control = tokenizer.control
        languages = zip(*(LINES[name] for name in sorted(LINES)), strict=False)
        self._lines = [tokenizer.encode(line) for both in languages for line in both]
        self._unit = -1
        self._turn = 0
        self._said = 0
        self._left: list[int] = []

    def begin_unit(self) -> None:
        """What follows are the tokens of the next unit."""
        self._unit += 1
        control = self._control
        if self._unit < LISTENS:
            self._left = [control.listen]
            return
        line = self._lines[self._turn % len(self._lines)]
        words = line[self._said : self._said + WORDS]
        self._said += WORDS
        self._left = [control.speak, *words, control.chunk_eos]
        if self._said >= len(line):
            self._left.insert(-1, control.turn_eos)
            self._unit, self._said = -1, 0
            self._turn += 1

    def __call__(self, logits: Logits) -> int:
        return self._left.pop(0) if self._left else self._control.chunk_eos


def conversation_of(
    units: Iterator[Unit],
    network: RecordingNetwork,
    tokenizer: Tokenizer,
    *,
    tokens: int = TOKENS,
    voice: NDArray[np.float32] | None = None,
    progress: Progress = no_progress,
) -> CalibrationSequence:
    """What is read of units until there are at least so many tokens, or no more units.

    Args:
        voice: reference voice of the prompt, float32 at 16 kHz; None: there is none.
        progress: called with the seconds that were read.

    Raises:
        InputError: there is not one unit, or the voice is of no use.
        ConfigError: `tokens` is below one.
    """
    if tokens < 1:
        raise ConfigError(f"{tokens} tokens to calibrate on: must be 1 or more; 2048 do")
    config = DuplexConfig(
        window=WindowConfig("off"), kv_capacity=tokens + ROOM, forced_listens=0, speaks=False
    )
    script = Script(tokenizer)
    conversation = Conversation(network, tokenizer, config, sampler=script)
    context = conversation.context
    assert isinstance(context, RecordedContext)
    conversation.open(*duplex_prompt().ids(tokenizer), voice)
    decisions = []
    for seconds, unit in enumerate(units, start=1):
        script.begin_unit()
        context.asked.clear()
        conversation.hear(as_float(unit.samples), readable(unit.pictures)[0])
        decisions.append(context.asked[0])
        conversation.settle()
        progress(seconds)
        if context.length >= tokens:
            break
    if not decisions:
        raise InputError("the recording has not one second of sound or pictures")
    return CalibrationSequence(context.embeds[: context.length].copy(), tuple(decisions))


def units_of(bag: Bag) -> Iterator[Unit]:
    """The units of a bag, as a live session would have closed them; what cannot be read is left
    out and counted among the bag's faults."""
    timeline = Timeline(TimelineConfig())
    topics = [topic for topic in (IMAGE_COMPRESSED, IMAGE) if bag.counts.get(topic)][:1]
    at_ns = 0
    for topic, at_ns, message in bag.messages([MIC, *topics]):
        try:
            if isinstance(message, AudioChunk):
                yield from timeline.add_audio(message, at_ns)
            elif isinstance(message, Picture):
                yield from timeline.add_picture(message, at_ns)
        except InputError as error:
            bag.count_fault(topic, str(error))
    yield from timeline.advance(at_ns + NS_PER_S // 2)


def calibration_sequences(
    directory: Path | str,
    recordings: Sequence[Path | str] = (),
    *,
    tokens: int = TOKENS,
    progress: Progress = no_progress,
) -> list[CalibrationSequence]:
    """What the language model reads in each recording; see `recorded_inputs`."""
    found = recorded_inputs(directory, recordings, tokens=tokens, progress=progress)
    return [one.sequence for one in found]


def recorded_inputs(
    directory: Path | str,
    recordings: Sequence[Path | str] = (),
    *,
    tokens: int = TOKENS,
    progress: Progress = no_progress,
) -> list[Recorded]:
    """What the network is given in each recording: bags, or files of video or sound; by default the
    demo's scene (which needs espeak-ng).

    Args:
        directory: of the checkpoint.
        tokens: of each conversation, about; its pictures and sound are all of it.

    Raises:
        MinicpmoError: checkpoint or recordings are of no use; the message names them.
    """
    network = RecordingNetwork(directory)
    tokenizer = Tokenizer(directory, network.config.llm.vocab)
    found = []
    for recording in recordings or (None,):
        with (
            tempfile.TemporaryDirectory(prefix="minicpmo_calibration_") as folder,
            open_bag(_as_bag(recording, Path(folder) / "bag")) as bag,
        ):
            lived: list[Unit] = []
            units = _noted(units_of(bag), lived)
            sequence = conversation_of(units, network, tokenizer, tokens=tokens, progress=progress)
            found.append(_recorded(sequence, lived, network.config))
    return found


def _noted(units: Iterator[Unit], into: list[Unit]) -> Iterator[Unit]:
    for unit in units:
        into.append(unit)
        yield unit


def _recorded(
    sequence: CalibrationSequence, units: Sequence[Unit], config: ModelConfig
) -> Recorded:
    mel = StreamingMel(config.audio.mels)
    seen = [shown for unit in units for shown in readable(unit.pictures)[0]]
    some = seen[:: -(-len(seen) // PICTURES)] if seen else []
    cut = [slices(one.pixels, config.slices.max_slices, config.slices) for one in some]
    return Recorded(
        slices=tuple(one for pieces in cut for one in pieces),
        mels=tuple(mel.push(as_float(unit.samples)) for unit in units),
        sequence=sequence,
    )


def _as_bag(recording: Path | str | None, new: Path) -> Path:
    if recording is None:
        return write_scene(new).bag
    recording = Path(recording)
    if recording.is_dir() or recording.suffix in BAGS:
        return recording
    return bag_from_media(recording, new).bag
