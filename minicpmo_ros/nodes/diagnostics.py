"""What a node says about itself on /diagnostics: rates, latencies, troubles."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minicpmo_ros.errors import MinicpmoError
from minicpmo_ros.nodes.ros_types import TYPES

OK, WARN, ERROR = 0, 1, 2


def text_of(error: Exception) -> str:
    """Our own errors speak for themselves; a foreign one is named."""
    ours = isinstance(error, MinicpmoError)
    return str(error) if ours else f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Status:
    """One line of diagnostics. level: OK, WARN or ERROR."""

    name: str
    level: int = OK
    message: str = "ok"
    values: dict[str, object] = field(default_factory=dict)


class Latency:
    """Percentiles over the last thousand measurements, in ms."""

    def __init__(self) -> None:
        self._ms: deque[float] = deque(maxlen=1000)

    def add_ns(self, ns: int) -> None:
        self._ms.append(ns / 1e6)

    def values(self, name: str) -> dict[str, object]:
        if not self._ms:
            return {}
        p50, p99 = np.percentile(list(self._ms), [50, 99])
        return {f"{name} p50 ms": f"{p50:.1f}", f"{name} p99 ms": f"{p99:.1f}"}


class Sequence:
    """Counts what a publisher sent and never arrived, by the numbers that its messages carry."""

    def __init__(self) -> None:
        self.lost = 0
        self._next: int | None = None

    def add(self, number: int) -> None:
        if self._next is not None and number > self._next:
            self.lost += number - self._next
        # A number that goes back is a publisher that began anew.
        self._next = number + 1


class Traffic:
    """Messages in and out by topic; the counts also let a replay wait until all has arrived.

    Every topic is entered before messages come: threads then only change values.
    """

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._before: Counter[str] = Counter()

    def rates(self, seconds: float) -> dict[str, object]:
        """Messages a second since the last call."""
        now = Counter({f"in {k}": v for k, v in self.received.items()})
        now.update({f"out {k}": v for k, v in self.sent.items()})
        rates = {f"{k} Hz": f"{(now[k] - self._before[k]) / seconds:.1f}" for k in sorted(now)}
        self._before = now
        return rates


class Troubles:
    """Problems by kind: counted, kept for diagnostics, and logged at most every few seconds."""

    QUIET_S = 5.0
    FRESH_S = 10.0

    def __init__(self, log: Any) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._last: dict[str, tuple[float, str]] = {}
        self._logged: dict[str, float] = {}

    def add(self, kind: str, text: str) -> None:
        now = time.monotonic()
        with self._lock:
            self._counts[kind] += 1
            self._last[kind] = (now, text)
            loud = now - self._logged.get(kind, -self.QUIET_S) >= self.QUIET_S
            if loud:
                self._logged[kind] = now
        if loud:
            self._log.warning(f"{kind}: {text}")

    def counts(self) -> Counter[str]:
        with self._lock:
            return Counter(self._counts)

    def status(self, name: str) -> Status:
        """WARN while a trouble is fresh; counts stay."""
        now = time.monotonic()
        with self._lock:
            fresh = [
                f"{k}: {text}" for k, (at, text) in self._last.items() if now - at < self.FRESH_S
            ]
            values: dict[str, object] = {f"{k} count": n for k, n in self._counts.items()}
            values.update({f"{k} last": text for k, (_, text) in self._last.items()})
        return Status(name, WARN if fresh else OK, "; ".join(fresh) or "ok", values)


def diagnostic_array(at: Any, node: str, statuses: list[Status]) -> Any:
    """diagnostic_msgs/DiagnosticArray."""
    new = TYPES.new
    return new(
        "diagnostic_msgs/msg/DiagnosticArray",
        header=new("std_msgs/msg/Header", stamp=at),
        status=[
            new(
                "diagnostic_msgs/msg/DiagnosticStatus",
                level=bytes([s.level]),
                name=f"{node}: {s.name}",
                message=s.message,
                hardware_id=node,
                values=[
                    new("diagnostic_msgs/msg/KeyValue", key=k, value=str(v))
                    for k, v in s.values.items()
                ],
            )
            for s in statuses
        ],
    )
