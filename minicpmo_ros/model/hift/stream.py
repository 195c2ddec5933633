"""A turn's speech, chunk by chunk: mel frames in, samples out, neighbours cross-faded. No torch.

The last 160 ms of a chunk lack what follows, so they are held back and made once more with the next
chunk, to which a cross-fade leads over: 60 ms, for then comes what the old chunk made of a pitch
that was provisional. The last chunk gives everything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import InputError
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.hift.history import (
    OVERLAP,
    Array,
    Continued,
    History,
    Noise,
    Restarted,
    Step,
    seeded_noise,
)


class VocoderStream:
    """One turn after the other through a vocoder.

    Of n frames in all it makes n * samples_per_frame samples; with `lead_silence`, OVERLAP frames
    of silence more, unless the turn's first chunk is its last.

    Args:
        step: `Vocoder.render`, or the same on another runtime.
        seed: of the noise. Each turn has the same noise, so the same frames give the same samples.
        noise: in place of what the seed gives.
        lead_silence: begin with the silence that makes up for what is held back, as the published
            code does: a turn's first chunk is then as long as its frames. False: sound comes 160 ms
            earlier, and as much less of it lies in store from then on.
        reference_compat: do as the published code does, flaws included: each chunk's phase begins
            at zero, and the cross-fade takes all of the 160 ms and is 8 % too loud, because the two
            halves of a Hamming window add up to 1.08. So samples can leave -1..1.
    """

    def __init__(
        self,
        step: Step,
        config: HiftConfig,
        *,
        seed: int = 0,
        noise: Noise | None = None,
        lead_silence: bool = True,
        reference_compat: bool = False,
    ) -> None:
        self.step, self.config = step, config
        self.noise = noise or seeded_noise(seed, config)
        self.lead_silence, self.reference_compat = lead_silence, reference_compat
        self.overlap = OVERLAP * config.samples_per_frame
        frames = OVERLAP if reference_compat else max(OVERLAP - config.f0_reach, 1)
        self._fade_in, self._fade_out = _fades(
            frames * config.samples_per_frame, self.overlap, as_published=reference_compat
        )
        self.reset()

    def reset(self) -> None:
        """Forget the turn: the next frames are the first of another."""
        history = Restarted if self.reference_compat else Continued
        self._history: History = history(self.step, self.config, self.noise)
        # Frames of a start that is too short to be cross-faded.
        self._waiting: Array = np.zeros((self.config.mels, 0), np.float32)
        self._held: Array | None = None  # None: nothing of this turn was made yet

    @property
    def held(self) -> int:
        """Samples that are made and held back."""
        return 0 if self._held is None else len(self._held)

    def push(self, mel: Array, *, last: bool = False) -> Array:
        """The turn's next frames.

        Args:
            mel: float32 [mels, frames], any number of frames. Fewer than OVERLAP at the start of a
                turn wait for more.
            last: no more follow. Everything comes out, and the stream is as after `reset`.

        Returns:
            float32 [samples], may be none.

        Raises:
            InputError: mel is of another shape, or has NaN or infinity; the stream is as before.
        """
        mel = np.concatenate((self._waiting, self._checked(mel)), axis=1)
        frames = mel.shape[1]
        if not frames or (self._held is None and not last and frames < OVERLAP):
            self._waiting = mel
            return self._ended(np.zeros(0, np.float32)) if last else np.zeros(0, np.float32)
        self._waiting = mel[:, :0]
        opening = self._held is None
        new = frames + (0 if opening else OVERLAP)
        speech = self._history.render(mel)[-new:].ravel()
        if self._held is not None:
            faded = speech[: self.overlap] * self._fade_in + self._held * self._fade_out
            speech = np.concatenate((faded.astype(np.float32), speech[self.overlap :]))
        if last:
            self.reset()
            return speech
        self._held = speech[-self.overlap :]
        ready = speech[: -self.overlap]
        if opening and self.lead_silence:
            ready = np.concatenate((np.zeros(self.overlap, np.float32), ready))
        return ready

    def _ended(self, nothing: Array) -> Array:
        """What is held back is the end, for nothing follows it."""
        held = nothing if self._held is None else self._held
        self.reset()
        return held

    def _checked(self, mel: Array) -> Array:
        found = np.asarray(mel)
        if found.ndim != 2 or found.shape[0] != self.config.mels:
            raise InputError(
                f"mel frames for the vocoder are {list(found.shape)}, not [{self.config.mels},"
                " frames]"
            )
        if found.dtype.kind != "f":
            raise InputError(f"mel frames for the vocoder are {found.dtype}, not float32")
        if not np.isfinite(found).all():
            bad = int(np.count_nonzero(~np.isfinite(found).all(axis=0)))
            raise InputError(f"{bad} of {found.shape[1]} mel frames have values NaN or infinite")
        return found.astype(np.float32, copy=False)


def _fades(
    fade: int, overlap: int, *, as_published: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the new and of the old sound: [overlap] each, which add up to one. `fade` samples after
    the start, only the new one is left."""
    window = np.hamming(2 * fade)
    rising, falling = window[:fade], window[fade:]
    if not as_published:
        rising, falling = rising / (rising + falling), falling / (rising + falling)
    rest = overlap - fade
    return np.pad(rising, (0, rest), constant_values=1.0), np.pad(falling, (0, rest))
