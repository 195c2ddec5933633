"""The exceptions that cross rooms. Every message says what was wrong, with what, and what to do."""

from __future__ import annotations


class MinicpmoError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(MinicpmoError):
    """A setting is unknown, of the wrong type or out of its range."""


class InputError(MinicpmoError):
    """A message, file or recording cannot be used; the stream it came from goes on without it."""


class DeviceError(MinicpmoError):
    """A microphone, speaker or camera is missing, busy or gone."""


class BrainError(MinicpmoError):
    """The brain could not be opened, or failed in a unit."""


class CheckpointError(MinicpmoError):
    """A checkpoint is missing, incomplete, of another model, or does not fit its own config."""


class KvFullError(BrainError):
    """A KV cache has no rows left for what should go into it; nothing was written."""

    @classmethod
    def of(cls, capacity: int, used: int, more: int) -> KvFullError:
        """A cache of so many rows, so many of them in use, that so many more do not fit into."""
        return cls(
            f"the KV cache has {capacity} rows, {used} in use, and {more} more do not fit; let a"
            " window slide earlier, or give it a larger capacity"
        )


class NumericsError(BrainError):
    """The network gave NaN where a number is needed; what it was fed is to be thrown away."""


class EngineError(MinicpmoError):
    """A stage could not be built, or what was built cannot be loaded or run on this machine."""
