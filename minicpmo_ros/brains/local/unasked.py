"""Alerts for what the model says though nobody spoke to it."""

from __future__ import annotations

from collections import deque

from minicpmo_ros.brains.api import AlertNote, Surroundings
from minicpmo_ros.messages import NS_PER_S, Severity
from minicpmo_ros.timeline.unit import Unit

KIND = "spoke_unasked"
EVIDENCE = 4  # newest pictures that are named


class Unasked:
    """Watches who speaks; raises an alert with a turn that nobody asked for, and updates it.

    Args:
        after_s: silence of everybody else that makes a turn the model's own initiative.
    """

    def __init__(self, after_s: float) -> None:
        self._after_ns = round(after_s * NS_PER_S)
        self.forget()

    def forget(self) -> None:
        """A new session."""
        self._voice_ns: int | None = None
        self._pictures: deque[int] = deque(maxlen=EVIDENCE)
        self._evidence: tuple[int, ...] = ()
        self._text = ""
        self._raised = False
        self._in_turn = False

    def notice(self, unit: Unit, around: Surroundings) -> None:
        """What was heard and seen in a unit, whatever comes of it."""
        self._pictures.extend(picture.stamp_ns for picture in unit.pictures)
        if self._voice_ns is not None:
            self._voice_ns = min(self._voice_ns, unit.end_ns)  # the clock may have been set back
        for span in around.voice:
            self._voice_ns = unit.end_ns if span.stop_ns is None else span.stop_ns

    def follow(
        self, unit: Unit, *, speaks: bool, text: str, end_of_turn: bool
    ) -> tuple[AlertNote, ...]:
        """What to raise with the decision of the unit that was noticed last."""
        begins = speaks and not self._in_turn
        self._in_turn = speaks and not end_of_turn
        notes: list[AlertNote] = []
        if begins:
            silent = self._voice_ns is None or unit.end_ns - self._voice_ns >= self._after_ns
            if silent and self._raised:
                notes.append(self._note(active=False))  # that one is over: this is another
            self._raised, self._text = silent, ""
            self._evidence = tuple(self._pictures)
        if speaks and self._raised and text:
            self._text += text
            notes.append(self._note(active=True))
        return tuple(notes)

    def cut(self) -> None:
        """The turn was interrupted."""
        self._in_turn = False

    def _note(self, *, active: bool) -> AlertNote:
        return AlertNote(
            KIND, Severity.NOTICE, self._text.strip(), active=active, evidence=self._evidence
        )
