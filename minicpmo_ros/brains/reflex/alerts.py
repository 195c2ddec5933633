"""When an alert is raised, renewed and cleared: confirmation, refractory time, expiry."""

from __future__ import annotations

from dataclasses import dataclass

from minicpmo_ros.brains.api import AlertNote
from minicpmo_ros.brains.reflex.config import ReflexConfig
from minicpmo_ros.messages import Severity

CAMERA_COVERED = "camera_covered"
CAMERA_LOST = "camera_lost"
CAMERA_UNREADABLE = "camera_unreadable"
MICROPHONE_LOST = "microphone_lost"
SUDDEN_LOUD_SOUND = "sudden_loud_sound"
SUDDEN_DARKNESS = "sudden_darkness"
SUDDEN_LIGHT = "sudden_light"
MOTION_AFTER_STILLNESS = "motion_after_stillness"


@dataclass(frozen=True)
class Rule:
    """How a kind of alert is handled.

    confirmed: its cause must hold for `confirm_units`; otherwise the sense itself has confirmed it.
    cleared_text: what is said when the cause is gone; empty for what only expires.
    """

    severity: Severity
    confirmed: bool
    cleared_text: str


RULES = {
    MICROPHONE_LOST: Rule(Severity.CRITICAL, False, "The microphone is back."),
    CAMERA_LOST: Rule(Severity.WARNING, False, "The camera is back."),
    CAMERA_UNREADABLE: Rule(Severity.WARNING, True, "The camera's pictures can be read again."),
    CAMERA_COVERED: Rule(Severity.WARNING, True, "The camera sees again."),
    SUDDEN_LOUD_SOUND: Rule(Severity.WARNING, False, ""),
    SUDDEN_DARKNESS: Rule(Severity.NOTICE, False, "It is light again."),
    SUDDEN_LIGHT: Rule(Severity.INFO, False, "It is dark again."),
    MOTION_AFTER_STILLNESS: Rule(Severity.NOTICE, False, ""),
}


@dataclass(frozen=True)
class Announcement:
    """A note to publish; fresh: raised now, neither renewed nor cleared."""

    note: AlertNote
    fresh: bool


class Watch:
    """One kind of alert. Times are seconds since the session began, as the units count them."""

    def __init__(self, kind: str, config: ReflexConfig) -> None:
        self._kind = kind
        self._rule = RULES[kind]
        self._confirm = config.confirm_units if self._rule.confirmed else 1
        self._clear = config.confirm_units
        self._refractory_s = config.refractory_s
        self._lifetime_s = config.lifetime_s
        self._evidence: tuple[int, ...] = ()
        self._present = 0  # units in a row
        self._absent = 0
        self._raised_s: float | None = None
        self._published_s = 0.0
        self.active = False

    def state(
        self,
        now_s: float,
        present: bool | None,
        text: str,
        evidence: tuple[int, ...] = (),
    ) -> list[Announcement]:
        """Follow a cause that lasts; present is None where it cannot be told."""
        expired = self._expire(now_s)
        if present is None:
            return []
        self._present = self._present + 1 if present else 0
        self._absent = 0 if present else self._absent + 1
        if present:
            first = self._evidence if self._present > 1 else ()
            self._evidence = first[:1] + evidence[-1:]
            if expired:  # renewed: its cause lasts
                return [self._raise(now_s, text, self._evidence, fresh=False)]
            if not self.active and self._present >= self._confirm and self._rested(now_s):
                return [self._raise(now_s, text, self._evidence, fresh=True)]
        elif self._absent >= self._clear:
            return self.clear(now_s, evidence[-1:])
        return []

    def event(self, now_s: float, text: str, evidence: tuple[int, ...]) -> list[Announcement]:
        """Take in something that happened at once; its alert expires by itself."""
        self._expire(now_s)
        if not self._rested(now_s):
            return []
        return [self._raise(now_s, text, evidence, fresh=True)]

    def clear(self, now_s: float, evidence: tuple[int, ...] = ()) -> list[Announcement]:
        """The cause is gone: a note that says so, unless the alert has expired anyway."""
        if self._expire(now_s) or not self.active:
            return []
        self.active = False
        return [self._note(self._rule.cleared_text, evidence, active=False, fresh=False)]

    def _rested(self, now_s: float) -> bool:
        return self._raised_s is None or now_s - self._raised_s >= self._refractory_s

    def _expire(self, now_s: float) -> bool:
        """True when an active alert has just reached the end of its life."""
        if not self.active or now_s - self._published_s < self._lifetime_s:
            return False
        self.active = False
        return True

    def _raise(
        self, now_s: float, text: str, evidence: tuple[int, ...], fresh: bool
    ) -> Announcement:
        self.active = True
        self._published_s = now_s
        if fresh:
            self._raised_s = now_s
        return self._note(text, evidence, active=True, fresh=fresh)

    def _note(
        self, text: str, evidence: tuple[int, ...], active: bool, fresh: bool
    ) -> Announcement:
        note = AlertNote(
            kind=self._kind,
            severity=self._rule.severity,
            text=text,
            active=active,
            evidence=evidence,
            lifetime_s=self._lifetime_s,
        )
        return Announcement(note, fresh)
