"""Speakers without a device: the queue is drained at the pace of whatever clock drives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minicpmo_ros.errors import ConfigError, DeviceError
from minicpmo_ros.media.playback import PlayQueue
from minicpmo_ros.media.speaker import Speaker, SpeakerConfig, SpeakerStatus
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, SPEECH_RATE_HZ

BLOCK_NS = 20 * NS_PER_MS
BLOCK_FRAMES = SPEECH_RATE_HZ // 50

# Going back by more than this is a clock that was set; less is a timer out of step.
_BACK_NS = NS_PER_S
# A file is not filled with silence for longer than this: the clock was set, not waited for.
_LONGEST_SILENCE_NS = 600 * NS_PER_S


class ClockSpeaker(Speaker):
    """Takes a block of 20 ms when the clock reaches its start, at whole multiples of 20 ms.

    So what sounds depends on the stamps and on the pushes between the blocks alone, not on how
    often `advance` is called: a replay gives the same account each time.
    """

    def __init__(self, config: SpeakerConfig, queue: PlayQueue) -> None:
        super().__init__(config, queue)
        self._block = np.zeros(BLOCK_FRAMES, dtype=np.int16)
        self._next_ns: int | None = None
        self._jumps = 0
        self._open = False

    def open(self) -> None:
        self._next_ns = None
        self._open = True

    def close(self) -> None:
        self._open = False
        self.queue.clear()

    def advance(self, now_ns: int) -> None:
        if not self._open:
            return
        if self._next_ns is None or now_ns < self._next_ns - BLOCK_NS - _BACK_NS:
            self._jumps += self._next_ns is not None
            self._next_ns = now_ns // BLOCK_NS * BLOCK_NS
        while self._next_ns <= now_ns:
            if self.queue.idle:
                # Nothing can sound until something is pushed: no need to take every block.
                blocks = (now_ns - self._next_ns) // BLOCK_NS
                self._skip(blocks)
                self._next_ns += blocks * BLOCK_NS
            self.queue.take(BLOCK_FRAMES, self._next_ns + self.config.correction_ns, self._block)
            self._sounded(self._block)
            self._next_ns += BLOCK_NS

    @property
    def status(self) -> SpeakerStatus:
        stats = self.queue.stats
        return SpeakerStatus(
            self.config.sink,
            state="running" if self._open else "closed",
            rate_hz=SPEECH_RATE_HZ,
            channels=1,
            queued_samples=self.queue.queued_samples,
            jumps=self._jumps,
            refused=stats.refused,
            missing=stats.missing,
            abandoned=stats.abandoned,
            underruns=stats.underruns,
            concealed_samples=stats.concealed_samples,
            caught_up_samples=stats.caught_up_samples,
        )

    def _sounded(self, block: np.ndarray) -> None:
        """A block, int16 [480], has been taken."""

    def _skip(self, blocks: int) -> None:
        """So many blocks are silent and were not taken."""


class FileSpeaker(ClockSpeaker):
    """Writes what a speaker would have played: the file's time axis is the timeline.

    The file begins with the first `advance` (start_ns) and has every silence in it; only a clock
    that jumps leaves a seam: back, or ahead by more than ten minutes.
    """

    def __init__(self, config: SpeakerConfig, queue: PlayQueue) -> None:
        super().__init__(config, queue)
        self._file: Any = None
        self._problem = ""
        self.start_ns: int | None = None
        """ROS time of the file's first sample; None before the first `advance`."""

    def open(self) -> None:
        self._file = _create_sound(self.config.path)
        self._problem = ""
        self.start_ns = None
        super().open()

    def close(self) -> None:
        super().close()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def advance(self, now_ns: int) -> None:
        super().advance(now_ns)
        if self.start_ns is None and self._open:
            self.start_ns = now_ns // BLOCK_NS * BLOCK_NS

    @property
    def status(self) -> SpeakerStatus:
        values = {**super().status.__dict__, "problem": self._problem, "device": self.config.path}
        return SpeakerStatus(**values)

    def _sounded(self, block: np.ndarray) -> None:
        if self._file is None or self._problem:
            return
        try:
            self._file.write(block)
        except (OSError, RuntimeError) as error:
            # The conversation goes on without the file.
            self._problem = f"{self.config.path} cannot be written any more: {error}"

    def _skip(self, blocks: int) -> None:
        if blocks * BLOCK_NS > _LONGEST_SILENCE_NS:
            self._jumps += 1
            return
        silence = np.zeros(BLOCK_FRAMES, dtype=np.int16)
        for _ in range(blocks):
            self._sounded(silence)


def _create_sound(path: str) -> Any:
    """The file, open for writing. Raises ConfigError, or DeviceError without libsndfile."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"sound files cannot be written ({error}): pip install soundfile, and where its wheel "
            "does not bring it, install the package libsndfile1"
        ) from error
    whole = Path(path).expanduser()
    if whole.suffix.lower() not in (".wav", ".flac", ".ogg"):
        raise ConfigError(f"speaker sink file:{path}: the name must end in .wav, .flac or .ogg")
    try:
        return soundfile.SoundFile(whole, "w", samplerate=SPEECH_RATE_HZ, channels=1)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"speaker sink file:{path} cannot be written: {error}") from error
