"""Latency by hop: where on the way from a sensor to the loudspeaker the time goes."""

from __future__ import annotations

from array import array
from itertools import pairwise

import numpy as np

from minicpmo_ros.messages import NS_PER_MS
from minicpmo_ros.replay.report.view import Hop

MIC = "mic"
PICTURE = "picture"
DECISION = "decision"
SPEECH = "speech"
SOUND = "sound"
SCHEDULE = "schedule"
SILENCE = "silence"
BARGE_IN = "barge-in"
STAGE = "stage "

MEANINGS = {
    MIC: "microphone: last sample of a chunk captured → message received",
    PICTURE: "camera: picture captured → message received",
    DECISION: "end of the unit → decision received",
    SPEECH: "decision received → first speech of its turn received",
    SOUND: "first speech of a turn received → its first sample sounds",
    SCHEDULE: "time a turn should sound → its first sample sounds",
    SILENCE: "epoch grows → last sample of the cut turn sounds",
    BARGE_IN: "voice starts → last sample of the cut turn sounds",
}

SHORT = {
    MIC: "microphone → received",
    PICTURE: "picture → received",
    DECISION: "unit's end → decision",
    SPEECH: "decision → speech",
    SOUND: "speech → sound",
    SCHEDULE: "planned → sound",
    SILENCE: "epoch → silence",
    BARGE_IN: "voice → silence",
}

# Hops between a stamp and the time of receipt: they mean nothing when the receiver's clock was
# another one, as with a bag recorded on wall time from a replay on simulated time.
AGAINST_LOG = (MIC, PICTURE, DECISION, SOUND)


class LatencyBuilder:
    """Collects milliseconds per hop, 12 bytes each."""

    def __init__(self) -> None:
        self._at: dict[str, array[int]] = {}
        self._ms: dict[str, array[float]] = {}

    def add(self, hop: str, at_ns: int, latency_ns: float) -> None:
        """at_ns: where on the timeline it is shown."""
        self._at.setdefault(hop, array("q")).append(at_ns)
        self._ms.setdefault(hop, array("f")).append(latency_ns / NS_PER_MS)

    def set(self, hop: str, measured: list[tuple[int, int]]) -> None:
        """Replace what is known of a hop by (at_ns, latency_ns) pairs."""
        self._at.pop(hop, None)
        self._ms.pop(hop, None)
        for at_ns, latency_ns in measured:
            self.add(hop, at_ns, latency_ns)

    def median_ms(self, hop: str) -> float | None:
        return float(np.median(self._ms[hop])) if hop in self._ms else None

    def build(self, without: tuple[str, ...] = (), shown: int = 2_000) -> tuple[Hop, ...]:
        """Hops in the order of `MEANINGS`, then the brain's stages; at most `shown` points each."""
        order = [*MEANINGS, *sorted(set(self._ms) - set(MEANINGS))]
        return tuple(
            _hop(name, np.array(self._at[name], np.int64), np.array(self._ms[name], float), shown)
            for name in order
            if name in self._ms and name not in without
        )


def _hop(name: str, at_ns: np.ndarray, ms: np.ndarray, shown: int) -> Hop:
    p50, p99 = np.percentile(ms, [50, 99])
    kept = slowest_of_each(ms, shown)
    meaning = MEANINGS.get(name) or f"stage of the brain: {name.removeprefix(STAGE)}"
    return Hop(
        name, meaning, len(ms), float(p50), float(p99), float(ms.max()), at_ns[kept], ms[kept]
    )


def slowest_of_each(ms: np.ndarray, shown: int) -> np.ndarray:
    """Indices of the slowest of each of `shown` equal runs: outliers are never thinned away."""
    if len(ms) <= shown:
        return np.arange(len(ms))
    edges = np.linspace(0, len(ms), shown + 1).astype(int)
    return np.array([a + int(np.argmax(ms[a:b])) for a, b in pairwise(edges)])
