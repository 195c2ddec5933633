"""Turn-taking as tau2-bench's voice panel defines it, event by event.

The definitions are those of its docs/interaction-metrics.md, on ticks of 200 ms (`ticks.py`):

- turn: a run of "turn" and "interruption" segments.
- answered (L_R, R_R): the robot begins at or after the turn's end and not after the person's next
  turn; the latency is from end to beginning. Unanswered: the person's next turn came first. A turn
  at whose end the robot goes on speaking (it was spoken over, or did not yield) is not counted.
- yielded (L_Y, R_Y): a turn begins while the robot speaks, and the robot is silent at most 2.0 s
  later; the latency is from the turn's beginning to that silence.
- cut in (I_A): the robot begins while the person speaks (turns and backchannels). It is divided by
  the turns that were answered or not, so it may exceed 1.
- ignored (S_BC, S_VT, S_ND): a backchannel, a tic or speech that is not directed at the robot
  begins while the robot speaks, and the robot is not silent at most 1.0 s later; or a tic or speech
  that is not directed at it begins while the robot is silent, and it does not begin to speak until
  2.0 s after its end. A backchannel in silence is not counted.
- Of segments that begin in the same tick only the first of backchannel, tic, not directed and turn
  is judged for yielding and ignoring.
- A single tick of the person's speech in the session's very last tick is dropped: it is how
  sessions are stopped.

Where a recording cannot answer back, the published code would count what nobody can know; so here

- a last turn that gets no answer in 5.0 s of session is unanswered (there: not counted);
- a window that the next turn or the session's end cuts short decides nothing, unless what it looks
  for has happened by then; a tic or speech not directed at the robot that begins within a turn, or
  in the silence before its answer (up to 2.0 s), is not judged, as the answer may be to the turn;
- speech known to be `finished` has not yielded to a backchannel, a tic or speech not directed;
- an answer in the very tick after the turn counts, with 0 s;
- a yield or an answer at the window's very end is inside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from minicpmo_ros.replay.scores.session import SPOKEN_TO_ROBOT, Kind, Session, UserSegment
from minicpmo_ros.replay.scores.ticks import Run, first_from, run_at, runs_of, tick_at, ticks_in

YIELD_S = 2.0
IGNORE_S = 1.0
RESPONSE_S = 2.0
UNANSWERED_S = 5.0
SELECTIVE: tuple[Kind, ...] = ("backchannel", "tic", "not_directed")  # in order of priority


@dataclass(frozen=True)
class TurnTaking:
    """What happened, each with the ticks and seconds of it; `+` joins those of several sessions.

    answered: turn and answer. yielded: turn and the robot's speech that stopped. cut_in: the
    robot's speech. ignored, heeded: what should have been ignored, and was or was not.
    """

    answered: tuple[tuple[Run, Run], ...] = ()
    unanswered: tuple[Run, ...] = ()
    yielded: tuple[tuple[Run, Run], ...] = ()
    unyielded: tuple[Run, ...] = ()
    cut_in: tuple[Run, ...] = ()
    ignored: tuple[tuple[Kind, Run], ...] = ()
    heeded: tuple[tuple[Kind, Run], ...] = ()

    def __add__(self, other: TurnTaking) -> TurnTaking:
        return TurnTaking(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def turn_taking(session: Session) -> TurnTaking:
    """The events of one session; what they are stands at the top of this module."""
    return _Floor(session).events()


class _Floor:
    """Who speaks in which tick of a session."""

    def __init__(self, session: Session) -> None:
        self.ticks = max(1, tick_at(session.duration_s))
        stretches = ((a.start_s, a.stop_s, a.finished) for a in session.agent)
        self.agent = runs_of(stretches, self.ticks)
        self.turns = self._user(u for u in session.user if u.kind in SPOKEN_TO_ROBOT)
        self.asides = {
            kind: self._user(u for u in session.user if u.kind == kind) for kind in SELECTIVE
        }
        self._drop_stop()

    def _user(self, segments: Iterable[UserSegment]) -> list[Run]:
        return runs_of(((s.start_s, s.stop_s, False) for s in segments), self.ticks)

    def _drop_stop(self) -> None:
        """Leave out speech in the last tick alone."""
        lanes = [self.turns, *self.asides.values()]
        before = any(run_at(lane, self.ticks - 2) for lane in lanes)
        for lane in lanes:
            if lane and self.ticks > 1 and lane[-1].start == self.ticks - 1 and not before:
                lane.pop()

    def events(self) -> TurnTaking:
        answered, unanswered = self._answers()
        yielded, unyielded = self._yields()
        judged = [
            (kind, run, ignored)
            for kind in SELECTIVE
            for run in self.asides[kind]
            if (ignored := self._ignored(kind, run)) is not None
        ]
        lanes = (self.turns, self.asides["backchannel"])
        return TurnTaking(
            answered,
            unanswered,
            yielded,
            unyielded,
            tuple(a for a in self.agent if any(run_at(lane, a.start) for lane in lanes)),
            tuple((kind, run) for kind, run, ignored in judged if ignored),
            tuple((kind, run) for kind, run, ignored in judged if not ignored),
        )

    def _answers(self) -> tuple[tuple[tuple[Run, Run], ...], tuple[Run, ...]]:
        answered, unanswered = [], []
        for turn in self.turns:
            if any(a.start < turn.stop < a.stop for a in self.agent):
                continue
            answer = first_from(self.agent, turn.stop)
            again = first_from(self.turns, turn.stop)
            last = again.start if again else turn.stop + ticks_in(UNANSWERED_S)
            if answer and answer.start <= last:
                answered.append((turn, answer))
            elif again or self.ticks - turn.stop >= ticks_in(UNANSWERED_S):
                unanswered.append(turn)
        return tuple(answered), tuple(unanswered)

    def _yields(self) -> tuple[tuple[tuple[Run, Run], ...], tuple[Run, ...]]:
        yielded, unyielded = [], []
        for turn in self.turns:
            speech = run_at(self.agent, turn.start)
            if speech is None or self._yields_priority("turn", turn):
                continue
            last = turn.start + ticks_in(YIELD_S)
            if speech.stop <= last and speech.stop < self.ticks:
                yielded.append((turn, speech))
            elif last < self.ticks:
                unyielded.append(turn)
        return tuple(yielded), tuple(unyielded)

    def _yields_priority(self, kind: Kind, run: Run) -> bool:
        """Something that comes first begins in the same tick."""
        above = SELECTIVE[: SELECTIVE.index(kind)] if kind in SELECTIVE else SELECTIVE
        return any(other.start == run.start for k in above for other in self.asides[k])

    def _ignored(self, kind: Kind, run: Run) -> bool | None:
        """Whether the robot ignored it; None where that is not to be judged."""
        if self._yields_priority(kind, run):
            return None
        if any(turn.start < run.start < turn.stop for turn in self.turns):
            return None
        next_turn = first_from(self.turns, run.start + 1)
        closes = self.ticks if next_turn is None else next_turn.start
        speech = run_at(self.agent, run.start)
        if speech is not None:
            last = run.start + ticks_in(IGNORE_S)
            if speech.stop <= last and speech.stop < closes:
                return speech.finished
        else:
            if kind == "backchannel" or self._awaits_answer(run):
                return None
            last = run.stop + ticks_in(RESPONSE_S)
            response = first_from(self.agent, run.start)
            if response and response.start <= last and response.start < closes:
                return False
        return True if last < closes else None

    def _awaits_answer(self, run: Run) -> bool:
        """A turn begins with it, or has ended shortly before and was not answered yet."""
        for turn in self.turns:
            if turn.start == run.start:
                return True
            if turn.stop <= run.start <= turn.stop + ticks_in(RESPONSE_S):
                answer = first_from(self.agent, turn.stop)
                if answer is None or answer.start > run.start:
                    return True
        return False
