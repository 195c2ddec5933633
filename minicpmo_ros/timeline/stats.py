"""What the timeline counts, so that no sample and no picture disappears without a trace."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


class Samples(Counter[int]):
    """Samples counted apart for each sampling rate (Hz), so that sums are exact whole numbers."""

    @property
    def count(self) -> int:
        return sum(self.values())

    @property
    def ms(self) -> float:
        return sum(1000.0 * samples / rate_hz for rate_hz, samples in self.items())


@dataclass(eq=False)
class TimelineStats:
    """Counts since the timeline was made; a reset does not clear them.

    Sound, in samples of its source:
        received == used + late + overlap + rejected + dropped + pending
    used: in a unit. late: for a unit that was closed. overlap: there already, or cut to keep to the
    stamps. rejected: refused with an error. dropped: held when the timeline restarted. pending: for
    a unit still open.

    Units, in samples at the units' rate:
        heard + filled == units * samples in a unit
    heard: sound from the microphone. filled: silence where there was none. gaps: stretches of such
    silence. resets: new origins after the first. skipped_ms: whole units never made because the
    clock leapt over them.

    Pictures: received == used + late + dropped + rejected + pending. dropped: newer ones were
    taken, it came twice, it was older than the first unit, or the timeline restarted.
    """

    chunks: int = 0
    empty_chunks: int = 0
    rejected_chunks: int = 0
    received: Samples = field(default_factory=Samples)
    used: Samples = field(default_factory=Samples)
    late: Samples = field(default_factory=Samples)
    overlap: Samples = field(default_factory=Samples)
    rejected: Samples = field(default_factory=Samples)
    dropped: Samples = field(default_factory=Samples)
    pending: Samples = field(default_factory=Samples)

    units: int = 0
    heard: int = 0
    filled: int = 0
    gaps: int = 0
    resets: int = 0
    skipped_ms: int = 0

    pictures_received: int = 0
    pictures_used: int = 0
    pictures_late: int = 0
    pictures_dropped: int = 0
    pictures_rejected: int = 0
    pictures_pending: int = 0

    def summary(self) -> dict[str, float]:
        """Every count by name, for diagnostics; sound as `<name>_ms`."""
        return {
            name + "_ms" if isinstance(value, Samples) else name: (
                value.ms if isinstance(value, Samples) else value
            )
            for name, value in vars(self).items()
        }
