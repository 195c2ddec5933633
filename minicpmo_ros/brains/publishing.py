"""From what a brain says to what is published: decisions, and alerts with numbers and expiry."""

from __future__ import annotations

from minicpmo_ros.brains.api import AlertNote, UnitResult
from minicpmo_ros.messages import NS_PER_S, Alert, Decision, StageTiming
from minicpmo_ros.timeline.unit import Unit


def decision_of(
    unit: Unit,
    epoch: int,
    turn: int,
    result: UnitResult,
    brain: str,
    mode: str,
    brain_ms: float | None,
) -> Decision:
    """The decision of a unit. brain_ms: wall time of the brain; None leaves all timings out."""
    timings: tuple[StageTiming, ...] = ()
    if brain_ms is not None:
        timings = (*result.timings, StageTiming("brain", brain_ms))
    return Decision(
        stamp_ns=unit.end_ns,
        unit=unit.index,
        epoch=epoch,
        action=result.action,
        turn=turn,
        text=result.text,
        end_of_turn=result.end_of_turn,
        reason=result.reason,
        brain=brain,
        mode=mode,
        p_listen=result.p_listen,
        p_speak=result.p_speak,
        pictures=tuple(picture.stamp_ns for picture in unit.pictures),
        audio_filled_ms=unit.filled_ms,
        kv_length=result.kv_length,
        kv_capacity=result.kv_capacity,
        timings=timings,
    )


class AlertLog:
    """Numbers alerts: raising, renewing and clearing of the same cause carry the same number.

    An alert that has expired is over: the next of its kind is a new one.
    """

    def __init__(self) -> None:
        self._count = 0
        self._active: dict[str, Alert] = {}

    def news(self, unit: Unit, notes: tuple[AlertNote, ...]) -> list[AlertNote]:
        """Those that `apply` will raise as new alerts."""
        known = {k for k, a in self._active.items() if a.expires_ns > unit.end_ns}
        return [note for note in notes if note.active and note.kind not in known]

    def apply(self, unit: Unit, epoch: int, notes: tuple[AlertNote, ...]) -> list[Alert]:
        """The alerts to publish; a note that clears what was never raised is dropped."""
        self._active = {k: a for k, a in self._active.items() if a.expires_ns > unit.end_ns}
        alerts = []
        for note in notes:
            known = self._active.pop(note.kind, None)
            if known is None and not note.active:
                continue
            if known is None:
                self._count += 1
            alert = Alert(
                stamp_ns=unit.end_ns,
                kind=note.kind,
                number=known.number if known else self._count,
                severity=note.severity,
                active=note.active,
                text=note.text,
                unit=unit.index,
                epoch=epoch,
                evidence=note.evidence,
                expires_ns=unit.end_ns + round(note.lifetime_s * NS_PER_S),
            )
            if note.active:
                self._active[note.kind] = alert
            alerts.append(alert)
        return alerts

    def forget(self) -> None:
        """A new session: what was active is no longer known."""
        self._active.clear()
