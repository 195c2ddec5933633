"""What the local brain tells while it loads: how far it is, and what holds it up."""

from __future__ import annotations

import logging

from minicpmo_ros.brains.api import Progress

VOCODER_FROM = 0.8
"""The share of the way at which a vocoder that may have to be built follows the network."""
_log = logging.getLogger(__name__)


class Telling:
    """How far one opening of the brain is.

    Args:
        progress: the brain's, told of both.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._share = 0.0

    def between(self, start: float, stop: float) -> Progress:
        """For what makes the way from one share of it to another; what is told never falls."""

        def told(what: str, share: float) -> None:
            self._share = max(self._share, start + (stop - start) * share)
            self._progress(what, self._share)

        return told

    def say(self, text: str) -> None:
        """What one waits for, or what was found damaged: shown until there is progress again."""
        _log.warning("%s", text)
        self._progress(text, self._share)
